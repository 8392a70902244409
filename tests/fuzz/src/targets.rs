//! All fuzz targets and their shared helpers. `cargo fuzz` runs them for long, `tests/fuzz.rs` briefly in every test
//! run.

pub mod cluster_message;
pub mod contract_file;
pub mod emitter;
pub mod forwarded_request;
pub mod forwarding_headers;
pub mod frame;
pub mod handshake;
pub mod http_api;
pub mod msgpack_packet;
pub mod packet;
pub mod polling_payload;
pub mod proxy_header;
pub mod recovery_place;
pub mod room_template;
pub mod rule;
pub mod sid;
pub mod template;
pub mod token;

/// A target's name, and its function, which panics if it finds a fault.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("cluster_message", cluster_message::run),
    ("contract_file", contract_file::run),
    ("emitter", emitter::run),
    ("forwarded_request", forwarded_request::run),
    ("frame", frame::run),
    ("handshake", handshake::run),
    ("http_api", http_api::run),
    ("msgpack_packet", msgpack_packet::run),
    ("packet", packet::run),
    ("polling_payload", polling_payload::run),
    ("proxy_header", proxy_header::run),
    ("forwarding_headers", forwarding_headers::run),
    ("recovery_place", recovery_place::run),
    ("room_template", room_template::run),
    ("rule", rule::run),
    ("sid", sid::run),
    ("template", template::run),
    ("token", token::run),
];

/// The separator between the parts of an input, so that corpora can be read and written by hand.
const SEPARATOR: &[u8] = b"\n====\n";

/// The parts of an input. Missing parts are empty, and the last part contains the rest.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    let mut parts = [&input[..0]; N];
    for (at, part) in parts.iter_mut().enumerate() {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR).filter(|_| at + 1 < N);
        (*part, rest) = match end {
            Some(end) => (&rest[..end], &rest[end + SEPARATOR.len()..]),
            None => (rest, &rest[..0]),
        };
    }
    parts
}

/// The parts of an input as text. `None` if the input is not UTF-8.
pub fn texts<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let parts = parts::<N>(input).map(|part| std::str::from_utf8(part).ok());
    parts.iter().all(Option::is_some).then(|| parts.map(Option::unwrap_or_default))
}
