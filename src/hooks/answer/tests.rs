use proptest::prelude::*;

use super::*;

fn parse(body: &str) -> Result<HookAnswer, HookError> {
    HookAnswer::parse(body.as_bytes())
}

fn denial(body: &str) -> Denial {
    match parse(body) {
        Err(HookError::Refused(denial)) => denial,
        other => panic!("not a refusal: {other:?}"),
    }
}

fn is_bad(body: &str) -> bool {
    matches!(parse(body), Err(HookError::BadAnswer(_)))
}

#[test]
fn an_empty_body_and_an_empty_object_agree() {
    for body in ["", " \n", "{}", r#"{"ok":true}"#] {
        let answer = parse(body).unwrap();
        assert!(answer.ack.is_none() && answer.ttl.is_none() && answer.join.is_empty(), "{body}");
    }
}

#[test]
fn events_and_acknowledgement_can_have_several_arguments_or_none() {
    let answer = parse(
        r#"{"ack_args":[null, 1.50],"reply":[{"event":"a","args":[1, [2]]},{"event":"b","args":[]}],
            "publish":[{"event":"c","args":[{"x":1},"y"]}]}"#,
    )
    .unwrap();
    let texts = |args: &[Box<RawValue>]| args.iter().map(|arg| arg.get().to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(&answer.ack.unwrap()), ["null", "1.50"]);
    assert_eq!(texts(&answer.reply[0].args), ["1", "[2]"]);
    assert!(answer.reply[1].args.is_empty());
    assert_eq!(texts(&answer.publish[0].args), [r#"{"x":1}"#, r#""y""#]);
    for both in [
        r#"{"ack":1,"ack_args":[1]}"#,
        r#"{"reply":[{"event":"a","data":1,"args":[1]}]}"#,
        r#"{"publish":[{"event":"a","data":1,"args":[1]}]}"#,
    ] {
        assert!(matches!(parse(both), Err(HookError::BadAnswer(_))), "{both}");
    }
}

#[test]
fn every_member_is_read_and_values_stay_to_the_byte() {
    let answer = parse(
        r#"{"ok":true,"ack":{"n": 1.50},"reply":[{"event":"a","data":[1, 2]},{"event":"b"}],"join":["r1"],"leave":["r2"],
            "publish":[{"event":"c","data":{"x": 1e3},"params":{"userId":"u"}}],"metadata":{"plan":"pro"},"ttl":30}"#,
    )
    .unwrap();
    assert_eq!(answer.ack.unwrap()[0].get(), r#"{"n": 1.50}"#);
    assert_eq!(answer.reply[0].args[0].get(), "[1, 2]");
    assert!(answer.reply[1].args.is_empty());
    assert_eq!((answer.join, answer.leave), (vec!["r1".to_owned()], vec!["r2".to_owned()]));
    assert_eq!(answer.publish[0].args[0].get(), r#"{"x": 1e3}"#);
    assert_eq!(answer.publish[0].params.as_ref().unwrap()["userId"], "u");
    assert_eq!(answer.metadata["plan"], "pro");
    assert_eq!(answer.ttl, Some(Duration::from_secs(30)));
}

#[test]
fn a_null_ack_is_an_ack() {
    assert_eq!(parse(r#"{"ack":null}"#).unwrap().ack.unwrap()[0].get(), "null");
}

#[test]
fn a_no_may_have_a_code_a_message_and_a_ttl() {
    assert_eq!(denial(r#"{"ok":false}"#), Denial::default());
    let full = denial(r#"{"error":{"code":"TOO_LATE","message":"it is finished"},"ttl":"5m"}"#);
    assert_eq!(full.code.as_deref(), Some("TOO_LATE"));
    assert_eq!(full.message, "it is finished");
    assert_eq!(full.ttl, Some(Duration::from_secs(300)));
    assert_eq!(full.to_string(), "TOO_LATE: it is finished");
}

#[test]
fn what_is_no_answer_is_refused() {
    for body in [
        "nonsense",
        "[]",
        "1",
        "null",
        r#"{"okay":true}"#,
        r#"{"reply":[{"event":"a","date":1}]}"#,
        r#"{"reply":[{"data":1}]}"#,
        r#"{"join":"room"}"#,
        r#"{"error":{"code":"has space"}}"#,
        r#"{"error":{"code":""}}"#,
        r#"{"error":{"kode":"X"}}"#,
        r#"{"ttl":-1}"#,
        r#"{"ttl":"soon"}"#,
        r#"{"ok":true}{"ok":true}"#,
        r#"{"ok":true,"ok":false}"#,
    ] {
        assert!(is_bad(body), "{body}");
    }
}

#[test]
fn lists_and_texts_have_bounds() {
    let rooms = |n: usize| serde_json::json!({ "join": vec!["r"; n] }).to_string();
    assert!(parse(&rooms(MAX_ANSWER_ENTRIES)).is_ok());
    assert!(is_bad(&rooms(MAX_ANSWER_ENTRIES + 1)));
    let long = serde_json::json!({ "error": { "message": "é".repeat(1000) } }).to_string();
    assert_eq!(denial(&long).message.len(), MAX_MESSAGE_BYTES);
    assert!(is_bad(&serde_json::json!({ "error": { "code": "A".repeat(65) } }).to_string()));
}

#[test]
fn a_ttl_of_zero_is_none_and_a_long_one_is_cut() {
    assert_eq!(parse(r#"{"ttl":0}"#).unwrap().ttl, None);
    assert_eq!(parse(r#"{"ttl":"0s"}"#).unwrap().ttl, None);
    assert_eq!(parse(r#"{"ttl":"10years"}"#).unwrap().ttl, Some(MAX_TTL));
    assert_eq!(parse(&format!(r#"{{"ttl":{}}}"#, u64::MAX)).unwrap().ttl, Some(MAX_TTL));
}

#[test]
fn a_refusing_status_needs_an_error_in_its_body() {
    assert!(HookAnswer::parse_refusal(b"").is_none());
    assert!(HookAnswer::parse_refusal(b"<html>not here</html>").is_none());
    assert!(HookAnswer::parse_refusal(b"{}").is_none());
    let denial = HookAnswer::parse_refusal(br#"{"error":{"code":"NO"}}"#).unwrap();
    assert_eq!(denial.code.as_deref(), Some("NO"));
}

/// Generates JSON that resembles an answer often enough to reach every branch.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é€]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("ok"),
        Just("ack"),
        Just("reply"),
        Just("join"),
        Just("leave"),
        Just("publish"),
        Just("metadata"),
        Just("error"),
        Just("ttl"),
        Just("event"),
        Just("data"),
        Just("params"),
        Just("code"),
        Just("message"),
        Just("other")
    ];
    leaf.prop_recursive(3, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone().prop_map(str::to_owned), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = HookAnswer::parse(&bytes);
        let _ = HookAnswer::parse_refusal(&bytes);
    }

    #[test]
    fn any_json_is_an_answer_a_refusal_or_bad(value in json()) {
        match parse(&value.to_string()) {
            Ok(answer) => prop_assert!(answer.join.len() <= MAX_ANSWER_ENTRIES && answer.ttl <= Some(MAX_TTL)),
            Err(HookError::Refused(denial)) => {
                prop_assert!(denial.message.len() <= MAX_MESSAGE_BYTES);
                prop_assert!(denial.code.is_none_or(|code| is_code(&code)));
            }
            Err(HookError::BadAnswer(_)) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn an_ack_passes_through_to_the_byte(value in json(), spaces in " {0,3}") {
        let text = format!("[{spaces}{value}{spaces}]");
        let answer = parse(&format!(r#"{{"ack":{text}}}"#)).unwrap();
        let ack = answer.ack.unwrap().remove(0);
        prop_assert_eq!(ack.get(), text);
    }
}
