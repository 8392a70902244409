//! Tries a WebSocket while its client still polls: the probe, and the move to the WebSocket.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::frame::{self, FrameProgress, FrameReader};
use super::polling::{CandidateClaim, UpgradedSocket};
use crate::engine::listener::ClientStream;
use crate::telemetry::metrics::Metrics;

/// How long an upgrade may take. Node.js has the same limit.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after the probe a waiting poll is answered with a NOOP again, so that the client can pause polling. The
/// time doubles with each NOOP: a client that never pauses polls about eight times before the upgrade is given up.
const NOOP_AGAIN: Duration = Duration::from_millis(100);

/// The maximum length of a message on a candidate, in bytes: `2probe`, and a few bytes more.
const MAX_MESSAGE: usize = 64;

const READ: usize = 1024;

const PROBE: &str = "2probe";
const ANSWER: &str = "3probe";
const UPGRADE: &str = "5";

/// Tries to move a polling session to a WebSocket. If anything fails before the client has moved to the WebSocket, the
/// session continues to poll. The end of the session does not end the attempt: see [`super::polling`].
pub(super) async fn attempt(claim: CandidateClaim, upgrade: OnUpgrade, deflates: bool, metrics: Arc<Metrics>) {
    let by = Instant::now() + UPGRADE_TIMEOUT;
    let moved = tokio::time::timeout_at(by, probe(&claim, upgrade, deflates)).await;
    let Ok(Some((stream, rest))) = moved else { return };
    let (reader, writer) = stream.into_split();
    if claim.sender().change_over(writer, UpgradedSocket { reader, rest }, deflates) {
        metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
    }
}

/// Closes a WebSocket that cannot be tried, because the session already has a WebSocket or is trying another one.
pub(super) async fn refuse(upgrade: OnUpgrade) {
    let closing = async {
        let (mut stream, _) = tcp_of(upgrade).await?;
        stream.write_all(&frame::close(None)).await.ok()
    };
    let _ = tokio::time::timeout(UPGRADE_TIMEOUT, closing).await;
}

/// Answers the client's probe, and waits until the client sends the upgrade packet. Returns `None` if the client sends
/// anything else.
async fn probe(claim: &CandidateClaim, upgrade: OnUpgrade, deflates: bool) -> Option<(TcpStream, Vec<u8>)> {
    let (mut stream, mut rest) = tcp_of(upgrade).await?;
    let mut reader = FrameReader::new(MAX_MESSAGE).inflating(deflates);
    let mut noop = NextNoop { after: NOOP_AGAIN, at: None };
    loop {
        let (used, step) = reader.step(&mut rest).ok()?;
        let answer = match step {
            FrameProgress::More(_) => {
                read_more(&mut stream, &mut rest, &mut noop, claim).await?;
                continue;
            }
            // The client still polls, and learns by its next poll that the session has ended.
            FrameProgress::Text(text) if text == PROBE && claim.sender().is_over() => return None,
            FrameProgress::Text(text) if text == PROBE => {
                noop.begin(claim);
                Some(frame::text(ANSWER))
            }
            FrameProgress::Text(text) if text == UPGRADE => {
                rest.drain(..used);
                return Some((stream, rest));
            }
            FrameProgress::Ping(payload) => Some(frame::pong(payload)),
            FrameProgress::Fragment | FrameProgress::Pong => None,
            FrameProgress::Text(_) | FrameProgress::Binary(_) | FrameProgress::Close(_) => return None,
        };
        rest.drain(..used);
        if let Some(answer) = answer {
            stream.write_all(&answer).await.ok()?;
        }
    }
}

/// The time at which the waiting poll is answered again.
struct NextNoop {
    after: Duration,
    at: Option<Instant>,
}

impl NextNoop {
    fn begin(&mut self, claim: &CandidateClaim) {
        claim.sender().release_poll();
        self.at = Some(Instant::now() + self.after);
    }

    async fn again(&mut self, claim: &CandidateClaim) {
        let Some(at) = self.at else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        self.after *= 2;
        self.begin(claim);
    }
}

/// Reads the next bytes of the WebSocket, and meanwhile answers waiting polls.
async fn read_more(
    stream: &mut TcpStream,
    rest: &mut Vec<u8>,
    noop: &mut NextNoop,
    claim: &CandidateClaim,
) -> Option<()> {
    let mut buffer = [0; READ];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => {
                let read = read.ok().filter(|read| *read > 0)?;
                rest.extend_from_slice(&buffer[..read]);
                return Some(());
            }
            () = noop.again(claim) => {}
        }
    }
}

/// The TCP stream of a request that was answered with 101, and the bytes that were already read from it.
pub(super) async fn tcp_of(upgrade: OnUpgrade) -> Option<(TcpStream, Vec<u8>)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<ClientStream>>().ok()?;
    let (read, conn) = parts.io.into_inner().into_parts();
    Some((conn.into_inner(), [&parts.read_buf[..], &read].concat()))
}
