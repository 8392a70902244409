//! The end of connections (section 7): every close code, the reasons, and frames that follow the close frame.

use super::case::{Case, Library, Want, ask, fragments, frame, text, told, too_late};

const PROTOCOL: Want = Want::Close(Some(1002));

/// Close codes that a client may send.
const GOOD: [u16; 17] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4500, 4999];

/// Close codes that are invalid, are reserved, or may not be sent.
const BAD: [u16; 15] = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 10_000, 65_534, 65_535];

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason].concat())
}

pub fn cases() -> Vec<Case> {
    let normal = || Want::Close(Some(1000));
    let large = "*".repeat(256 << 10);
    let start = fragments(0x1, [&b"421[\"e\","[..], b"1]"]);
    let mut cases = vec![
        Case::new(
            "7.1.1",
            "a message, then the end",
            vec![text(&ask("x")), close(1000, b"")],
            vec![told("x"), normal()],
        )
        .library(Library::Ends),
        Case::new("7.1.2", "the end twice", vec![close(1000, b""), close(1001, b"")], vec![normal()]),
        Case::new("7.1.3", "a ping after the end", vec![close(1000, b""), frame(0x89, b"x")], vec![normal()]),
        Case::new("7.1.4", "a message after the end", vec![close(1000, b""), too_late()], vec![normal()]),
        Case::new(
            "7.1.5",
            "the end within a message",
            vec![start[0].clone(), close(1000, b""), start[1].clone(), too_late()],
            vec![normal()],
        ),
        Case::new(
            "7.1.6",
            "the end behind a large message",
            vec![text(&ask(&large)), close(1000, b""), frame(0x89, b"")],
            vec![told(&large), normal()],
        )
        .library(Library::Ends),
        Case::new("7.3.1", "the end without a code", vec![frame(0x88, b"")], vec![Want::Close(None)]),
        Case::new("7.3.2", "half a code", vec![frame(0x88, &[3]), too_late()], vec![PROTOCOL]),
        Case::new("7.3.4", "a reason", vec![close(1000, "für immer".as_bytes())], vec![normal()]),
        Case::new("7.3.5", "the longest reason", vec![close(1000, &[b'*'; 123])], vec![normal()]),
        Case::new("7.3.6", "a reason that is too long", vec![close(1000, &[b'*'; 124]), too_late()], vec![PROTOCOL]),
        Case::new(
            "7.5.1",
            "a reason that is not UTF-8",
            vec![close(1000, b"\xce\xba\xed\xa0\x80")],
            vec![Want::Close(Some(1007))],
        ),
        Case::new("7.5.2", "a reason that is cut", vec![close(1000, b"\xe2\x82")], vec![Want::Close(Some(1007))]),
        Case::new(
            "7.e.1",
            "the end of Engine.IO",
            vec![text(&ask("x")), text("1"), too_late()],
            vec![told("x"), Want::Close(None)],
        ),
    ];
    for code in GOOD {
        // The code 1014 was registered after socketioxide's list of codes was written.
        let library = if code == 1014 { Library::Refuses } else { Library::Same };
        for reason in ["", "and a reason"] {
            let frames = vec![close(code, reason.as_bytes())];
            let case =
                Case::new(format!("7.7 ({code})"), "a code that may be sent", frames, vec![Want::Close(Some(code))]);
            cases.push(case.library(library));
        }
    }
    for code in BAD {
        let about = "a code that may not be sent";
        cases.push(Case::new(format!("7.9 ({code})"), about, vec![close(code, b""), too_late()], vec![PROTOCOL]));
        cases.push(Case::new(format!("7.9 ({code}, reason)"), about, vec![close(code, b"why")], vec![PROTOCOL]));
    }
    cases
}
