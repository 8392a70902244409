//! The signature of a request, in the form `t=<unix seconds>,v1=<hex>[,v1=<hex>]`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// A signer with one or two secrets. Without secrets, [`RequestSigner::sign`] returns `None`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let keys = secrets.into_iter().map(|secret| Hmac::new_from_slice(secret).expect("any length is a key"));
        Self { keys: keys.collect() }
    }

    /// The header's value for a body that is sent at `now`: HMAC-SHA256 over `"<t>.<body>"` with each secret.
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

    /// Whether the header is a valid signature of this body, and its time differs from `now` by at most `tolerance`.
    ///
    /// Receivers of requests verify the signature. The node itself does this only in tests.
    pub fn verify(&self, header: &str, body: &[u8], now: SystemTime, tolerance: Duration) -> bool {
        let Some((at, signatures)) = read_header(header) else { return false };
        if unix_seconds(now).abs_diff(at) > tolerance.as_secs() {
            return false;
        }
        self.keys
            .iter()
            .any(|key| signatures.iter().any(|signature| digest(key, at, body).verify_slice(signature).is_ok()))
    }
}

// Keeps the secrets out of logs.
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

fn read_header(header: &str) -> Option<(u64, Vec<Vec<u8>>)> {
    let mut at = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=')? {
            ("t", value) => at = value.parse().ok(),
            ("v1", value) => signatures.push(read_hex(value)?),
            // Ignored: later signature schemes may appear beside `v1`.
            _ => {}
        }
    }
    Some((at?, signatures))
}

fn read_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

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
    fn either_secret_verifies_while_keys_rotate() {
        let header = signer(&["new", "old"]).sign(b"body", at(1000)).unwrap();
        assert_eq!(header.matches("v1=").count(), 2);
        for secret in ["new", "old"] {
            assert!(signer(&[secret]).verify(&header, b"body", at(1000), FIVE_MINUTES), "{secret}");
        }
        assert!(!signer(&["other"]).verify(&header, b"body", at(1000), FIVE_MINUTES));
    }

    #[test]
    fn another_body_and_another_time_are_refused() {
        let signer = signer(&["secret"]);
        let header = signer.sign(b"body", at(1000)).unwrap();
        assert!(signer.verify(&header, b"body", at(1300), FIVE_MINUTES));
        assert!(!signer.verify(&header, b"body", at(1301), FIVE_MINUTES));
        assert!(!signer.verify(&header, b"body", at(699), FIVE_MINUTES));
        assert!(!signer.verify(&header, b"bodies", at(1000), FIVE_MINUTES));
        assert!(!signer.verify(&header.replace("t=1000", "t=1001"), b"body", at(1000), FIVE_MINUTES));
    }

    #[test]
    fn rubbish_is_refused() {
        let signer = signer(&["secret"]);
        for header in ["", "t=1", "v1=00", "t=x,v1=00", "t=1,v1=0", "t=1,v1=zz", "t=1,v1=é", "t"] {
            assert!(!signer.verify(header, b"", at(1), FIVE_MINUTES), "{header}");
        }
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
