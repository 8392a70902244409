//! Binds a long-polling session to its client.
//!
//! The session's id is a secret ([`crate::forward::sid`]). In addition, a request must come from the address that
//! opened the session, and carry the same credentials as the handshake in the places where the contracts look for
//! them.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, Uri};

use crate::contract::model::TokenSource;
use crate::limits::address_id;

/// A fingerprint of a request's address and credentials. All requests of one session must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientFingerprint {
    address: u64,
    header: u64,
    rest: u64,
}

/// The properties of a request that go into its [`ClientFingerprint`].
pub(super) struct Binding {
    by_address: bool,
    header: bool,
    params: Vec<String>,
    cookies: Vec<String>,
    hasher: RandomState,
}

impl Binding {
    /// Binds sessions to the credentials that `sources` name, the places where the contracts look for tokens. With
    /// `by_address`, it also binds them to the client's address.
    pub(super) fn new(by_address: bool, sources: &[TokenSource]) -> Self {
        let mut binding =
            Self { by_address, header: false, params: Vec::new(), cookies: Vec::new(), hasher: RandomState::new() };
        for source in sources {
            match source {
                TokenSource::Header => binding.header = true,
                TokenSource::Query(name) => binding.params.push(name.clone()),
                TokenSource::Cookie(name) => binding.cookies.push(name.clone()),
                // Clients send these tokens only in CONNECT, so no request carries them.
                TokenSource::Auth(_) => {}
            }
        }
        binding
    }

    /// The fingerprint of a request.
    pub(super) fn fingerprint(&self, ip: IpAddr, uri: &Uri, headers: &HeaderMap) -> ClientFingerprint {
        let params: Vec<_> = self.params.iter().map(|name| param(uri, name)).collect();
        let cookies: Vec<_> = self.cookies.iter().map(|name| cookie(headers, name)).collect();
        let header = headers.get(AUTHORIZATION).filter(|_| self.header);
        ClientFingerprint {
            address: if self.by_address { address_id(ip) } else { 0 },
            header: header.map_or(0, |value| self.hasher.hash_one(value.as_bytes())),
            rest: self.hasher.hash_one((params, cookies)),
        }
    }
}

impl ClientFingerprint {
    /// Whether a request with the fingerprint `request` may use the session with the fingerprint `self`.
    pub(in crate::engine) fn permits(self, request: Self, websocket: bool) -> bool {
        // Browsers cannot send an Authorization header with a WebSocket.
        let header = self.header == request.header || (websocket && request.header == 0);
        self.address == request.address && self.rest == request.rest && header
    }
}

fn param<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    crate::query::pairs(uri.query()?).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Returns the value of a cookie in bytes, because other cookies in the same header need not be text.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let cookies = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut values = cookies.filter_map(|cookie| cookie.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    values.next()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn fingerprint(
        binding: &Binding,
        ip: &str,
        query: &str,
        token: Option<&'static str>,
        cookie: &'static str,
    ) -> ClientFingerprint {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(token));
        }
        headers.insert(COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        let uri = format!("/socket.io/?EIO=4&transport=polling&{query}").parse().unwrap();
        binding.fingerprint(ip.parse().unwrap(), &uri, &headers)
    }

    #[test]
    fn session_is_for_its_address_and_its_credentials() {
        let sources = [
            TokenSource::Auth("token".into()),
            TokenSource::Header,
            TokenSource::Query("token".into()),
            TokenSource::Cookie("sid".into()),
        ];
        let binding = Binding::new(true, &sources);
        let (ip, cookie) = ("2001:db8::1", "x=1; sid=abc");
        let own = fingerprint(&binding, ip, "t=1&token=T", Some("Bearer a"), cookie);
        assert!(own.permits(fingerprint(&binding, ip, "t=2&token=T", Some("Bearer a"), "sid=abc; x=2"), false));
        assert!(own.permits(fingerprint(&binding, ip, "token=T", Some("Bearer a"), "name=J\u{f6}rg; sid=abc"), false));
        assert!(
            own.permits(fingerprint(&binding, "2001:db8::2", "token=T", Some("Bearer a"), cookie), false),
            "one /64"
        );
        for (other, what) in [
            (fingerprint(&binding, "2001:db8:0:1::1", "token=T", Some("Bearer a"), cookie), "address"),
            (fingerprint(&binding, ip, "token=U", Some("Bearer a"), cookie), "parameter"),
            (fingerprint(&binding, ip, "", Some("Bearer a"), cookie), "no parameter"),
            (fingerprint(&binding, ip, "token=T", Some("Bearer b"), cookie), "header"),
            (fingerprint(&binding, ip, "token=T", Some("Bearer a"), "sid=abd"), "cookie"),
            (
                fingerprint(&binding, ip, "token=T", Some("Bearer a"), "name=J\u{f6}rg; sid=abd"),
                "cookie beside an odd one",
            ),
        ] {
            assert!(!own.permits(other, false) && !own.permits(other, true), "{what}");
        }
        let without = fingerprint(&binding, ip, "token=T", None, cookie);
        assert!(!own.permits(without, false) && own.permits(without, true));
    }

    #[test]
    fn what_contracts_do_not_look_at_may_change() {
        let binding = Binding::new(false, &[TokenSource::Auth("token".into())]);
        let own = fingerprint(&binding, "192.0.2.1", "token=T", Some("Bearer a"), "sid=abc");
        assert!(own.permits(fingerprint(&binding, "192.0.2.2", "token=U", None, "sid=d"), false));
    }
}
