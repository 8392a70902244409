//! Wraps a client's TCP stream. The connection can be closed from elsewhere, and it ends when the client stops
//! reading.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use prometheus::IntCounter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::outstanding::Outstanding;
use crate::telemetry::metrics::Metrics;

/// How long a closing connection may go without writing anything before it is dropped.
const LAST_WORDS: Duration = Duration::from_secs(1);

const LIVE: u8 = 0;
const CLOSING: u8 = 1;
const DEAD: u8 = 2;

/// The state of a [`KillSwitch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// The connection is open.
    Live,
    /// The connection is closing: nothing more is read, but queued bytes are still written.
    Closing,
    /// The connection has ended.
    Dead,
}

/// Closes a connection from another task.
#[derive(Debug, Default)]
pub struct KillSwitch {
    state: AtomicU8,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// Counts the bytes that are written, if an engine asked for it.
    outstanding: OnceLock<Arc<Outstanding>>,
    /// Cancelled when the connection is gone, if an engine asked for it.
    gone: OnceLock<CancellationToken>,
}

impl Drop for KillSwitch {
    fn drop(&mut self) {
        if let Some(gone) = self.gone.get() {
            gone.cancel();
        }
    }
}

impl KillSwitch {
    /// Closes the connection after the queued bytes are written. Nothing more is read.
    pub fn close(&self) {
        self.turn(CLOSING);
    }

    /// Ends reading and writing at once.
    pub fn kill(&self) {
        self.turn(DEAD);
    }

    /// Returns the state, and wakes the task when it changes. Only the connection's own task may call this.
    pub fn poll_turned(&self, cx: &Context<'_>) -> Turned {
        self.reader.register(cx.waker());
        match self.state() {
            LIVE => Turned::Live,
            CLOSING => Turned::Closing,
            _ => Turned::Dead,
        }
    }

    /// Counts the bytes that are written from now on in `outstanding`.
    pub(super) fn count_for(&self, outstanding: &Arc<Outstanding>) {
        let _ = self.outstanding.set(outstanding.clone());
    }

    /// Returns a token that is cancelled when the last reference to the switch is dropped, because the connection is
    /// gone.
    pub(super) fn gone(&self) -> CancellationToken {
        self.gone.get_or_init(CancellationToken::new).clone()
    }

    fn turn(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        self.reader.wake();
        self.writer.wake();
    }

    fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }
}

/// Counts the bytes of connections.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Bytes received from clients.
    pub received: IntCounter,
    /// Bytes sent to clients.
    pub sent: IntCounter,
}

impl Traffic {
    /// The node's counters.
    pub fn new(metrics: &Metrics) -> Self {
        let count = |direction| metrics.network_bytes_total.with_label_values(&[direction]);
        Self { received: count("received"), sent: count("sent") }
    }

    /// Counters that are not exported.
    pub fn unmeasured() -> Self {
        let counter = |name| IntCounter::new(name, name).expect("the name is one of a metric");
        Self { received: counter("received"), sent: counter("sent") }
    }

    /// Counters for the connections with other nodes.
    pub fn with_nodes(metrics: &Metrics) -> Self {
        let count = |direction| metrics.forward_bytes_total.with_label_values(&[direction]);
        Self { received: count("received"), sent: count("sent") }
    }
}

/// A client's stream that can be closed from elsewhere.
pub struct Conn<S> {
    stream: S,
    traffic: Traffic,
    kill: Arc<KillSwitch>,
    stall: Duration,
    // Set only while a write waits, so that an idle connection has no timer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Conn<S> {
    /// Wraps a stream. A write that makes no progress for `stall` ends the connection. While the connection is
    /// closing, the limit is at most 1 s.
    pub fn new(stream: S, stall: Duration, traffic: Traffic) -> Self {
        Self { stream, traffic, kill: Arc::default(), stall, stalled: None }
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// The switch that closes this connection.
    pub fn kill_switch(&self) -> Arc<KillSwitch> {
        self.kill.clone()
    }

    fn count_sent(&self, outcome: &Poll<io::Result<usize>>) {
        let outstanding = self.kill.outstanding.get();
        if let Poll::Ready(Ok(written)) = outcome {
            self.traffic.sent.inc_by(*written as u64);
            if let Some(outstanding) = outstanding {
                outstanding.left(*written as u64);
            }
        }
        if let Some(outstanding) = outstanding {
            outstanding.set_blocked(outcome.is_pending());
        }
    }

    /// Returns the stream's outcome. While the stream cannot write, it also enforces the time limit.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        // Register before the state is read, so that no change is missed.
        self.kill.writer.register(cx.waker());
        let state = self.kill.state();
        let stall = if state == LIVE { self.stall } else { self.stall.min(LAST_WORDS) };
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        let by = Instant::now() + stall;
        if timer.deadline() > by {
            timer.as_mut().reset(by);
        }
        if state == DEAD || timer.as_mut().poll(cx).is_ready() {
            self.kill.kill();
            return Poll::Ready(Err(dead()));
        }
        Poll::Pending
    }
}

fn dead() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the node has closed the connection")
}

impl<S: AsyncRead + Unpin> AsyncRead for Conn<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = match self.kill.state() {
            LIVE => {
                let before = buffer.filled().len();
                let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
                self.traffic.received.inc_by((buffer.filled().len() - before) as u64);
                outcome
            }
            // Reading nothing tells the caller that the stream has ended.
            _ => return Poll::Ready(Ok(())),
        };
        if outcome.is_pending() {
            self.kill.reader.register(cx.waker());
            if self.kill.state() != LIVE {
                return Poll::Ready(Ok(()));
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.kill.state() == DEAD {
            return Poll::Ready(Err(dead()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count_sent(&outcome);
        self.watch(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.kill.state() == DEAD {
            return Poll::Ready(Err(dead()));
        }
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.kill.state() == DEAD {
            return Poll::Ready(Err(dead()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.count_sent(&outcome);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn traffic() -> Traffic {
        Traffic::new(&Metrics::new())
    }

    #[tokio::test]
    async fn closing_ends_a_waiting_read_and_lets_writes_pass() {
        let (near, mut far) = tokio::io::duplex(64);
        let traffic = traffic();
        let mut conn = Conn::new(near, Duration::from_secs(60), traffic.clone());
        let kill = conn.kill_switch();
        let reading = tokio::spawn(async move {
            let read = conn.read(&mut [0; 8]).await.unwrap();
            conn.write_all(b"bye").await.unwrap();
            read
        });
        tokio::task::yield_now().await;
        kill.close();
        assert_eq!(reading.await.unwrap(), 0);
        let mut bye = [0; 3];
        far.read_exact(&mut bye).await.unwrap();
        assert_eq!(&bye, b"bye");
        assert_eq!((traffic.received.get(), traffic.sent.get()), (0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_stops_reading_is_given_up() {
        let (near, _far) = tokio::io::duplex(4);
        let mut conn = Conn::new(near, Duration::from_secs(20), traffic());
        let started = tokio::time::Instant::now();
        let error = conn.write_all(b"more than fits").await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::BrokenPipe, 20));
        assert_eq!(conn.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_long_for_a_client_that_stops_reading() {
        let (near, _far) = tokio::io::duplex(4);
        let mut conn = Conn::new(near, Duration::from_secs(20), traffic());
        let kill = conn.kill_switch();
        let started = tokio::time::Instant::now();
        let writing = tokio::spawn(async move { conn.write_all(b"more than fits").await });
        tokio::time::sleep(Duration::from_secs(5)).await;
        kill.close();
        assert!(writing.await.unwrap().is_err());
        assert_eq!(started.elapsed().as_secs(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_client_is_not_a_stalled_one() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut conn = Conn::new(near, Duration::from_secs(20), traffic());
        let writing = tokio::spawn(async move { conn.write_all(&[7; 16]).await });
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(15)).await;
            far.read_exact(&mut [0; 4]).await.unwrap();
        }
        writing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn killing_wakes_a_waiting_write() {
        let (near, _far) = tokio::io::duplex(4);
        let mut conn = Conn::new(near, Duration::from_secs(60), traffic());
        let kill = conn.kill_switch();
        let writing = tokio::spawn(async move { conn.write_all(b"more than fits").await });
        tokio::task::yield_now().await;
        kill.kill();
        assert!(writing.await.unwrap().is_err());
    }
}
