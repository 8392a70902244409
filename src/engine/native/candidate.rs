//! A WebSocket that a client tries while it polls: the probe, and the change.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::frame::{self, Reader, Step};
use super::polling::{Arrived, Claim};
use crate::engine::conn::Conn;
use crate::engine::rewind::Rewind;
use crate::telemetry::metrics::Metrics;

/// How long an upgrade may take, as in Node.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after the probe a poll that waits is answered with a NOOP again, so that the client can pause. It doubles each
/// time: a client that never pauses polls about eight times before it is given up.
const NOOP_AGAIN: Duration = Duration::from_millis(100);

/// The longest message of a candidate, `2probe`, and a few bytes more.
const MAX_MESSAGE: usize = 64;

const READ: usize = 1024;

const PROBE: &str = "2probe";
const ANSWER: &str = "3probe";
const UPGRADE: &str = "5";

/// Tries a WebSocket. Whatever ends this before the client has moved to it, the session goes on by polling.
pub(super) async fn attempt(claim: Claim, upgrade: OnUpgrade, deflates: bool, metrics: Arc<Metrics>) {
    let by = Instant::now() + UPGRADE_TIMEOUT;
    let moved = tokio::time::timeout_at(by, probe(&claim, upgrade, deflates)).await;
    let Ok(Some((stream, rest))) = moved else { return };
    let (reader, writer) = stream.into_split();
    if claim.wire().change_over(writer, Arrived { reader, rest }, deflates) {
        metrics.transport_upgrades_total.with_label_values::<&str>(&[]).inc();
    }
}

/// Closes a WebSocket that cannot be tried: the session has another one, or tries it.
pub(super) async fn refuse(upgrade: OnUpgrade) {
    let closing = async {
        let (mut stream, _) = tcp_of(upgrade).await?;
        stream.write_all(&frame::close(None)).await.ok()
    };
    let _ = tokio::time::timeout(UPGRADE_TIMEOUT, closing).await;
}

/// Until the client says that it moves. `None`: it did something else.
async fn probe(claim: &Claim, upgrade: OnUpgrade, deflates: bool) -> Option<(TcpStream, Vec<u8>)> {
    let (mut stream, mut rest) = tcp_of(upgrade).await?;
    let mut reader = Reader::new(MAX_MESSAGE).inflating(deflates);
    let mut noop = Noop { after: NOOP_AGAIN, at: None };
    loop {
        let (used, step) = reader.step(&mut rest).ok()?;
        let answer = match step {
            Step::More(_) => {
                read_more(&mut stream, &mut rest, &mut noop, claim).await?;
                continue;
            }
            Step::Text(text) if text == PROBE => {
                noop.begin(claim);
                Some(frame::text(ANSWER))
            }
            Step::Text(text) if text == UPGRADE => {
                rest.drain(..used);
                return Some((stream, rest));
            }
            Step::Ping(payload) => Some(frame::pong(payload)),
            Step::Fragment | Step::Pong => None,
            Step::Text(_) | Step::Binary(_) | Step::Close(_) => return None,
        };
        rest.drain(..used);
        if let Some(answer) = answer {
            stream.write_all(&answer).await.ok()?;
        }
    }
}

/// When the poll that waits is answered.
struct Noop {
    after: Duration,
    at: Option<Instant>,
}

impl Noop {
    fn begin(&mut self, claim: &Claim) {
        claim.wire().release_poll();
        self.at = Some(Instant::now() + self.after);
    }

    async fn again(&mut self, claim: &Claim) {
        let Some(at) = self.at else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        self.after *= 2;
        self.begin(claim);
    }
}

/// Reads what comes next, and has polls answered meanwhile.
async fn read_more(stream: &mut TcpStream, rest: &mut Vec<u8>, noop: &mut Noop, claim: &Claim) -> Option<()> {
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

/// The TCP connection of a request that was answered with 101, and what was read of it.
pub(super) async fn tcp_of(upgrade: OnUpgrade) -> Option<(TcpStream, Vec<u8>)> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Conn<Rewind<TcpStream>>>>().ok()?;
    let (read, stream) = parts.io.into_inner().into_inner().into_parts();
    Some((stream, [&read[..], &parts.read_buf].concat()))
}
