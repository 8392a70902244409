//! What a token must say is judged as the library judges it.

use jsonwebtoken::{DecodingKey, Validation};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Map;

use super::*;

/// What the library makes of a token of the shared secret.
fn by_the_library(config: &Auth, token: &str) -> Option<Map<String, Value>> {
    let mut validation = Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.leeway = config.leeway.as_secs();
    validation.validate_nbf = true;
    validation.validate_aud = !config.audience.is_empty();
    if !config.audience.is_empty() {
        validation.set_audience(&config.audience);
        validation.required_spec_claims.insert("aud".into());
    }
    if !config.issuer.is_empty() {
        validation.set_issuer(&config.issuer);
        validation.required_spec_claims.insert("iss".into());
    }
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode(token, &key, &validation).map(|data| data.claims).ok()
}

/// A token of this JSON, signed with the shared secret.
fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Members of an object, a name perhaps twice.
fn members(names: &'static [&'static str], values: Vec<String>) -> impl Strategy<Value = String> {
    let member = (select(names), select(values)).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    proptest::collection::vec(member, 0..6).prop_map(|members| members.join(","))
}

fn header() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "typ", "cty", "jku", "jwk", "kid", "x5u", "x5c", "x5t", "x5t#S256", "enc", "zip", "url", "nonce", "other",
        "alg",
    ];
    let values = [r#""JWT""#, r#""at+jwt""#, "null", "1", "{}", r#"["a"]"#, "[1]", r#"{"kty":"oct","k":"AAAA"}"#];
    let usual = "\"alg\":\"HS256\"";
    members(NAMES, values.map(str::to_owned).to_vec())
        .prop_map(move |more| if more.is_empty() { format!("{{{usual}}}") } else { format!("{{{usual},{more}}}") })
}

fn claims() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &["exp", "nbf", "iat", "sub", "iss", "aud", "exp\\u0020", "\\u0065xp", "roles"];
    let mut values: Vec<String> = [
        "null",
        "true",
        "0",
        "-0",
        "-1",
        "-0.0",
        "0.4",
        "1e300",
        "1e400",
        "18446744073709551615",
        "18446744073709551616",
        "1.8446744073709551615e19",
        "1.8446744073709550e19",
        "{}",
        "[]",
        "[1]",
        r#"{"a":1}"#,
        r#""""#,
        r#""us""#,
        r#""one""#,
        r#"["us"]"#,
        r#"["others","one"]"#,
        r#"["one",1]"#,
        r#""\u006fne""#,
        r#"["\u0075s"]"#,
        "\"\\ud800\"",
        "nul",
    ]
    .map(str::to_owned)
    .to_vec();
    // None is so near to a bound that the test's own time matters.
    for seconds in [-3600, -40, -20, 20, 40, 3600] {
        values.push(soon(seconds).to_string());
        values.push(format!("{}.7", soon(seconds)));
        values.push(format!("\"{}\"", soon(seconds)));
    }
    let usual = (any::<bool>(), any::<bool>()).prop_map(|(exp, names)| {
        let exp = if exp { format!("\"exp\":{},", soon(3600)) } else { String::new() };
        let names = if names { "\"iss\":\"one\",\"aud\":[\"us\",\"them\"]," } else { "" };
        format!("{exp}{names}")
    });
    (usual, members(NAMES, values))
        .prop_map(|(usual, more)| format!("{{{}}}", format!("{usual}{more}").trim_end_matches(',')))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn tokens_are_judged_as_the_library_judges_them(header in header(), claims in claims(), strict in any::<bool>()) {
        let leeway = Period::from_secs(30);
        let config = if strict {
            Auth { leeway, issuer: vec!["one".into()], audience: vec!["us".into(), "or us".into()], ..shared() }
        } else {
            Auth { leeway, ..shared() }
        };
        let (keys, rules) = (KeySet::configured(&config.keys).unwrap(), Rules::new(&config));
        let token = signed(&header, &claims);
        let ours = verify::verify(&token, &[&keys], &rules, SystemTime::now()).ok();
        let ours = ours.map(|claims| claims.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect());
        prop_assert_eq!(ours, by_the_library(&config, &token), "{} {}", header, claims);
    }
}
