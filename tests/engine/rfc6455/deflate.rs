//! Compression (sections 12 and 13): RFC 7692, each message compressed separately.

use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::case::{ASK_BINARY, Case, Want, ask, fragments, frame, head, read, text, told, told_binary, too_late};

const PROTOCOL: Want = Want::Close(Some(1002));
const UNREADABLE: Want = Want::Close(Some(1007));
const TOO_LARGE: Want = Want::Close(Some(1009));
const MAX_PAYLOAD: usize = 1_000_000;

/// The bit that marks a message as compressed.
const RSV1: u8 = 0x40;

/// Opens a WebSocket that offers compression. Returns it, and whether compression was agreed on.
pub async fn upgrade(address: &str) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    (stream, answer.contains("sec-websocket-extensions: permessage-deflate; server_no_context_takeover"))
}

/// A client that has agreed on compression, is connected to `/` and has been greeted.
pub async fn client(address: &str) -> TcpStream {
    let (mut stream, agreed) = upgrade(address).await;
    assert!(agreed);
    stream.write_all(&text("40")).await.unwrap();
    let mut bytes = Vec::new();
    // Reads the open packet, the answer to CONNECT, and the greeting.
    for start in ["0{", "40{", "42[\"hello\""] {
        let (want, used) = loop {
            match read(&bytes) {
                Some(read) => break read,
                None => assert!(stream.read_buf(&mut bytes).await.unwrap() > 0),
            }
        };
        assert!(matches!(&want, Want::Text(text) if text.starts_with(start)), "{want:?}");
        bytes.drain(..used);
    }
    assert!(bytes.is_empty());
    stream
}

fn deflate(payload: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1024);
    Compress::new(Compression::new(level), false).compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]));
    out.truncate(out.len() - 4);
    out
}

/// A DEFLATE block that contains the payload without compression.
fn stored(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut out = vec![0];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(payload);
    out.push(0);
    out
}

/// A compressed text message in one frame.
fn packed(payload: &str) -> Vec<u8> {
    frame(0x81 | RSV1, &deflate(payload.as_bytes(), 6))
}

/// Fragments of a compressed message. Only the first fragment has the compression bit.
fn pieces(opcode: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let small = deflate(payload, 6);
    let mut parts: Vec<&[u8]> = small.chunks(size).collect();
    if parts.len() == 1 {
        parts.push(&[]);
    }
    let mut frames = fragments(opcode, parts.iter().copied());
    frames[0] = frame(opcode | RSV1, parts[0]);
    frames
}

pub fn cases() -> Vec<Case> {
    [sizes(), forms(), broken()].into_iter().flatten().collect()
}

/// A text of letters: long runs of the same letter, or an irregular sequence if `odd` is true.
fn words(length: usize, odd: bool) -> String {
    let step = if odd { 40_503u32 } else { 1 };
    (0u32..).map(|n| char::from(b'a' + u8::try_from((n.wrapping_mul(step) >> 5) % 26).unwrap())).take(length).collect()
}

fn sizes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, length) in [0, 16, 64, 256, 1024, 4096, 8192, 65_536, 131_072, 900_000].into_iter().enumerate() {
        for odd in [false, true] {
            let argument = words(length, odd);
            let packet = ask(&argument);
            let about = "text of a size";
            let id = |part| format!("12.{part}.{at} ({odd})");
            cases.push(Case::new(
                id(1),
                about,
                vec![packed(&packet), packed(&packet)],
                vec![told(&argument), told(&argument)],
            ));
            cases.push(Case::new(id(2), "in fragments", pieces(0x01, packet.as_bytes(), 200), vec![told(&argument)]));
            let answers = told_binary(argument.as_bytes()).to_vec();
            let attachment = frame(0x82 | RSV1, &deflate(argument.as_bytes(), 9));
            cases.push(Case::new(id(3), "an attachment", vec![packed(ASK_BINARY), attachment], answers.clone()));
            let parts = [vec![text(ASK_BINARY)], pieces(0x02, argument.as_bytes(), 997)].concat();
            cases.push(Case::new(id(4), "an attachment in fragments", parts, answers));
        }
    }
    cases
}

/// Cases for all examples of RFC 7692, 7.2.3.
fn forms() -> Vec<Case> {
    let packet = ask("form");
    let (one, two) = packet.as_bytes().split_at(9);
    let case =
        |id: &str, about, payload: &[u8]| Case::new(id, about, vec![frame(0x81 | RSV1, payload)], vec![told("form")]);
    let mut blocks = deflate(one, 6);
    blocks.extend([0, 0, 0xFF, 0xFF]);
    blocks.extend(deflate(two, 6));
    let mut last = Vec::with_capacity(200);
    Compress::new(Compression::new(6), false)
        .compress_vec(packet.as_bytes(), &mut last, FlushCompress::Finish)
        .unwrap();
    last.push(0);
    let mut cases = vec![
        case("12.f.1", "two blocks", &blocks),
        case("12.f.2", "a block that is not compressed", &stored(packet.as_bytes())),
        case("12.f.3", "a block that says that it is the last", &last),
        Case::new("12.f.4", "not compressed, though it might be", vec![text(&packet)], vec![told("form")]),
        Case::new("12.f.5", "nothing, compressed, is no packet", vec![frame(0xC1, &[0])], vec![Want::Close(None)]),
        Case::new(
            "12.f.6",
            "pings between the fragments, which are not compressed",
            {
                let mut frames = pieces(0x01, packet.as_bytes(), 8);
                frames.insert(1, frame(0x89, b"p"));
                frames
            },
            vec![Want::Pong(b"p".to_vec()), told("form")],
        ),
        Case::new(
            "12.f.7",
            "characters that are cut by fragments",
            pieces(0x01, ask("a\u{b5}\u{20ac}\u{1f600}").as_bytes(), 1),
            vec![told("a\u{b5}\u{20ac}\u{1f600}")],
        ),
    ];
    for level in 0..=9 {
        cases.push(case(&format!("12.f.level {level}"), "a level", &deflate(packet.as_bytes(), level)));
    }
    cases
}

fn broken() -> Vec<Case> {
    let packet = ask("x");
    let frames = pieces(0x01, packet.as_bytes(), 8);
    let again = frame(0x80 | RSV1, b"x");
    let zeros = deflate(&vec![b' '; MAX_PAYLOAD + 1], 9);
    let case = |id: String, about, frames: Vec<Vec<u8>>, want| Case::new(id, about, frames, vec![want]);
    let mut cases = vec![
        case(
            "12.b.1".into(),
            "a continuation that says it is compressed",
            vec![frames[0].clone(), again, too_late()],
            PROTOCOL,
        ),
        case("12.b.2".into(), "no deflate", vec![frame(0xC1, &[0xFF; 8]), too_late()], UNREADABLE),
        case(
            "12.b.3".into(),
            "a stored block of a wrong length",
            vec![frame(0xC1, &[0, 5, 0, 0, 0, 1, 2]), too_late()],
            UNREADABLE,
        ),
        case(
            "12.b.4".into(),
            "text that is no text",
            vec![frame(0xC1, &deflate(b"42[\"\xff\"]", 6)), too_late()],
            UNREADABLE,
        ),
        case("12.b.5".into(), "more than a message may be", vec![frame(0xC1, &zeros), too_late()], TOO_LARGE),
        case(
            "12.b.6".into(),
            "the same in fragments",
            [pieces(0x01, &vec![b' '; MAX_PAYLOAD + 1], 100), vec![too_late()]].concat(),
            TOO_LARGE,
        ),
        case("12.b.7".into(), "a head of more", vec![[head(0xC1, MAX_PAYLOAD + 1), vec![0; 4]].concat()], TOO_LARGE),
    ];
    for first in [0xC8, 0xC9, 0xCA] {
        cases.push(case(
            format!("12.b.8 ({first:x})"),
            "a compressed control frame",
            vec![frame(first, b""), too_late()],
            PROTOCOL,
        ));
    }
    for bits in [0x10, 0x20, 0x30, 0x50, 0x60, 0x70] {
        let frames = vec![frame(0x81 | bits, &deflate(packet.as_bytes(), 6)), too_late()];
        cases.push(case(format!("12.b.9 ({bits:x})"), "other reserved bits", frames, PROTOCOL));
    }
    cases
}
