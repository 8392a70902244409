//! The header that a node adds to a forwarded request: the sender, the receiver, the client, and a signature over the
//! whole request.
//!
//! The header [`STAMP`] holds eight fields between semicolons, in this order and no other:
//!
//! ```text
//! 1;FROM;TO;NUMBER;MILLISECONDS;CLIENT;DIGEST;SIGNATURE
//! ```
//!
//! Field 1 is the version. FROM and TO are node keys in hexadecimal. No sender uses a NUMBER twice. MILLISECONDS count
//! from
//! 1970. CLIENT is the client's address. DIGEST is the SHA-256 of the body. SIGNATURE is an HMAC-SHA256 over the other
//! fields, the method, the path with its query, and every forwarded header. DIGEST and SIGNATURE are base64.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use sha2::{Digest, Sha256};

use super::keys::{ClusterKeys, KeyedHmac};
use super::sid::NodeKey;
use crate::time::{millis, unix_millis};

/// The header of a forwarded request.
pub const STAMP: HeaderName = HeaderName::from_static("roomcast-forwarded");

/// The header of the answer, an HMAC of the request's signature. It proves to the sender that the answer comes from the
/// node that was asked.
pub const ANSWERED: HeaderName = HeaderName::from_static("roomcast-answered");

/// Maximum difference between the sender's clock, when it sent a request, and the receiver's clock, when it checks the
/// request.
pub const TOLERANCE: Duration = Duration::from_secs(30);

/// Headers of a client's request that are forwarded; all others are removed. They are signed in this order.
pub const CARRIED: [HeaderName; 18] = [
    header::HOST,
    header::ORIGIN,
    header::AUTHORIZATION,
    header::COOKIE,
    header::USER_AGENT,
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    header::REFERER,
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("traceparent"),
];

const VERSION: &str = "1";

/// Maximum length of a stamp, in bytes.
const LONGEST: usize = 256;

/// Maximum number of bytes by which forwarding lengthens a request's head: the stamp, and headers of the connection.
pub const MAX_STAMP: usize = 2 * LONGEST;

/// The content of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardStamp {
    /// The node that sends the request.
    pub from: NodeKey,
    /// The node that must receive the request.
    pub to: NodeKey,
    /// A number that the sender gives to no other request.
    pub number: u64,
    /// When the request was sent, in milliseconds since 1970.
    pub at_ms: u64,
    /// The client's address, as the sender found it behind its trusted proxies.
    pub client: IpAddr,
    /// The digest of the body.
    pub digest: [u8; 32],
}

/// The signature of a request. The answer proves that its sender knows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 32]);

/// Why a request is not accepted as forwarded by another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// The request has no valid stamp, more than one stamp, or a stamp for another node.
    Malformed,
    /// The signature is wrong: the nodes have different secrets, or the request was changed.
    Signature,
    /// The time in the stamp differs from this node's clock by more than [`TOLERANCE`].
    Stale,
}

impl ForwardStamp {
    /// Signs a request. The headers that are not forwarded must have been removed. `None` if there is no key.
    pub fn sign(&self, keys: &ClusterKeys, parts: &mut Parts) -> Option<Signature> {
        let said = self.to_string();
        let signature = Signature(signed(&keys.newest()?.sign, &said, parts).finalize().into_bytes().into());
        let value = format!("{said};{}", URL_SAFE_NO_PAD.encode(signature.0));
        parts.headers.insert(STAMP, HeaderValue::from_str(&value).ok()?);
        Some(signature)
    }

    /// Checks at the time `now` the stamp of a request that the node `own` has received, and returns the stamp.
    ///
    /// # Errors
    /// Returns why the stamp is not accepted.
    pub fn check(
        keys: &ClusterKeys,
        own: NodeKey,
        parts: &Parts,
        now: SystemTime,
    ) -> Result<(Self, Signature), Unproven> {
        let mut stamps = parts.headers.get_all(STAMP).iter();
        let (Some(stamp), None) = (stamps.next(), stamps.next()) else { return Err(Unproven::Malformed) };
        let text = stamp.to_str().ok().filter(|text| text.len() <= LONGEST).ok_or(Unproven::Malformed)?;
        let (said, signature) = text.rsplit_once(';').ok_or(Unproven::Malformed)?;
        let stamp = Self::read(said).filter(|stamp| stamp.to == own).ok_or(Unproven::Malformed)?;
        let signature = read_32(signature).ok_or(Unproven::Malformed)?;
        let holds = |keys: &super::keys::SecretKeys| signed(&keys.sign, said, parts).verify_slice(&signature).is_ok();
        if !keys.all().iter().any(holds) {
            return Err(Unproven::Signature);
        }
        if unix_millis(now).abs_diff(stamp.at_ms) > millis(TOLERANCE) {
            return Err(Unproven::Stale);
        }
        Ok((stamp, Signature(signature)))
    }

    /// Whether `body` is the body whose digest was signed.
    pub fn is_of(&self, body: &[u8]) -> bool {
        self.digest == digest(body)
    }

    /// Reads all fields except the signature.
    pub fn read(said: &str) -> Option<Self> {
        let mut fields = said.split(';');
        let mut next = || fields.next();
        let (VERSION, from, to) = (next()?, NodeKey::read(next()?)?, NodeKey::read(next()?)?) else { return None };
        let (number, at_ms) = (number(next()?)?, number(next()?)?);
        let client = next()?.parse().ok()?;
        let digest = read_32(next()?)?;
        let stamp = Self { from, to, number, at_ms, client, digest };
        // Each stamp can be written in only one way.
        (next().is_none() && stamp.to_string() == said).then_some(stamp)
    }
}

impl std::fmt::Display for ForwardStamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, number, at_ms, client, digest } = self;
        write!(f, "{VERSION};{from};{to};{number};{at_ms};{client};{}", URL_SAFE_NO_PAD.encode(digest))
    }
}

impl Signature {
    /// Computes the value of the header [`ANSWERED`]. Only a node with the secret can make it.
    pub fn answer(self, keys: &ClusterKeys) -> Option<HeaderValue> {
        let answer = keys.newest()?.answer.clone().chain_update(self.0).finalize().into_bytes();
        HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(answer)).ok()
    }

    /// Whether the answer comes from a node that has one of the secrets and has received this request.
    pub fn is_answered(self, keys: &ClusterKeys, headers: &HeaderMap) -> bool {
        let answer = headers.get(ANSWERED).and_then(|value| read_32(value.to_str().ok()?));
        answer.is_some_and(|answer| {
            keys.all().iter().any(|keys| keys.answer.clone().chain_update(self.0).verify_slice(&answer).is_ok())
        })
    }
}

// The debug output shows no signature, because an answer can be forged with it.
impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Returns the digest of a body.
pub fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// Computes the HMAC of all signed parts of a request. Each part is preceded by its length, so that two different
/// requests are never signed alike.
fn signed(key: &KeyedHmac, said: &str, parts: &Parts) -> KeyedHmac {
    let mut mac = key.clone();
    let mut add = |part: &[u8]| {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    };
    add(said.as_bytes());
    add(parts.method.as_str().as_bytes());
    add(parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes());
    for name in &CARRIED {
        for value in parts.headers.get_all(name) {
            add(name.as_str().as_bytes());
            add(value.as_bytes());
        }
    }
    mac
}

fn read_32(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 33];
    let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes[..32].try_into().ok().filter(|_| read == 32)
}

/// Reads digits only. A leading `+` is refused, because a number must have only one written form.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::{ClusterSettings, Secret};
    use crate::formats::{FORWARDED, frozen};

    fn keys(secrets: &[&str]) -> ClusterKeys {
        let secret = |at: usize| secrets.get(at).map(|secret| Secret::new(*secret));
        ClusterKeys::new(&ClusterSettings {
            secret: secret(0),
            previous_secret: secret(1),
            ..ClusterSettings::default()
        })
    }

    fn stamp(body: &[u8]) -> ForwardStamp {
        let (from, to) = (NodeKey::random(), NodeKey::random());
        ForwardStamp {
            from,
            to,
            number: 7,
            at_ms: 1_000_000,
            client: "192.0.2.1".parse().unwrap(),
            digest: digest(body),
        }
    }

    fn request() -> Parts {
        let request = Request::post("http://10.0.0.2:3002/socket.io/?EIO=4&sid=x")
            .header("Cookie", "a=1")
            .header("Cookie", "b=2");
        request.header("Host", "rt.example.com").body(()).unwrap().into_parts().0
    }

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn what_was_signed_is_taken_within_its_time_by_the_node_that_it_is_for() {
        let (keys, stamp, mut parts) = (keys(&["secret"]), stamp(b"40"), request());
        let signature = stamp.sign(&keys, &mut parts).unwrap();
        // The request arrives without the address in its URI.
        parts.uri = "/socket.io/?EIO=4&sid=x".parse().unwrap();
        let check = |ms| ForwardStamp::check(&keys, stamp.to, &parts, at(ms)).map(|(stamp, _)| stamp);
        assert_eq!(check(1_000_000), Ok(stamp));
        assert!(stamp.is_of(b"40") && !stamp.is_of(b"41"));
        assert_eq!((check(1_030_000), check(970_000)), (Ok(stamp), Ok(stamp)));
        assert_eq!((check(1_030_001), check(969_999)), (Err(Unproven::Stale), Err(Unproven::Stale)));
        assert_eq!(ForwardStamp::check(&keys, stamp.from, &parts, at(1_000_000)).unwrap_err(), Unproven::Malformed);
        assert!(!format!("{signature:?}").contains(|c: char| c.is_ascii_digit()));
    }

    #[test]
    fn header_is_the_frozen_one() {
        let (from, to) = (NodeKey::read("0011223344556677").unwrap(), NodeKey::read("8899aabbccddeeff").unwrap());
        let (keys, stamp, mut parts) = (keys(&["secret"]), ForwardStamp { from, to, ..stamp(b"40") }, request());
        stamp.sign(&keys, &mut parts).unwrap();
        let frozen = frozen::check(&FORWARDED, "header", parts.headers[&STAMP].as_bytes());
        parts.headers.insert(STAMP, HeaderValue::from_bytes(&frozen).unwrap());
        assert_eq!(ForwardStamp::check(&keys, stamp.to, &parts, at(1_000_000)).unwrap().0, stamp);
        assert_eq!(VERSION, FORWARDED.version.to_string());
    }

    #[test]
    fn whatever_is_changed_breaks_the_signature() {
        let (keys, stamp, mut parts) = (keys(&["secret"]), stamp(b""), request());
        stamp.sign(&keys, &mut parts).unwrap();
        let refused = |change: &dyn Fn(&mut Parts)| {
            let mut parts = parts.clone();
            change(&mut parts);
            ForwardStamp::check(&keys, stamp.to, &parts, at(1_000_000)).unwrap_err()
        };
        let value = parts.headers[&STAMP].to_str().unwrap().to_owned();
        let said = |from: &str, to: &str| HeaderValue::from_str(&value.replacen(from, to, 1)).unwrap();
        for (what, change) in [
            ("method", &(|parts: &mut Parts| parts.method = http::Method::GET) as &dyn Fn(&mut Parts)),
            ("target", &|parts| parts.uri = "/socket.io/?EIO=4&sid=y".parse().unwrap()),
            ("a header less", &|parts| drop(parts.headers.remove("host"))),
            ("a header more", &|parts| drop(parts.headers.insert("origin", HeaderValue::from_static("null")))),
            ("the order of values", &|parts| {
                parts.headers.insert("cookie", HeaderValue::from_static("b=2"));
                parts.headers.append("cookie", HeaderValue::from_static("a=1"));
            }),
            ("the client", &|parts| drop(parts.headers.insert(STAMP, said("192.0.2.1", "192.0.2.2")))),
            ("the time", &|parts| drop(parts.headers.insert(STAMP, said(";1000000;", ";1000001;")))),
            ("the number", &|parts| drop(parts.headers.insert(STAMP, said(";7;", ";8;")))),
        ] {
            assert_eq!(refused(change), Unproven::Signature, "{what}");
        }
        for (what, change) in [
            ("none", &(|parts: &mut Parts| drop(parts.headers.remove(&STAMP))) as &dyn Fn(&mut Parts)),
            ("two", &|parts| assert!(parts.headers.append(STAMP, said("", "")))),
            ("written otherwise", &|parts| drop(parts.headers.insert(STAMP, said(";7;", ";07;")))),
            ("another version", &|parts| drop(parts.headers.insert(STAMP, said("1;", "2;")))),
        ] {
            assert_eq!(refused(change), Unproven::Malformed, "{what}");
        }
    }

    #[test]
    fn either_secret_is_taken_while_they_are_replaced() {
        let (mut parts, stamp) = (request(), stamp(b""));
        stamp.sign(&keys(&["old"]), &mut parts).unwrap();
        let check = |secrets: &[&str]| ForwardStamp::check(&keys(secrets), stamp.to, &parts, at(1_000_000)).map(|_| ());
        assert_eq!((check(&["old"]), check(&["new", "old"])), (Ok(()), Ok(())));
        assert_eq!((check(&["new"]), check(&[])), (Err(Unproven::Signature), Err(Unproven::Signature)));
    }

    #[test]
    fn an_answer_proves_that_its_node_has_the_secret_and_the_request() {
        let (mut one, mut two) = (request(), request());
        let own = keys(&["secret"]);
        let signature = stamp(b"1").sign(&own, &mut one).unwrap();
        let other = stamp(b"2").sign(&own, &mut two).unwrap();
        let answer = |value: Option<HeaderValue>| HeaderMap::from_iter(value.map(|value| (ANSWERED, value)));
        assert!(signature.is_answered(&own, &answer(signature.answer(&own))));
        for (what, value) in [
            ("nothing", None),
            ("another request's", other.answer(&own)),
            ("another secret's", signature.answer(&keys(&["other"]))),
            ("rubbish", Some(HeaderValue::from_static("x"))),
        ] {
            assert!(!signature.is_answered(&own, &answer(value)), "{what}");
        }
    }
}
