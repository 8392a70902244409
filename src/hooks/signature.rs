//! The signature of a request, in the form `t=<unix seconds>,v1=<hex>[,v1=<hex>]`.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "roomcast-signature";

/// The header that carries the request's id, which is also the id of the CloudEvent.
pub const ID_HEADER: &str = "roomcast-id";

/// Signs requests with the secret and, while the secret is being replaced, also with the previous one.
pub struct RequestSigner {
    keys: Vec<Hmac<Sha256>>,
}

impl RequestSigner {
    /// Creates a signer with one or two secrets. Without secrets, [`RequestSigner::sign`] returns `None`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let keys = secrets.into_iter().map(|secret| Hmac::new_from_slice(secret).expect("any length is a key"));
        Self { keys: keys.collect() }
    }

    /// Returns the header's value for a body that is sent at `now`: HMAC-SHA256 over `"<t>.<body>"` with each secret.
    pub fn sign(&self, body: &[u8], now: SystemTime) -> Option<String> {
        if self.keys.is_empty() {
            return None;
        }
        let at = unix_seconds(now);
        let mut header = format!("t={at}");
        for key in &self.keys {
            header.push_str(",v1=");
            for byte in digest(key, at, body).finalize().into_bytes() {
                let _ = write!(header, "{byte:02x}");
            }
        }
        Some(header)
    }
}

// The debug output does not show the secrets, which must stay out of logs.
impl std::fmt::Debug for RequestSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("secrets", &self.keys.len()).finish_non_exhaustive()
    }
}

fn digest(key: &Hmac<Sha256>, at: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(at.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn signer(secrets: &[&'static str]) -> RequestSigner {
        RequestSigner::new(secrets.iter().map(|secret| secret.as_bytes()))
    }

    #[test]
    fn the_signature_is_the_documented_one() {
        // The expected value comes from: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        let made = signer(&["secret"]).sign(br#"{"a":1}"#, at(1_700_000_000)).unwrap();
        assert_eq!(made, expected);
    }

    #[test]
    fn each_secret_signs_while_keys_rotate() {
        let sign = |secrets: &[&'static str]| signer(secrets).sign(b"body", at(1000)).unwrap();
        let (new, old) = (sign(&["new"]), sign(&["old"]));
        let old = old.strip_prefix("t=1000").unwrap();
        assert_eq!(sign(&["new", "old"]), format!("{new}{old}"));
        assert!(!new.ends_with(old));
    }

    #[test]
    fn every_body_and_every_time_has_a_signature_of_its_own() {
        let sign = |body: &[u8], seconds| {
            let header = signer(&["secret"]).sign(body, at(seconds)).unwrap();
            header.split_once(",v1=").unwrap().1.to_owned()
        };
        assert_ne!(sign(b"body", 1000), sign(b"bodies", 1000));
        assert_ne!(sign(b"body", 1000), sign(b"body", 1001));
        assert_eq!(sign(b"body", 1000), sign(b"body", 1000));
    }

    #[test]
    fn without_a_secret_nothing_is_signed() {
        assert_eq!(signer(&[]).sign(b"body", at(1)), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", signer(&["hunter2"])), "Signer { secrets: 1, .. }");
    }
}
