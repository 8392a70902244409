//! The parts of a handshake that may hold a token, or that contracts use.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use serde_json::{Map, Value, json};

use super::AuthError;
use crate::contract::handshake::HandshakePart;
use crate::contract::model::TokenSource;
use crate::error::{Code, Refusal};
use crate::query;

/// The parts of a client's handshake that may hold a token, or that contracts use.
#[derive(Clone, Default)]
pub struct Handshake {
    /// The payload of the Socket.IO CONNECT packet (protocol v5, "Connection to a namespace").
    pub auth: Option<Value>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The request's query string without its question mark, or the parameters of it that may hold a token.
    pub query: Option<String>,
    /// The `Cookie` header, or the cookies of it that may hold a token.
    pub cookies: Option<String>,
    /// The values of the headers that the contracts use, by name.
    pub headers: Vec<(String, String)>,
    /// Whether this client may recover an earlier session.
    pub recoverable: bool,
}

/// Maximum size of the parts of a handshake that a session keeps, as JSON, in bytes.
const MAX_HANDSHAKE_BYTES: usize = 4096;

impl Handshake {
    /// Keeps the parts of a request in which one of `sources` may find a token, and the `named` parts. The rest is
    /// dropped, because a connection keeps these parts until it closes.
    pub fn of_request(sources: &[TokenSource], named: &[HandshakePart], headers: &HeaderMap, query: &str) -> Self {
        let header = headers.get(AUTHORIZATION).filter(|_| sources.contains(&TokenSource::Header));
        let is_cookie =
            |name: &str| sources.iter().any(|source| matches!(source, TokenSource::Cookie(of) if of == name));
        let is_param = |name: &str| {
            sources.iter().any(|source| matches!(source, TokenSource::Query(of) if of == name))
                || named.iter().any(|part| matches!(part, HandshakePart::Query(of) if of == name))
        };
        let header_of = |part: &HandshakePart| match part {
            HandshakePart::Header(name) => {
                Some((name.clone(), String::from_utf8_lossy(headers.get(name)?.as_bytes()).into_owned()))
            }
            _ => None,
        };
        let mut cookies = Vec::new();
        for value in headers.get_all(COOKIE) {
            // Bytes that are not UTF-8 are replaced, so that one invalid cookie does not hide the others.
            let value = String::from_utf8_lossy(value.as_bytes());
            let pairs = value.split(';').map(str::trim);
            cookies.extend(pairs.filter(|pair| is_cookie(name_of(pair))).map(str::to_owned));
        }
        let params: Vec<_> = query.split('&').filter(|pair| is_param(&query::decode(name_of(pair)))).collect();
        Self {
            authorization: header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
            cookies: (!cookies.is_empty()).then(|| cookies.join("; ")),
            query: (!params.is_empty()).then(|| params.join("&")),
            headers: named.iter().filter_map(header_of).collect(),
            ..Self::default()
        }
    }

    /// Whether no part that may hold a token is present.
    pub fn is_empty(&self) -> bool {
        self.auth.is_none()
            && self.authorization.is_none()
            && self.cookies.is_none()
            && self.query.is_none()
            && self.headers.is_empty()
    }

    /// The named parts as an object with `query`, `headers` and `auth`.
    ///
    /// # Errors
    /// Returns [`Code::TooLarge`] if the parts are larger than `MAX_HANDSHAKE_BYTES`.
    pub fn named<'a>(&self, parts: impl Iterator<Item = &'a HandshakePart>) -> Result<Value, Refusal> {
        let (mut query, mut headers, mut members, mut whole) = (Map::new(), Map::new(), Map::new(), false);
        for part in parts {
            match part {
                HandshakePart::Query(name) => {
                    query.extend(self.of_query(name).map(|value| (name.clone(), Value::from(&*value))));
                }
                HandshakePart::Header(name) => {
                    let value = self.headers.iter().find(|(header, _)| header == name);
                    headers.extend(value.map(|(name, value)| (name.clone(), Value::from(&**value))));
                }
                HandshakePart::Auth(None) => whole = true,
                HandshakePart::Auth(Some(name)) => {
                    let value = self.auth.as_ref().and_then(|auth| auth.get(name));
                    members.extend(value.map(|value| (name.clone(), value.clone())));
                }
            }
        }
        let auth = if whole { self.auth.clone().unwrap_or_else(|| json!({})) } else { Value::Object(members) };
        let kept = json!({ "query": query, "headers": headers, "auth": auth });
        if kept.to_string().len() > MAX_HANDSHAKE_BYTES {
            let text =
                format!("the parts of the handshake that the contract uses have more than {MAX_HANDSHAKE_BYTES} bytes");
            return Err(Refusal::new(Code::TooLarge, text));
        }
        Ok(kept)
    }

    /// The token of the first source that has one.
    pub(super) fn token(&self, sources: &[TokenSource]) -> Result<Option<Cow<'_, str>>, AuthError> {
        for source in sources {
            let token = match source {
                TokenSource::Auth(member) => self.of_auth(member)?,
                TokenSource::Header => self.authorization.as_deref().and_then(bearer).map(Cow::Borrowed),
                TokenSource::Query(name) => self.of_query(name),
                TokenSource::Cookie(name) => self.of_cookies(name),
            };
            // Clients that have no token often send an empty value.
            if let Some(token) = token.filter(|token| !token.is_empty()) {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    fn of_auth(&self, member: &str) -> Result<Option<Cow<'_, str>>, AuthError> {
        match self.auth.as_ref().and_then(|auth| auth.get(member)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cow::Borrowed(bearer(text).unwrap_or(text.trim())))),
            Some(_) => Err(AuthError::TokenMalformed),
        }
    }

    fn of_query(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut pairs = query::pairs(self.query.as_deref()?);
        pairs.find(|(key, _)| query::decode(key) == name).map(|(_, value)| query::decode(value))
    }

    fn of_cookies(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.cookies.as_deref()?.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
        values.next().map(Cow::Borrowed)
    }
}

/// The text before the first `=`.
fn name_of(pair: &str) -> &str {
    pair.split_once('=').map_or(pair, |(name, _)| name)
}

/// The token after `Bearer` (RFC 6750; upper and lower case are equal). `None` for another scheme.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

// The debug output shows no values, because every field may hold a token.
impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("auth", &self.auth.is_some())
            .field("authorization", &self.authorization.is_some())
            .field("query", &self.query.is_some())
            .field("cookies", &self.cookies.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn everything() -> Handshake {
        Handshake {
            auth: Some(json!({ "token": "a", "jwt": "Bearer b", "none": null, "odd": 5, "empty": "" })),
            authorization: Some("bearer  h".into()),
            query: Some("EIO=4&token=q%2Bx&to%6ben2=z&bad=%zz".into()),
            cookies: Some("x=1; session=\"c\"; y=2".into()),
            headers: Vec::new(),
            recoverable: false,
        }
    }

    fn token(sources: &[TokenSource]) -> Option<String> {
        everything().token(sources).unwrap().map(Cow::into_owned)
    }

    #[test]
    fn each_source_is_found() {
        let auth = |member: &str| TokenSource::Auth(member.into());
        assert_eq!(token(&[auth("token")]).as_deref(), Some("a"));
        assert_eq!(token(&[auth("jwt")]).as_deref(), Some("b"));
        assert_eq!(token(&[TokenSource::Header]).as_deref(), Some("h"));
        assert_eq!(token(&[TokenSource::Query("token".into())]).as_deref(), Some("q+x"));
        assert_eq!(token(&[TokenSource::Query("token2".into())]).as_deref(), Some("z"));
        assert_eq!(token(&[TokenSource::Query("bad".into())]).as_deref(), Some("%zz"));
        assert_eq!(token(&[TokenSource::Cookie("session".into())]).as_deref(), Some("c"));
        assert_eq!(token(&[auth("gone"), auth("none"), auth("empty")]), None);
    }

    #[test]
    fn only_what_may_hold_a_token_is_kept_of_a_request() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "Bearer h".parse().unwrap());
        headers.append(COOKIE, "other=1; name=J\u{f6}rg".as_bytes().try_into().unwrap());
        headers.append(COOKIE, "a=\u{e9}; session=c; session=d".as_bytes().try_into().unwrap());
        let query = "EIO=4&transport=polling&to%6ben=q%2Bx&t=7";
        let nothing = Handshake::of_request(&[TokenSource::Auth("token".into())], &[], &headers, query);
        assert_eq!((nothing.authorization, nothing.cookies, nothing.query), (None, None, None));
        let sources = [TokenSource::Header, TokenSource::Query("token".into()), TokenSource::Cookie("session".into())];
        let kept = Handshake::of_request(&sources, &[], &headers, query);
        assert_eq!(kept.authorization.as_deref(), Some("Bearer h"));
        assert_eq!(kept.cookies.as_deref(), Some("session=c; session=d"));
        assert_eq!(kept.query.as_deref(), Some("to%6ben=q%2Bx"));
        for source in sources {
            let token = kept.token(std::slice::from_ref(&source)).unwrap().map(Cow::into_owned);
            assert!(["h", "q+x", "c"].contains(&token.as_deref().unwrap()));
        }
    }

    #[test]
    fn first_source_that_has_a_token_decides() {
        let sources = [TokenSource::Auth("empty".into()), TokenSource::Header, TokenSource::Query("token".into())];
        assert_eq!(token(&sources).as_deref(), Some("h"));
        let odd = [TokenSource::Auth("odd".into()), TokenSource::Header];
        assert_eq!(everything().token(&odd), Err(AuthError::TokenMalformed));
    }

    #[test]
    fn another_scheme_is_no_token() {
        let handshake = Handshake { authorization: Some("Basic dTpw".into()), ..Handshake::default() };
        assert_eq!(handshake.token(&[TokenSource::Header]), Ok(None));
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:?}", everything());
        assert!(!shown.contains("Bearer") && !shown.contains("q%2B"), "{shown}");
    }
}
