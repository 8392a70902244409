//! Cases for frames: lengths (section 1), pings (2), reserved bits (3), opcodes (4), fragments (5), limits (9).

use super::case::{ASK_BINARY, Case, Library, Want, ask, fragments, frame, head, text, told, told_binary, too_late};

const PROTOCOL: Want = Want::Close(Some(1002));
const TOO_LARGE: Want = Want::Close(Some(1009));

/// The default of `server.max_payload`.
const MAX_PAYLOAD: usize = 1_000_000;

pub fn cases() -> Vec<Case> {
    let parts = [lengths(), pings(), reserved_bits(), opcodes(), fragmented(), out_of_place(), heads(), limits()];
    parts.into_iter().flatten().collect()
}

/// An event whose packet has exactly this length.
fn of_length(length: usize) -> String {
    "*".repeat(length - ask("").len())
}

fn lengths() -> Vec<Case> {
    let mut cases = vec![
        Case::new("1.1.1", "an empty text is no packet", vec![frame(0x81, b"")], vec![Want::Close(None)]),
        Case::new("1.2.1", "an empty attachment", vec![text(ASK_BINARY), frame(0x82, b"")], told_binary(b"").to_vec()),
    ];
    for (at, length) in [125, 126, 127, 128, 65_535, 65_536, 65_537].into_iter().enumerate() {
        let argument = of_length(length);
        cases.push(Case::new(
            format!("1.1.{}", at + 2),
            "a text, and the answer, of lengths that are written in different forms",
            vec![text(&ask(&argument)), text(&ask(&format!("{argument}____")))],
            vec![told(&argument), told(&format!("{argument}____"))],
        ));
        let attachment = vec![0xFE; length];
        cases.push(Case::new(
            format!("1.2.{}", at + 2),
            "an attachment of that length",
            vec![text(ASK_BINARY), frame(0x82, &attachment)],
            told_binary(&attachment).to_vec(),
        ));
    }
    cases
}

fn pings() -> Vec<Case> {
    let pong = |payload: &[u8]| Want::Pong(payload.to_vec());
    let ten: Vec<Vec<u8>> = (0..10).map(|n| format!("payload {n}").into_bytes()).collect();
    let mut cases = vec![
        Case::new("2.1", "a ping of nothing", vec![frame(0x89, b"")], vec![pong(b"")]),
        Case::new("2.2", "a ping of text", vec![frame(0x89, b"Hello")], vec![pong(b"Hello")]),
        Case::new(
            "2.3",
            "a ping of bytes that are no text",
            vec![frame(0x89, &[0, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0, 0xFF])],
            vec![pong(&[0, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0, 0xFF])],
        ),
        Case::new("2.4", "the longest ping", vec![frame(0x89, &[0xFE; 125])], vec![pong(&[0xFE; 125])]),
        Case::new("2.5", "a ping that is too long", vec![frame(0x89, &[0xFE; 126]), too_late()], vec![PROTOCOL]),
        Case::new("2.7", "a pong that nobody asked for", vec![frame(0x8A, b""), frame(0x89, b"x")], vec![pong(b"x")]),
        Case::new("2.8", "the same with a payload", vec![frame(0x8A, b"why"), frame(0x89, b"x")], vec![pong(b"x")]),
        Case::new(
            "2.9",
            "a pong, then a ping",
            vec![frame(0x8A, b"why"), frame(0x89, b"because"), text(&ask("still here"))],
            vec![pong(b"because"), told("still here")],
        ),
        Case::new(
            "2.10",
            "ten pings, each answered, in their order",
            ten.iter().map(|payload| frame(0x89, payload)).collect(),
            ten.iter().map(|payload| pong(payload)).collect(),
        ),
        Case::new("2.12", "a pong that is too long", vec![frame(0x8A, &[0; 126])], vec![PROTOCOL]),
    ];
    let between: Vec<Vec<u8>> = ten.iter().flat_map(|payload| [frame(0x89, payload), text(&ask("between"))]).collect();
    let answers = ten.iter().flat_map(|payload| [pong(payload), told("between")]).collect();
    cases.push(Case::new("2.13", "pings between messages", between, answers));
    cases
}

fn reserved_bits() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..=7u8 {
        for opcode in [0x1, 0x2, 0x8, 0x9, 0xA] {
            let first = 0x80 | (bits << 4) | opcode;
            cases.push(Case::new(
                format!("3.{bits} ({opcode:x})"),
                "reserved bits that nobody agreed on",
                vec![text(&ask("before")), frame(first, b"x"), too_late(), frame(0x89, b"")],
                vec![told("before"), PROTOCOL],
            ));
        }
        let [start, ..] = &fragments(0x1, [&b"42[\"e\","[..], b"1]"])[..] else { unreachable!() };
        cases.push(Case::new(
            format!("3.{bits} (0)"),
            "reserved bits in a continuation",
            vec![start.clone(), frame(0x80 | (bits << 4), b"1]"), too_late()],
            vec![PROTOCOL],
        ));
    }
    cases
}

fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        for (part, payload) in [("without a payload", &b""[..]), ("with one", b"reserved"), ("a long one", &[7; 200])] {
            cases.push(Case::new(
                format!("4 ({opcode:x})"),
                part,
                vec![text(&ask("before")), frame(0x80 | opcode, payload), too_late(), frame(0x89, b"")],
                vec![told("before"), PROTOCOL],
            ));
        }
    }
    cases
}

fn fragmented() -> Vec<Case> {
    let words = ask("fragment1fragment2");
    let cut = words.len() - 11;
    let (one, two) = words.as_bytes().split_at(cut);
    let answer = || told("fragment1fragment2");
    let pieces = fragments(0x1, [one, two]);
    let with = |between: &[Vec<u8>]| [&pieces[..1], between, &pieces[1..]].concat();
    let bytewise = |between: Option<&[u8]>| -> Vec<Vec<u8>> {
        let frames = fragments(0x1, words.as_bytes().chunks(1));
        frames.into_iter().flat_map(|piece| [Some(piece), between.map(|ping| frame(0x89, ping))]).flatten().collect()
    };
    let pong = |payload: &[u8]| Want::Pong(payload.to_vec());
    let attachment = [0, 159, 146, 150];
    vec![
        Case::new("5.1", "a ping in fragments", vec![frame(0x09, b"a"), frame(0x80, b"b"), too_late()], vec![PROTOCOL]),
        Case::new("5.2", "a pong in fragments", vec![frame(0x0A, b"a"), frame(0x80, b"b"), too_late()], vec![PROTOCOL]),
        Case::new("5.2a", "a close in fragments", vec![frame(0x08, &[3]), frame(0x80, &[0xE8])], vec![PROTOCOL]),
        Case::new("5.3", "a text in two fragments", pieces.clone(), vec![answer()]),
        Case::new("5.6", "a ping between the fragments", with(&[frame(0x89, b"p")]), vec![pong(b"p"), answer()]),
        Case::new(
            "5.6a",
            "several control frames between the fragments",
            with(&[frame(0x89, b"p"), frame(0x8A, b"q"), frame(0x89, &[1; 125])]),
            vec![pong(b"p"), pong(&[1; 125]), answer()],
        ),
        Case::new("5.8", "one byte a fragment", bytewise(None), vec![answer()]),
        Case::new(
            "5.8a",
            "one byte a fragment, and a ping after each of a few",
            {
                let mut frames = bytewise(None);
                (1..6).for_each(|n| frames.insert(5 * n, frame(0x89, b"p")));
                frames
            },
            [vec![pong(b"p"); 5], vec![answer()]].concat(),
        ),
        Case::new(
            "5.8b",
            "empty fragments first, between and last",
            fragments(0x1, [&b""[..], b"", one, b"", two, b""]),
            vec![answer()],
        ),
        Case::new(
            "5.8c",
            "an attachment in fragments, with an empty one",
            [vec![text(ASK_BINARY)], fragments(0x2, [&attachment[..1], b"", &attachment[1..]])].concat(),
            told_binary(&attachment).to_vec(),
        ),
        Case::new(
            "5.19",
            "fragments, pings and a whole message after it",
            [with(&[frame(0x89, b"1"), frame(0x89, b"2")]), vec![text(&ask("next"))]].concat(),
            vec![pong(b"1"), pong(b"2"), answer(), told("next")],
        ),
    ]
}

fn out_of_place() -> Vec<Case> {
    let whole = text(&ask("whole"));
    let start = frame(0x01, b"42[\"e\",");
    let case = |id, about, frames: Vec<Vec<u8>>, want| Case::new(id, about, frames, want);
    vec![
        case("5.9", "a last continuation of nothing", vec![frame(0x80, b"x"), too_late()], vec![PROTOCOL]),
        case("5.10", "the same after a message", vec![whole.clone(), frame(0x80, b"x")], vec![told("whole"), PROTOCOL]),
        case("5.12", "a first continuation of nothing", vec![frame(0x00, b"x"), too_late()], vec![PROTOCOL]),
        case("5.13", "the same after a message", vec![whole.clone(), frame(0x00, b"x")], vec![told("whole"), PROTOCOL]),
        case(
            "5.15",
            "a continuation after the last fragment",
            {
                let frames = fragments(0x1, [&br#"421["e","a"#[..], br#"b"]"#]);
                [frames, vec![frame(0x00, b"x"), too_late()]].concat()
            },
            vec![told("ab"), PROTOCOL],
        ),
        case(
            "5.18",
            "a new text within a message",
            vec![start.clone(), frame(0x81, b"1]"), too_late()],
            vec![PROTOCOL],
        ),
        case("5.18a", "a new first fragment within one", vec![start.clone(), frame(0x01, b"1]")], vec![PROTOCOL]),
        case("5.18b", "an attachment within one", vec![start.clone(), frame(0x82, b"1]"), too_late()], vec![PROTOCOL]),
    ]
}

/// The server must answer a mistake in the first bytes of a frame before the rest of the frame arrives.
fn heads() -> Vec<Case> {
    let mut unmasked = text(&ask("x"));
    unmasked[1] &= 0x7F;
    let early = |id, about, bytes: Vec<u8>, want| Case::new(id, about, vec![bytes], vec![want]);
    let long = |first: u8, length: u64| {
        let mut bytes = vec![first, 0xFF];
        bytes.extend(length.to_be_bytes());
        bytes
    };
    vec![
        early("h.1", "no mask", unmasked, PROTOCOL),
        early("h.2", "no mask, and nothing more", vec![0x81, 0x02], PROTOCOL),
        early("h.3", "a reserved bit, and nothing more", vec![0xC1], PROTOCOL),
        early("h.4", "a reserved opcode, and nothing more", vec![0x83], PROTOCOL),
        early("h.5", "a long ping, and nothing more", vec![0x89, 0xFE], PROTOCOL),
        early("h.6", "125 in the form of two bytes", vec![0x81, 0xFE, 0, 125], PROTOCOL),
        early("h.7", "65,535 in the form of eight bytes", long(0x81, 65_535), PROTOCOL),
        early("h.8", "a length with its highest bit", long(0x81, 1 << 63), PROTOCOL),
        early("h.9", "the longest length", [long(0x82, (1 << 63) - 1), vec![0; 4]].concat(), TOO_LARGE),
        early("h.10", "a continuation of nothing, and nothing more", vec![0x80], PROTOCOL),
    ]
    .into_iter()
    .map(|case| case.library(Library::Waits))
    .collect()
}

fn limits() -> Vec<Case> {
    let too_long = |first| [head(first, MAX_PAYLOAD + 1), vec![0x55; 4]].concat();
    let mut cases = Vec::new();
    for (at, length) in [64 << 10, 256 << 10, 512 << 10, MAX_PAYLOAD].into_iter().enumerate() {
        let argument = of_length(length);
        let packet = ask(&argument);
        cases.push(Case::new(format!("9.1.{at}"), "a large text", vec![text(&packet)], vec![told(&argument)]));
        for (part, size) in [(3, 64 << 10), (4, 1 << 10)] {
            let pieces = fragments(0x1, packet.as_bytes().chunks(size));
            let about = "a large text in fragments";
            cases.push(Case::new(format!("9.{part}.{at}"), about, pieces, vec![told(&argument)]));
        }
    }
    let attachment = vec![0x80; MAX_PAYLOAD - ASK_BINARY.len()];
    cases.push(Case::new(
        "9.2",
        "a large attachment",
        vec![text(ASK_BINARY), frame(0x82, &attachment)],
        told_binary(&attachment).to_vec(),
    ));
    let start = frame(0x01, &vec![b'x'; MAX_PAYLOAD - 1]);
    cases.extend([
        Case::new("9.5", "a text that is too large, and only its head", vec![too_long(0x81)], vec![TOO_LARGE])
            .library(Library::Patient),
        Case::new("9.6", "an attachment that is", vec![text(ASK_BINARY), too_long(0x82)], vec![TOO_LARGE])
            .library(Library::Patient),
        Case::new("9.6a", "fragments that are together", vec![start, frame(0x00, b"xy")], vec![TOO_LARGE]),
        Case::new(
            "9.7",
            "a thousand small messages",
            (0..1000).map(|n| text(&ask(&format!("{n:016}")))).collect(),
            (0..1000).map(|n| told(&format!("{n:016}"))).collect(),
        ),
        Case::new(
            "9.8",
            "a hundred attachments",
            (0..100u8).flat_map(|n| [text(ASK_BINARY), frame(0x82, &[n; 64])]).collect(),
            (0..100u8).flat_map(|n| told_binary(&[n; 64])).collect(),
        ),
    ]);
    cases
}
