//! Compression of messages (RFC 7692, permessage-deflate) without state between messages. A connection keeps no
//! window, and a broadcast is compressed once for all its recipients. The compressor's tables belong to the thread,
//! not to a connection.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::violation::Violation;

/// The bytes that end every compressed message, and that are not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// The maximum length of a message that is compressed, in bytes. Compressing a longer one would hold a thread for
/// longer than a turn may last.
const LONGEST: usize = 64 * 1024;

/// The number of bytes that are inflated in one step.
const CHUNK: usize = 4 * 1024;

/// The default window size (RFC 7692, 7.1.2.1), and the only one that this node uses to compress.
const WINDOW_BITS: &str = "15";

thread_local! {
    static DEFLATE: RefCell<Option<(u32, Compress)>> = const { RefCell::new(None) };
    static INFLATE: RefCell<Option<Decompress>> = const { RefCell::new(None) };
}

/// The settings for compressing outgoing messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// Messages shorter than this number of bytes are not compressed.
    pub threshold: usize,
    /// The level, from 1 (fast) to 9 (small).
    pub level: u32,
}

impl Deflate {
    /// Compresses a message's payload. Returns `None` if its length is out of range, or it would not become shorter.
    pub fn compress(&self, payload: &[&[u8]]) -> Option<Vec<u8>> {
        let length: usize = payload.iter().map(|part| part.len()).sum();
        if !(self.threshold..=LONGEST).contains(&length) {
            return None;
        }
        DEFLATE.with_borrow_mut(|kept| {
            if kept.as_ref().is_none_or(|(level, _)| *level != self.level) {
                *kept = Some((self.level, Compress::new(Compression::new(self.level), false)));
            }
            let (_, deflate) = kept.as_mut()?;
            deflate.reset();
            // The output may not be longer than the input.
            let mut out = Vec::with_capacity(length);
            for (at, part) in payload.iter().enumerate() {
                let flush = if at + 1 == payload.len() { FlushCompress::Sync } else { FlushCompress::None };
                let before = deflate.total_in();
                deflate.compress_vec(part, &mut out, flush).ok()?;
                if deflate.total_in() - before < part.len() as u64 || out.len() == out.capacity() {
                    return None;
                }
            }
            out.ends_with(&TAIL).then(|| {
                out.truncate(out.len() - TAIL.len());
                out.shrink_to_fit();
                out
            })
        })
    }
}

/// Decompresses a message's payload.
///
/// # Errors
///
/// Returns [`Violation::TooLarge`] as soon as the result is longer than `most` bytes. Returns [`Violation::Deflate`]
/// if the payload is not valid.
pub fn inflate(payload: &[u8], most: usize) -> Result<Vec<u8>, Violation> {
    INFLATE.with_borrow_mut(|kept| {
        let inflate = kept.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let mut out = Vec::new();
        let mut chunk = [0; CHUNK];
        for part in [payload, &TAIL] {
            let mut rest = part;
            loop {
                let (read, written) = (inflate.total_in(), inflate.total_out());
                let status =
                    inflate.decompress(rest, &mut chunk, FlushDecompress::None).map_err(|_| Violation::Deflate)?;
                let read = difference(inflate.total_in(), read);
                let written = difference(inflate.total_out(), written);
                if written > most - out.len() {
                    return Err(Violation::TooLarge);
                }
                out.extend_from_slice(&chunk[..written]);
                rest = &rest[read..];
                match status {
                    // More blocks may follow a block that is marked as the last (RFC 7692, 7.2.3.4).
                    Status::StreamEnd => inflate.reset(false),
                    _ if written == CHUNK => continue,
                    _ if read == 0 && !rest.is_empty() => return Err(Violation::Deflate),
                    _ => {}
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        Ok(out)
    })
}

fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

/// Answers the extensions that a client offers, in the client's order of preference. Returns `None` if no offer is
/// accepted.
pub fn negotiate<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<String> {
    offers.into_iter().flat_map(|header| header.split(',')).find_map(accept)
}

/// Answers one offer (RFC 7692, 7.1). Declines it if it is malformed, or requires something that this node cannot do.
fn accept(offer: &str) -> Option<String> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
    let mut seen = Vec::new();
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
            None => (part, None),
        };
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) if is_window(bits) => {}
            // This node cannot use a smaller window to compress messages.
            ("server_max_window_bits", Some(WINDOW_BITS)) => answer.push_str("; server_max_window_bits=15"),
            _ => return None,
        }
    }
    Some(answer)
}

fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(value),
    }
}

fn is_window(bits: &str) -> bool {
    matches!(bits, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY: Deflate = Deflate { threshold: 0, level: 1 };
    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_are_answered_as_the_standard_has_it() {
        let answer = |offers: &[&str]| negotiate(offers.iter().copied());
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate;client_max_window_bits=\"9\"",
            "x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ] {
            assert_eq!(answer(&[offer]).as_deref(), Some(PLAIN), "{offer}");
        }
        assert_eq!(answer(&["x-other", "permessage-deflate"]).as_deref(), Some(PLAIN));
        let wide = answer(&["permessage-deflate; server_max_window_bits=15"]).unwrap();
        assert_eq!(wide, format!("{PLAIN}; server_max_window_bits=15"));
        for offer in [
            "",
            "x-webkit-deflate-frame",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; unknown",
            "permessage-deflate; client_max_window_bits=\"9",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
    }

    #[test]
    fn examples_of_the_standard_are_read() {
        let hello = |bytes: &[u8]| inflate(bytes, 5).map(|bytes| String::from_utf8(bytes).unwrap());
        // The examples of RFC 7692: one block (7.2.3.1), no compression (7.2.3.3), a last block and an empty block
        // (7.2.3.4), and two blocks (7.2.3.5).
        for bytes in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(hello(bytes).as_deref(), Ok("Hello"), "{bytes:x?}");
        }
        assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 4), Err(Violation::TooLarge));
        assert_eq!(inflate(&[0xff; 8], 1000), Err(Violation::Deflate));
    }

    #[test]
    fn a_bomb_is_refused_before_it_bursts() {
        let zeros = vec![0; LONGEST];
        let bomb = ANY.compress(&[&zeros]).unwrap();
        assert!(bomb.len() < 1000);
        assert_eq!(inflate(&bomb, LONGEST).unwrap(), zeros);
        assert_eq!(inflate(&bomb, LONGEST - 1), Err(Violation::TooLarge));
        assert_eq!(inflate(&bomb, 0), Err(Violation::TooLarge));
    }

    #[test]
    fn what_does_not_pay_is_sent_as_it_is() {
        let deflate = Deflate { threshold: 100, level: 1 };
        assert!(deflate.compress(&[&[b'a'; 99]]).is_none());
        assert!(deflate.compress(&[&[b'a'; 100]]).is_some());
        assert!(deflate.compress(&[&vec![b'a'; LONGEST + 1]]).is_none());
        let noise: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(deflate.compress(&[&noise]).is_none());
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(
            parts in proptest::collection::vec("[ab]{0,300}", 1..4),
            level in 1u32..=9,
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            if let Some(small) = (Deflate { threshold: 0, level }).compress(&slices) {
                prop_assert_eq!(inflate(&small, 2000).unwrap(), slices.concat());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(out) = inflate(&bytes, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
