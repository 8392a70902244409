//! WebSocket frames: our codec reads what the reference writes, the reference reads what our codec writes, and both
//! accept or refuse all other bytes alike.

use std::io::{self, Read, Write};

use proptest::prelude::*;
use roomcast::engine::native::frame::{self, FrameProgress, FrameReader, Violation};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

use super::cases;

const MAX_PAYLOAD: usize = 1 << 17;

/// A message that was read, in a type that both readers' results are converted to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The input ends in the middle of a frame; more bytes could complete it.
    Open,
    /// A close frame was read.
    Closed,
    Refused(Option<Violation>),
}

// === both readers ===

/// The messages that our reader reads, and how the input ends, if the bytes arrive in pieces of these lengths.
fn ours(bytes: &[u8], pieces: &[usize]) -> (Vec<Seen>, End) {
    let (mut reader, mut held, mut seen) = (FrameReader::new(MAX_PAYLOAD), Vec::new(), Vec::new());
    for piece in cut(bytes, pieces) {
        held.extend_from_slice(piece);
        loop {
            let used = match reader.step(&mut held) {
                Err(violation) => return (seen, End::Refused(Some(violation))),
                Ok((_, FrameProgress::More(missing))) => {
                    assert!(missing > 0);
                    break;
                }
                Ok((used, step)) => {
                    match step {
                        FrameProgress::Text(text) => seen.push(Seen::Text(text.into_owned())),
                        FrameProgress::Binary(bytes) => seen.push(Seen::Binary(bytes.into_owned())),
                        FrameProgress::Ping(payload) => seen.push(Seen::Ping(payload.to_vec())),
                        FrameProgress::Pong => seen.push(Seen::Pong),
                        FrameProgress::Close(code) => {
                            seen.push(Seen::Close(code));
                            return (seen, End::Closed);
                        }
                        FrameProgress::Fragment | FrameProgress::More(_) => {}
                    }
                    used
                }
            };
            held.drain(..used);
        }
    }
    (seen, End::Open)
}

fn theirs(bytes: &[u8], role: Role) -> (Vec<Seen>, End) {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_PAYLOAD)).max_frame_size(Some(MAX_PAYLOAD));
    let mut socket = WebSocket::from_raw_socket(Pipe::of(bytes), role, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => seen.push(Seen::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => seen.push(Seen::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => seen.push(Seen::Ping(bytes.to_vec())),
            Ok(Message::Pong(_)) => seen.push(Seen::Pong),
            Ok(Message::Close(close)) => {
                seen.push(Seen::Close(close.map(|close| close.code.into())));
                return (seen, End::Closed);
            }
            Ok(Message::Frame(_)) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (seen, End::Open),
            Err(_) => return (seen, End::Refused(None)),
        }
    }
}

/// A stream for the reference: it provides the given bytes and then ends, and it keeps the bytes that are written.
#[derive(Default)]
struct Pipe {
    input: io::Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Pipe {
    fn of(bytes: &[u8]) -> Self {
        Self { input: io::Cursor::new(bytes.to_vec()), output: Vec::new() }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts the bytes into pieces of these lengths, used in a cycle.
fn cut<'a>(bytes: &'a [u8], pieces: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut out) = (bytes, Vec::new());
    for length in pieces.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*length).clamp(1, rest.len()));
        out.push(piece);
        rest = after;
    }
    out
}

// === what is generated ===

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![8 => 0usize..20, 2 => 120usize..132, 1 => 65_530usize..65_540, 1 => 0usize..3000];
    (lengths, any::<u8>()).prop_map(|(length, seed)| {
        (0..length).map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap_or(0).wrapping_mul(31))).collect()
    })
}

fn message() -> impl Strategy<Value = Message> {
    let short = proptest::collection::vec(any::<u8>(), 0..126);
    prop_oneof![
        4 => ".{0,40}".prop_map(Message::text),
        1 => payload().prop_map(|bytes| Message::text(bytes.iter().map(|byte| char::from(*byte)).collect::<String>())),
        3 => payload().prop_map(Message::binary),
        1 => short.clone().prop_map(|bytes| Message::Ping(bytes.into())),
        1 => short.prop_map(|bytes| Message::Pong(bytes.into())),
    ]
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(vec![usize::MAX]), Just(vec![1]), proptest::collection::vec(1usize..200, 1..8)]
}

/// The output of the reference as a client: every message has its own mask, and data is fragmented.
fn written(messages: &[Message], fragments: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sizes = fragments.iter().cycle();
    for message in messages {
        let (opcode, payload) = match message {
            Message::Text(text) => (OpCode::Data(Data::Text), text.as_bytes()),
            Message::Binary(bytes) => (OpCode::Data(Data::Binary), &bytes[..]),
            Message::Ping(bytes) => (OpCode::Control(Control::Ping), &bytes[..]),
            Message::Pong(bytes) => (OpCode::Control(Control::Pong), &bytes[..]),
            _ => continue,
        };
        let size = match opcode {
            OpCode::Control(_) => payload.len(),
            OpCode::Data(_) => *sizes.next().unwrap_or(&usize::MAX),
        };
        let parts: Vec<&[u8]> = if payload.is_empty() { vec![payload] } else { payload.chunks(size.max(1)).collect() };
        for (at, part) in parts.iter().enumerate() {
            let opcode = if at == 0 { opcode } else { OpCode::Data(Data::Continue) };
            put(&mut out, opcode, at + 1 == parts.len(), part);
        }
    }
    out
}

fn put(out: &mut Vec<u8>, opcode: OpCode, fin: bool, payload: &[u8]) {
    let mask = [out.len() as u8 | 1, 0x55, 0, payload.len() as u8];
    let header = FrameHeader { is_final: fin, opcode, mask: Some(mask), ..FrameHeader::default() };
    let frame = Frame::from_payload(header, payload.to_vec().into());
    frame.format(out).expect("a frame is written");
}

fn wanted(messages: &[Message]) -> Vec<Seen> {
    let seen = |message: &Message| match message {
        Message::Text(text) => Some(Seen::Text(text.as_str().to_owned())),
        Message::Binary(bytes) => Some(Seen::Binary(bytes.to_vec())),
        Message::Ping(bytes) => Some(Seen::Ping(bytes.to_vec())),
        Message::Pong(_) => Some(Seen::Pong),
        _ => None,
    };
    messages.iter().filter_map(seen).collect()
}

// === the same judgement ===

/// Whether our reader and the reference came to the same result. Intended differences are listed only here.
fn agree(bytes: &[u8], ours: &(Vec<Seen>, End), theirs: &(Vec<Seen>, End)) -> Result<(), String> {
    let told = || Err(format!("{ours:?}, but the reference {theirs:?}: {bytes:02x?}"));
    match (ours.1, theirs.1) {
        (End::Open, End::Open) | (End::Refused(_), End::Refused(_)) if ours.0 == theirs.0 => Ok(()),
        (End::Closed, End::Closed) => {
            let code = |seen: &[Seen]| match seen.last() {
                Some(Seen::Close(code)) => *code,
                _ => None,
            };
            let (mine, other) = (code(&ours.0), code(&theirs.0));
            // The reference answers a close frame with a forbidden code, such as 1014, with the code 1002 and reads on.
            // After such a frame there is nothing more to compare.
            let same = mine == other || (mine == Some(1014) && other == Some(1002));
            let before = ours.0[..ours.0.len() - 1] == theirs.0[..theirs.0.len() - 1];
            if same && before { Ok(()) } else { told() }
        }
        // Our reader refuses a close frame with a forbidden code, and the reference answers it with 1002.
        (End::Refused(Some(Violation::CloseCode)), End::Closed)
            if theirs.0.last() == Some(&Seen::Close(Some(1002))) && theirs.0.starts_with(&ours.0) =>
        {
            Ok(())
        }
        // Our reader refuses mistakes before the frame is complete, and lengths that are not in their shortest form.
        (End::Refused(Some(violation)), _) if theirs.0.starts_with(&ours.0) => match violation {
            Violation::Length => Ok(()),
            _ if theirs.1 == End::Open && theirs.0 == ours.0 => Ok(()),
            _ => told(),
        },
        _ => told(),
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn what_the_reference_writes_is_read_in_any_fragments_and_pieces(
        messages in proptest::collection::vec(message(), 1..8),
        fragments in proptest::collection::vec(prop_oneof![1usize..9, 100usize..70_000, Just(usize::MAX)], 1..4),
        pieces in pieces(),
    ) {
        let bytes = written(&messages, &fragments);
        let (seen, end) = ours(&bytes, &pieces);
        prop_assert_eq!(end, End::Open);
        prop_assert_eq!(seen, wanted(&messages));
    }

    #[test]
    fn its_close_frames_are_read_with_their_codes(code in 0u16..6000, reason in ".{0,30}") {
        let mut socket = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        let close = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        socket.close(Some(close)).unwrap();
        let bytes = socket.get_ref().output.clone();
        let mine = ours(&bytes, &[3]);
        if CloseCode::from(code).is_allowed() {
            prop_assert_eq!(mine, (vec![Seen::Close(Some(code))], End::Closed));
        } else if code != 1014 {
            prop_assert_eq!(mine, (Vec::new(), End::Refused(Some(Violation::CloseCode))));
        }
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    /// Valid frames with bytes that were changed, lost, doubled or inserted, or that end early.
    #[test]
    fn of_what_was_spoiled_both_think_the_same(
        messages in proptest::collection::vec(message(), 1..5),
        fragments in proptest::collection::vec(1usize..200, 1..3),
        spoils in proptest::collection::vec((0u8..5, any::<prop::sample::Index>(), any::<u8>()), 1..4),
        pieces in pieces(),
    ) {
        let mut bytes = written(&messages, &fragments);
        for (how, at, byte) in spoils {
            if bytes.is_empty() {
                continue;
            }
            // Most bytes are payload, so prefer heads, which are at the start of small messages.
            let at = at.index(if byte % 2 == 0 { bytes.len().min(12) } else { bytes.len() });
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        let whole = ours(&bytes, &[usize::MAX]);
        prop_assert_eq!(&whole, &ours(&bytes, &pieces), "the same in any pieces");
        if let Err(wrong) = agree(&bytes, &whole, &theirs(&bytes, Role::Server)) {
            prop_assert!(false, "{}", wrong);
        }
    }

    /// Frames of any kind, in any order, with any payload.
    #[test]
    fn of_frames_in_any_order_both_think_the_same(
        frames in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..6), any::<u8>()), 1..8),
        text in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for (first, payload, odd) in &frames {
            // Mostly valid opcodes, and mostly readable text.
            let first = if *odd < 16 { *first } else { first & 0x8B };
            let payload: Vec<u8> = payload.iter().map(|byte| if text && *odd > 64 { byte & 0x7F } else { *byte }).collect();
            bytes.extend([first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0]);
            bytes.extend(payload);
        }
        let whole = ours(&bytes, &[usize::MAX]);
        prop_assert_eq!(&whole, &ours(&bytes, &[1]), "the same in any pieces");
        if let Err(wrong) = agree(&bytes, &whole, &theirs(&bytes, Role::Server)) {
            prop_assert!(false, "{}", wrong);
        }
    }

    /// A text in fragments that are cut anywhere, of mostly valid UTF-8.
    #[test]
    fn of_text_that_may_be_none_both_think_the_same(
        text in "[aä€😀]{1,12}",
        spoil in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        size in 1usize..6,
        last in any::<bool>(),
    ) {
        let mut payload = text.into_bytes();
        if let Some((at, byte)) = spoil {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let mut bytes = Vec::new();
        let count = payload.chunks(size).count();
        for (at, part) in payload.chunks(size).enumerate() {
            let opcode = OpCode::Data(if at == 0 { Data::Text } else { Data::Continue });
            put(&mut bytes, opcode, last && at + 1 == count, part);
        }
        let whole = ours(&bytes, &[usize::MAX]);
        if let Err(wrong) = agree(&bytes, &whole, &theirs(&bytes, Role::Server)) {
            prop_assert!(false, "{}", wrong);
        }
    }

    #[test]
    fn what_we_write_is_read_by_the_reference(
        texts in proptest::collection::vec(".{0,200}", 1..4),
        pong in proptest::collection::vec(any::<u8>(), 0..126),
        code in proptest::option::of(prop_oneof![1000u16..1004, 1007u16..1012, 3000u16..5000]),
    ) {
        let mut bytes = Vec::new();
        texts.iter().for_each(|text| bytes.extend(frame::text(text)));
        bytes.extend(frame::pong(&pong));
        bytes.extend(frame::close(code));
        let mut wanted: Vec<Seen> = texts.into_iter().map(Seen::Text).collect();
        wanted.extend([Seen::Pong, Seen::Close(code)]);
        prop_assert_eq!(theirs(&bytes, Role::Client), (wanted, End::Closed));
    }
}
