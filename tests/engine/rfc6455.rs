//! WebSocket according to RFC 6455, case by case: what a client sends, in which pieces, and the exact bytes of the
//! answer.
//!
//! The cases have the numbers of the list that WebSocket implementers test with. Where a case needs an echo, the answer
//! is the acknowledgement of a Socket.IO event, so that every case crosses the whole engine.

mod case;
mod closing;
mod deflate;
mod framing;
mod utf8;

use case::{Case, Library, Want};
use futures_util::StreamExt;
use roomcast::config::{self, EngineKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;

use super::suite::Node;

/// Number of cases that run at the same time.
const ABREAST: usize = 16;

/// Cases longer than this, in bytes, are not sent byte by byte.
const BYTEWISE: usize = 600;

/// The length of the pieces, in bytes. An odd length makes the cuts fall into heads, masks and payloads.
const PIECE: usize = 997;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// The pieces in which the bytes of a case are sent.
#[derive(Debug, Clone, Copy)]
enum Chop {
    Whole,
    Frames,
    Pieces,
}

async fn every_case_of_the_standard_is_answered_to_the_byte(engine: EngineKind) {
    let node = Node::alone(engine).await;
    let cases: Vec<Case> = framing::cases().into_iter().chain(utf8::cases()).chain(closing::cases()).collect();
    let ran = run(&node, &cases, false).await;
    assert!(ran > 800, "{ran}");
    assert!(!node.gate.seen.lock().unwrap().iter().any(|text| text.contains(case::FORBIDDEN)));
}

/// Only the native engine compresses; socketioxide does not.
async fn every_case_of_compression_is_answered_to_the_byte(engine: EngineKind) {
    let compression = config::CompressionSettings {
        threshold: config::Size::from_bytes(1),
        ..config::CompressionSettings::default()
    };
    let node = Node::start(
        engine,
        config::ServerSettings { compression: Some(compression), ..config::ServerSettings::default() },
        None,
    )
    .await;
    if engine == EngineKind::Native {
        assert!(run(&node, &deflate::cases(), true).await > 100);
        // Compression that was agreed on need not be used.
        assert!(run(&node, &closing::cases(), true).await > 100);
        assert!(!node.gate.seen.lock().unwrap().iter().any(|text| text.contains(case::FORBIDDEN)));
    } else {
        let (_, agreed) = deflate::upgrade(&node.address).await;
        assert!(!agreed);
    }
}

/// Runs each case with every way of cutting, and reports all failures.
async fn run(node: &Node, cases: &[Case], deflated: bool) -> usize {
    let chops = [Chop::Whole, Chop::Frames, Chop::Pieces];
    let cases = cases.iter().filter(|case| node.native || case.library != Library::Patient);
    let runs = cases.flat_map(|case| chops.map(|chop| (case, chop)));
    let outcomes = futures_util::stream::iter(runs).map(|(case, chop)| async move {
        let got = tokio::time::timeout(PATIENCE, answers(node, case, chop, deflated)).await;
        let wrong = match &got {
            Ok(got) => judge(case, got, node.native).err(),
            Err(_) => Some("it took too long".to_owned()),
        };
        wrong.map(|wrong| format!("{} {} ({chop:?}): {wrong}", case.id, case.about))
    });
    let outcomes: Vec<Option<String>> = outcomes.buffer_unordered(ABREAST).collect().await;
    let wrong: Vec<&String> = outcomes.iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {} are wrong: {wrong:#?}", wrong.len(), outcomes.len());
    outcomes.len()
}

/// Runs a case, and returns all frames that arrive. If the case does not end the connection, the client closes it.
async fn answers(node: &Node, case: &Case, chop: Chop, deflated: bool) -> Vec<Want> {
    let (stream, read) =
        if deflated { (deflate::client(&node.address).await, Vec::new()) } else { node.client().await.into_stream() };
    stream.set_nodelay(true).unwrap();
    let (reader, mut writer) = stream.into_split();
    let wanted = case.want.len();
    let closes = matches!(case.want.last(), Some(Want::Close(_)));
    let sending = async {
        for piece in pieces(&case.frames, chop) {
            // The server may have closed the connection already.
            if writer.write_all(&piece).await.is_err() {
                break;
            }
            match chop {
                Chop::Frames => tokio::time::sleep(std::time::Duration::from_micros(200)).await,
                _ => tokio::task::yield_now().await,
            }
        }
        if !node.native && case.library == Library::Waits {
            let _ = writer.shutdown().await;
        }
        writer
    };
    let reading = read_answers(reader, read, (!closes).then_some(wanted));
    let (mut writer, (mut got, rest)) = tokio::join!(sending, reading);
    if let Some(reader) = rest {
        let _ = writer.write_all(&case::frame(0x88, &1000u16.to_be_bytes())).await;
        got.extend(read_answers(reader, Vec::new(), None).await.0);
    }
    got
}

/// Reads until the end of the connection or this number of frames, without heartbeats.
async fn read_answers(
    mut reader: OwnedReadHalf,
    mut bytes: Vec<u8>,
    most: Option<usize>,
) -> (Vec<Want>, Option<OwnedReadHalf>) {
    let mut got = Vec::new();
    loop {
        while let Some((want, used)) = case::read(&bytes) {
            bytes.drain(..used);
            if want != Want::Text("2".into()) {
                got.push(want);
            }
        }
        if most.is_some_and(|most| got.len() >= most) {
            assert!(bytes.is_empty(), "more than was asked for: {bytes:?}");
            return (got, Some(reader));
        }
        match reader.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return (got, None),
            Ok(_) => {}
        }
    }
}

fn pieces(frames: &[Vec<u8>], chop: Chop) -> Vec<Vec<u8>> {
    let all = frames.concat();
    match chop {
        Chop::Frames => frames.to_vec(),
        Chop::Whole => vec![all],
        Chop::Pieces => all.chunks(if all.len() <= BYTEWISE { 1 } else { PIECE }).map(<[u8]>::to_vec).collect(),
    }
}

/// Checks that messages arrive in order, pongs arrive in order (a pong may overtake a message), and the connection ends
/// as expected.
fn judge(case: &Case, got: &[Want], native: bool) -> Result<(), String> {
    let mut want = case.want.clone();
    if !matches!(want.last(), Some(Want::Close(_))) {
        want.push(Want::Close(Some(1000)));
    }
    let right = if native { as_meant(got, &want) } else { as_the_library_does(case, got, &want) };
    if right { Ok(()) } else { Err(format!("{:?} instead of {:?}", brief(got), brief(&want))) }
}

fn as_meant(got: &[Want], want: &[Want]) -> bool {
    let split = |all: &[Want]| -> (Vec<Want>, Vec<Want>) {
        all.iter().cloned().partition(|want| matches!(want, Want::Pong(_)))
    };
    split(got) == split(want) && got.last() == want.last()
}

fn as_the_library_does(case: &Case, got: &[Want], want: &[Want]) -> bool {
    let end = |code| [&want[..want.len() - 1], &[Want::Close(code)]].concat();
    match case.library {
        Library::Same if matches!(want.last(), Some(Want::Close(Some(1002 | 1007 | 1009)))) => {
            as_meant(got, want) || as_meant(got, &end(None))
        }
        Library::Same => as_meant(got, want),
        // The connection may also be reset before any answer arrives.
        Library::Ends => got.is_empty() || (got.last() == want.last() && got.len() <= want.len()),
        Library::Waits | Library::Patient => got.is_empty() || as_meant(got, &end(None)),
        Library::Refuses => as_meant(got, &end(Some(1002))),
    }
}

fn brief(wants: &[Want]) -> Vec<String> {
    wants.iter().map(|want| format!("{want:?}").chars().take(90).collect()).collect()
}

on_both_engines! {
    every_case_of_the_standard_is_answered_to_the_byte
    every_case_of_compression_is_answered_to_the_byte
}
