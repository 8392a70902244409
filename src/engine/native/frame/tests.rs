use proptest::prelude::*;

use super::*;

/// Builds a client's frame.
fn client(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_head(&mut out, 0, payload.len());
    out[0] = first;
    out[1] |= 0x80;
    out.put_slice(&mask);
    let at = out.len();
    out.put_slice(payload);
    unmask(&mut out[at..], mask);
    out.to_vec()
}

const MASK: [u8; 4] = [0x12, 0, 0xFF, 0x7E];

/// Reads all frames, and returns their messages or the first violation.
fn read_all(frames: &[Vec<u8>], max_payload: usize) -> Result<Vec<String>, Violation> {
    let mut reader = FrameReader::new(max_payload);
    let mut bytes = frames.concat();
    let mut rest = &mut bytes[..];
    let mut brought = Vec::new();
    loop {
        let (used, step) = reader.step(rest)?;
        match step {
            FrameProgress::More(_) => return Ok(brought),
            FrameProgress::Fragment => {}
            step => brought.push(format!("{step:?}")),
        }
        rest = &mut rest[used..];
    }
}

#[test]
fn messages_come_whole_and_in_fragments_with_control_frames_between() {
    let frames = [
        client(0x81, b"hello", MASK),
        client(0x01, "h\u{e9}".as_bytes().split_at(2).0, MASK),
        client(0x89, b"p", MASK),
        client(0x00, "h\u{e9}".as_bytes().split_at(2).1, MASK),
        client(0x80, b"", MASK),
        client(0x82, &[0, 255], MASK),
        client(0x8A, b"", MASK),
        client(0x88, &[0x03, 0xE8, b'x'], MASK),
    ];
    let wanted =
        ["Text(\"hello\")", "Ping([112])", "Text(\"h\u{e9}\")", "Binary([0, 255])", "Pong", "Close(Some(1000))"];
    assert_eq!(read_all(&frames, 100).unwrap(), wanted);
}

#[test]
fn what_the_standard_forbids_ends_the_connection() {
    let mut unmasked = client(0x81, b"x", MASK);
    unmasked[1] &= 0x7F;
    let long_way = vec![0x81, 0xFE, 0, 125, 0, 0, 0, 0];
    let longer_way = vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0];
    let high_bit = vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0];
    let close = |code: u16| client(0x88, &code.to_be_bytes(), MASK);
    for (frames, violation) in [
        (vec![client(0xC1, b"", MASK)], Violation::ReservedBit),
        (vec![client(0xA1, b"", MASK)], Violation::ReservedBit),
        (vec![client(0x99, b"", MASK)], Violation::ReservedBit),
        (vec![client(0x83, b"", MASK)], Violation::Opcode),
        (vec![client(0x87, b"", MASK)], Violation::Opcode),
        (vec![client(0x8B, b"", MASK)], Violation::Opcode),
        (vec![client(0x8F, b"", MASK)], Violation::Opcode),
        (vec![unmasked], Violation::Unmasked),
        (vec![client(0x09, b"", MASK)], Violation::Control),
        (vec![client(0x08, b"", MASK)], Violation::Control),
        (vec![client(0x89, &[0; 126], MASK)], Violation::Control),
        (vec![client(0x80, b"", MASK)], Violation::Fragments),
        (vec![client(0x00, b"", MASK)], Violation::Fragments),
        (vec![client(0x01, b"", MASK), client(0x81, b"", MASK)], Violation::Fragments),
        (vec![client(0x02, b"", MASK), client(0x01, b"", MASK)], Violation::Fragments),
        (vec![long_way], Violation::Length),
        (vec![longer_way], Violation::Length),
        (vec![high_bit], Violation::Length),
        (vec![client(0x88, &[3], MASK)], Violation::CloseCode),
        (vec![close(0)], Violation::CloseCode),
        (vec![close(999)], Violation::CloseCode),
        (vec![close(1004)], Violation::CloseCode),
        (vec![close(1005)], Violation::CloseCode),
        (vec![close(1006)], Violation::CloseCode),
        (vec![close(1015)], Violation::CloseCode),
        (vec![close(2999)], Violation::CloseCode),
        (vec![close(5000)], Violation::CloseCode),
        (vec![client(0x88, &[3, 0xE8, 0xFF], MASK)], Violation::Utf8),
        (vec![client(0x81, &[0xCE, 0xBA, 0xE1, 0xBD], MASK)], Violation::Utf8),
        (vec![client(0x81, &[0xED, 0xA0, 0x80], MASK)], Violation::Utf8),
        (vec![client(0x01, b"x", MASK), client(0x80, &[0xFF], MASK)], Violation::Utf8),
        (vec![client(0x01, &[0xC3], MASK), client(0x00, &[0x28], MASK)], Violation::Utf8),
        (vec![client(0x82, &[0; 101], MASK)], Violation::TooLarge),
        (vec![client(0x02, &[0; 60], MASK), client(0x80, &[0; 41], MASK)], Violation::TooLarge),
    ] {
        assert_eq!(read_all(&frames, 100), Err(violation), "{frames:x?}");
    }
    for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert!(read_all(&[close(code)], 100).is_ok(), "{code}");
    }
}

#[test]
fn a_violation_is_seen_before_the_payload_comes() {
    let mut reader = FrameReader::new(100);
    assert_eq!(reader.step(&mut [0xC1]), Err(Violation::ReservedBit));
    assert_eq!(reader.step(&mut [0x81, 0x05]), Err(Violation::Unmasked));
    assert_eq!(reader.step(&mut [0x82, 0xFE, 0x7F, 0xFF]), Err(Violation::TooLarge));
    assert_eq!(reader.step(&mut [0x89, 0xFE]), Err(Violation::Control));
}

proptest! {
    /// The reader returns the same messages however the bytes are cut, and asks for at least one more byte when a frame
    /// is not complete.
    #[test]
    fn frames_are_read_in_any_pieces(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
        mask in any::<[u8; 4]>(),
        piece in 1usize..50,
    ) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| client(0x82, payload, mask)).collect();
        let mut reader = FrameReader::new(300);
        let mut buffer = Vec::new();
        let mut got = Vec::new();
        for part in bytes.chunks(piece) {
            buffer.extend_from_slice(part);
            loop {
                let (used, step) = reader.step(&mut buffer).unwrap();
                match step {
                    FrameProgress::More(missing) => { prop_assert!(missing > 0); break }
                    FrameProgress::Binary(payload) => got.push(payload.into_owned()),
                    other => panic!("{other:?}"),
                }
                buffer.drain(..used);
            }
        }
        prop_assert_eq!(got, payloads);
    }

    /// Checks that a client that follows the standard can read our frames.
    #[test]
    fn what_we_send_is_read_by_the_reference(text in ".{0,80}", binary in proptest::collection::vec(any::<u8>(), 0..70_000)) {
        let mut bytes = BytesMut::from(&self::text(&text)[..]);
        put_message(&mut bytes, false, &[&binary], None);
        let stream = std::io::Cursor::new(bytes.to_vec());
        let mut socket = tungstenite::WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Client, None);
        let (first, second) = (socket.read().unwrap(), socket.read().unwrap());
        prop_assert_eq!(first.to_text().unwrap(), &*text);
        prop_assert_eq!(&second.into_data()[..], &binary[..]);
    }

    /// Checks that for any frames our reader and the reference implementation agree on the messages, or both refuse the
    /// frames.
    #[test]
    fn any_frames_are_judged_as_the_reference_judges_them(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..6)), 1..5),
    ) {
        let frames: Vec<_> = frames
            .iter()
            // Most of the generated frames have opcodes that exist.
            .map(|(first, payload)| client(if first & 0x70 == 0x10 { *first } else { first & 0x8B }, payload, MASK))
            .collect();
        let ours = read_all(&frames, 1 << 20);
        let stream = std::io::Cursor::new(frames.concat());
        let mut socket = tungstenite::WebSocket::from_raw_socket(Duplex(stream), tungstenite::protocol::Role::Server, None);
        let mut theirs = Vec::new();
        let refused = loop {
            use tungstenite::{Error, Message, error::ProtocolError};
            match socket.read() {
                Ok(Message::Text(text)) => theirs.push(format!("Text({:?})", text.as_str())),
                Ok(Message::Binary(bytes)) => theirs.push(format!("Binary({:?})", &bytes[..])),
                Ok(Message::Ping(bytes)) => theirs.push(format!("Ping({:?})", &bytes[..])),
                Ok(Message::Pong(_)) => theirs.push("Pong".to_owned()),
                Ok(Message::Close(_)) => break None,
                Ok(Message::Frame(_)) => {}
                Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::ConnectionClosed) => break Some(false),
                Err(_) => break Some(true),
            }
        };
        match (ours, refused) {
            (Ok(ours), Some(false)) => prop_assert_eq!(ours, theirs),
            // The reference implementation stops after a close frame, and does not check the frame's code as we do.
            (_, None) => {}
            (ours, refused) => prop_assert_eq!(ours.is_err(), refused == Some(true)),
        }
    }
}

/// Reads from the cursor, and discards everything that is written.
struct Duplex(std::io::Cursor<Vec<u8>>);

impl std::io::Read for Duplex {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Write for Duplex {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
