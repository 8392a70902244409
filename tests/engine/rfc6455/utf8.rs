//! Text must be UTF-8 (section 6): complete, cut anywhere between fragments, and refused as soon as it is invalid.

use super::case::{Case, Want, fragments, frame, too_late};

const NOT_UTF8: Want = Want::Close(Some(1007));

const BEFORE: &[u8] = br#"421["e",""#;
const AFTER: &[u8] = br#""]"#;

/// Valid texts: a description of each, and its bytes.
const GOOD: [(&str, &[u8]); 23] = [
    ("Greek words", "κόσμε".as_bytes()),
    ("several scripts", "Hello-µ@ßöäüàá-UTF-8!!".as_bytes()),
    ("the first of two bytes", b"\xc2\x80"),
    ("the first of three", b"\xe0\xa0\x80"),
    ("the first of four", b"\xf0\x90\x80\x80"),
    ("the last of one", b"\x7f"),
    ("the last of two", b"\xdf\xbf"),
    ("the last of three", b"\xef\xbf\xbf"),
    ("the last of all", b"\xf4\x8f\xbf\xbf"),
    ("before the surrogates", b"\xed\x9f\xbf"),
    ("after the surrogates", b"\xee\x80\x80"),
    ("the replacement character", b"\xef\xbf\xbd"),
    ("a noncharacter", b"\xef\xbf\xbe"),
    ("noncharacters of plane 0", b"\xef\xb7\x90\xef\xb7\xaf"),
    ("noncharacters of plane 1", b"\xf0\x9f\xbf\xbe\xf0\x9f\xbf\xbf"),
    ("noncharacters of plane 8", b"\xf2\x8f\xbf\xbe\xf2\x8f\xbf\xbf"),
    ("noncharacters of plane 15", b"\xf3\xbf\xbf\xbe\xf3\xbf\xbf\xbf"),
    ("noncharacters of plane 16", b"\xf4\x8f\xbf\xbe\xf4\x8f\xbf\xbf"),
    ("an emoji", b"\xf0\x9f\x98\x80"),
    ("emojis that are one", "👩‍👩‍👧".as_bytes()),
    ("a byte order mark", b"\xef\xbb\xbf"),
    ("every length", "aµ€😀aµ€😀".as_bytes()),
    ("a combining mark", "e\u{301}".as_bytes()),
];

/// Bytes that are not valid UTF-8: a description of each, and the bytes.
const BAD: [(&str, &[u8]); 48] = [
    ("five bytes", b"\xf8\x88\x80\x80\x80"),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80"),
    ("the last of four bytes", b"\xf7\xbf\xbf\xbf"),
    ("the last of five", b"\xfb\xbf\xbf\xbf\xbf"),
    ("the last of six", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
    ("after the last of all", b"\xf4\x90\x80\x80"),
    ("the first continuation alone", b"\x80"),
    ("the last continuation alone", b"\xbf"),
    ("two continuations", b"\x80\xbf"),
    ("five continuations", b"\x80\xbf\x80\xbf\x80"),
    ("two bytes' start alone", b"\xc2 "),
    ("two bytes' last start alone", b"\xdf "),
    ("three bytes' start alone", b"\xe0 "),
    ("three bytes' last start alone", b"\xef "),
    ("four bytes' start alone", b"\xf0 "),
    ("four bytes' last start alone", b"\xf4 "),
    ("a start after a start", b"\xc2\xc2\x80"),
    ("two of three bytes", b"\xe0\xa0 "),
    ("three of four bytes", b"\xf0\x90\x80 "),
    ("two of three bytes, the last", b"\xef\xbf "),
    ("three of four bytes, the last", b"\xf4\x8f\xbf "),
    ("a short one before a long one", b"\xe2\x82\xf0\x9f\x98\x80"),
    ("FE", b"\xfe"),
    ("FF", b"\xff"),
    ("FE FE FF FF", b"\xfe\xfe\xff\xff"),
    ("a slash in two bytes", b"\xc0\xaf"),
    ("a slash in three", b"\xe0\x80\xaf"),
    ("a slash in four", b"\xf0\x80\x80\xaf"),
    ("a slash in five", b"\xf8\x80\x80\x80\xaf"),
    ("a slash in six", b"\xfc\x80\x80\x80\x80\xaf"),
    ("7F in two bytes", b"\xc1\xbf"),
    ("7FF in three", b"\xe0\x9f\xbf"),
    ("FFFF in four", b"\xf0\x8f\xbf\xbf"),
    ("zero in two bytes", b"\xc0\x80"),
    ("zero in three", b"\xe0\x80\x80"),
    ("zero in four", b"\xf0\x80\x80\x80"),
    ("the first high surrogate", b"\xed\xa0\x80"),
    ("a high surrogate", b"\xed\xad\xbf"),
    ("a private high surrogate", b"\xed\xae\x80"),
    ("the last high surrogate", b"\xed\xaf\xbf"),
    ("the first low surrogate", b"\xed\xb0\x80"),
    ("a low surrogate", b"\xed\xbe\x80"),
    ("the last low surrogate", b"\xed\xbf\xbf"),
    ("a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
    ("the last pair of surrogates", b"\xed\xaf\xbf\xed\xbf\xbf"),
    ("Greek words, a surrogate, words", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited"),
    ("Latin-1", b"caf\xe9 "),
    ("F5", b"\xf5\x80\x80\x80"),
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, &(about, bytes)) in GOOD.iter().enumerate() {
        let whole = [BEFORE, bytes, AFTER].concat();
        let answer = || vec![Want::Text(format!(r#"431["{}"]"#, std::str::from_utf8(bytes).unwrap()))];
        cases.push(Case::new(format!("6.good.{at}a"), about, vec![frame(0x81, &whole)], answer()));
        cases.push(Case::new(format!("6.good.{at}b"), about, fragments(0x1, whole.chunks(1)), answer()));
        // Cuts the text once, at every position.
        for cut in BEFORE.len()..=whole.len() - AFTER.len() {
            let (head, tail) = whole.split_at(cut);
            cases.push(Case::new(format!("6.good.{at}c{cut}"), about, fragments(0x1, [head, tail]), answer()));
        }
    }
    for (at, &(about, bytes)) in BAD.iter().enumerate() {
        let whole = [BEFORE, bytes, AFTER].concat();
        let mut frames = vec![frame(0x81, &whole), too_late()];
        cases.push(Case::new(format!("6.bad.{at}a"), about, frames.clone(), vec![NOT_UTF8]));
        frames = fragments(0x1, whole.chunks(1));
        cases.push(Case::new(format!("6.bad.{at}b"), about, frames, vec![NOT_UTF8]));
        // The message has no last fragment, because the server must find the mistake before the message ends.
        let begun = [BEFORE, bytes].concat();
        frames = begun.chunks(1).enumerate().map(|(at, byte)| frame(u8::from(at == 0), byte)).collect();
        cases.push(Case::new(format!("6.bad.{at}c"), about, frames, vec![NOT_UTF8]));
    }
    cases.push(Case::new(
        "6.end",
        "a message that ends within a character",
        fragments(0x1, [&br#"421["e","x"#[..], b"\xe2\x82"]),
        vec![NOT_UTF8],
    ));
    // A binary message need not be UTF-8.
    let text = super::case::text(super::case::ASK_BINARY);
    for &(about, bytes) in &BAD {
        let answer = super::case::told_binary(bytes).to_vec();
        cases.push(Case::new("6.binary", about, vec![text.clone(), frame(0x82, bytes)], answer));
    }
    cases
}
