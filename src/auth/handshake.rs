//! Where a handshake may hold a token.

use std::borrow::Cow;

use serde_json::Value;

use super::AuthError;
use crate::contract::model::TokenSource;

/// What a client sent as it connected, as far as tokens may be in it.
#[derive(Clone, Default)]
pub struct Handshake {
    /// The payload of the Socket.IO CONNECT packet (protocol v5, "Connection to a namespace").
    pub auth: Option<Value>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The query string of the request, without its question mark, as it came.
    pub query: Option<String>,
    /// The `Cookie` header, as it came.
    pub cookies: Option<String>,
    /// Whether the client could be given its earlier session.
    pub recoverable: bool,
}

impl Handshake {
    /// The token of the first source that has one.
    pub(super) fn token(&self, sources: &[TokenSource]) -> Result<Option<Cow<'_, str>>, AuthError> {
        for source in sources {
            let token = match source {
                TokenSource::Auth(member) => self.of_auth(member)?,
                TokenSource::Header => self.authorization.as_deref().and_then(bearer).map(Cow::Borrowed),
                TokenSource::Query(name) => self.of_query(name),
                TokenSource::Cookie(name) => self.of_cookies(name),
            };
            // An empty value is what clients send that have no token.
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
        let pairs = self.query.as_deref()?.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| decode(key) == name).map(|(_, value)| decode(value));
        values.next()
    }

    fn of_cookies(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.cookies.as_deref()?.split(';').filter_map(|pair| pair.trim().split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'));
        values.next().map(Cow::Borrowed)
    }
}

/// What follows `Bearer` (RFC 6750, in any case). Another scheme is no token.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Undoes percent-encoding; what is not valid stays as it came.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

// Every field may hold a token.
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
