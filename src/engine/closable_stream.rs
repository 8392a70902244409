//! Wraps a client's TCP stream, so that another task can close the connection. The wrapper also ends the connection of
//! a client that stops reading.

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

use super::queue_estimate::QueueEstimate;
use crate::telemetry::metrics::Metrics;

/// How long a closing connection may go without writing anything before it is dropped.
const LAST_WORDS: Duration = Duration::from_secs(1);

const LIVE: u8 = 0;
const CLOSING: u8 = 1;
const DEAD: u8 = 2;

/// The state of a [`KillSwitch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwitchState {
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
    /// Counts the bytes that are written to the connection. Unset unless an engine needs the count.
    estimate: OnceLock<Arc<QueueEstimate>>,
    /// A token that is cancelled when the connection is gone. Unset unless an engine waits for this.
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

    /// Closes the connection at once, without writing the queued bytes.
    pub fn kill(&self) {
        self.turn(DEAD);
    }

    /// Returns the switch's state, and wakes the calling task when the state changes. Only the connection's own task
    /// may call this.
    pub fn poll_turned(&self, cx: &Context<'_>) -> SwitchState {
        self.reader.register(cx.waker());
        match self.state() {
            LIVE => SwitchState::Live,
            CLOSING => SwitchState::Closing,
            _ => SwitchState::Dead,
        }
    }

    /// From now on, adds the bytes that are written to the connection to the count in `outstanding`.
    pub(super) fn count_for(&self, estimate: &Arc<QueueEstimate>) {
        let _ = self.estimate.set(estimate.clone());
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

/// Counts the bytes that connections receive and send.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Bytes received from clients.
    pub received: IntCounter,
    /// Bytes sent to clients.
    pub sent: IntCounter,
}

impl Traffic {
    /// The exported counters of the node's connections with clients.
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

/// A client's stream that another task can close.
pub struct ClosableStream<S> {
    stream: S,
    traffic: Traffic,
    kill: Arc<KillSwitch>,
    stall: Duration,
    // The timer of a write that waits for the client. An idle connection has no timer.
    stalled: Option<Pin<Box<Sleep>>>,
    ahead: ReadAhead,
}

/// Limits how many bytes the node reads from a client that reads nothing itself.
///
/// A client's messages can make the other side of this stream write: socketioxide answers every WebSocket PING and
/// keeps the PONGs that it cannot write in a buffer without a bound. An answer is never longer than the message that it
/// answers. So the limit on the bytes that are read while a write waits also limits the answers that wait.
///
/// Reading does not stop at once when a write waits, because a client may send a whole message before it reads, and a
/// slow client, for which a write nearly always waits, must still answer heartbeats.
#[derive(Debug)]
struct ReadAhead {
    /// The maximum number of bytes to read while a write waits.
    limit: usize,
    /// The bytes that were read while a write waited, less those that were written since.
    read: usize,
    /// Whether the last write waits for the client to read.
    blocked: bool,
    /// Whether a read is waiting for this write to make progress.
    held: bool,
}

impl ReadAhead {
    fn is_used_up(&self) -> bool {
        self.blocked && self.read >= self.limit
    }

    fn note_read(&mut self, bytes: usize) {
        if self.blocked {
            self.read += bytes;
        }
    }

    /// Records the outcome of a write of `given` bytes. Returns true if a waiting read must be woken.
    fn note_write(&mut self, given: usize, outcome: &Poll<io::Result<usize>>) -> bool {
        self.blocked = outcome.is_pending();
        if let Poll::Ready(Ok(written)) = outcome {
            self.read = if *written < given { self.read.saturating_sub(*written) } else { 0 };
        }
        !self.blocked && std::mem::take(&mut self.held)
    }
}

impl<S> ClosableStream<S> {
    /// Wraps a stream. A write that makes no progress for `stall` ends the connection. While the connection is
    /// closing, the limit is at most 1 s. While a write waits, about `read_ahead` bytes are read at most.
    pub fn new(stream: S, stall: Duration, read_ahead: usize, traffic: Traffic) -> Self {
        let ahead = ReadAhead { limit: read_ahead, read: 0, blocked: false, held: false };
        Self { stream, traffic, kill: Arc::default(), stall, stalled: None, ahead }
    }

    /// Returns the wrapped stream.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// The switch that closes this connection.
    pub fn kill_switch(&self) -> Arc<KillSwitch> {
        self.kill.clone()
    }

    fn count_sent(&mut self, given: usize, outcome: &Poll<io::Result<usize>>) {
        if self.ahead.note_write(given, outcome) {
            self.kill.reader.wake();
        }
        let estimate = self.kill.estimate.get();
        if let Poll::Ready(Ok(written)) = outcome {
            self.traffic.sent.inc_by(*written as u64);
            if let Some(estimate) = estimate {
                estimate.left(*written as u64);
            }
        }
        if let Some(estimate) = estimate {
            estimate.set_blocked(outcome.is_pending());
        }
    }

    /// Returns what the wrapped stream returned. While the stream cannot write, it also enforces the time limit.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        // The task registers before it reads the state, so that it misses no change.
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

impl<S: AsyncRead + Unpin> AsyncRead for ClosableStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = match self.kill.state() {
            LIVE if self.ahead.is_used_up() => {
                self.ahead.held = true;
                Poll::Pending
            }
            LIVE => {
                let before = buffer.filled().len();
                let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
                let read = buffer.filled().len() - before;
                self.ahead.note_read(read);
                self.traffic.received.inc_by(read as u64);
                outcome
            }
            // A read of 0 bytes tells the caller that the stream has ended.
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

impl<S: AsyncWrite + Unpin> AsyncWrite for ClosableStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.kill.state() == DEAD {
            return Poll::Ready(Err(dead()));
        }
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count_sent(bytes.len(), &outcome);
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
        self.count_sent(bytes.iter().map(|part| part.len()).sum(), &outcome);
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

    /// The read-ahead limit of these tests, in bytes.
    const AHEAD: usize = 100;

    fn traffic() -> Traffic {
        Traffic::new(&Metrics::new())
    }

    /// Polls once. Returns `None` if the result is not ready.
    async fn once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        std::future::poll_fn(|cx| match poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn client_that_does_not_read_is_read_from_up_to_the_limit_until_it_reads() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut conn = ClosableStream::new(near, Duration::from_secs(60), AHEAD, traffic());
        let mut buffer = [0; 64];
        far.write_all(&[1; 64]).await.unwrap();
        assert_eq!(conn.read(&mut buffer).await.unwrap(), 64, "no write waits");
        conn.write_all(&[2; 64]).await.unwrap();
        assert!(once(|cx| Pin::new(&mut conn).poll_write(cx, &[2; 8])).await.is_none());
        for _ in 0..2 {
            far.write_all(&[1; 64]).await.unwrap();
            assert_eq!(conn.read(&mut buffer).await.unwrap(), 64, "the limit is not reached");
        }
        far.write_all(&[1; 64]).await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(conn);
        let read = tokio::spawn(async move { reading.read(&mut [0; 64]).await });
        tokio::task::yield_now().await;
        assert!(!read.is_finished(), "the limit is reached");
        far.read_exact(&mut [0; 64]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!read.is_finished(), "nothing was written yet");
        writing.write_all(&[2; 8]).await.unwrap();
        assert_eq!(read.await.unwrap().unwrap(), 64);
    }

    #[tokio::test]
    async fn what_is_written_in_part_permits_as_much_to_be_read() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut conn = ClosableStream::new(near, Duration::from_secs(60), AHEAD, traffic());
        let mut read = 0;
        let mut written = 0;
        // The client sends without end and reads 8 bytes for every 64 bytes that it sends; everything is answered.
        for _ in 0..200 {
            let sent = once(|cx| Pin::new(&mut far).poll_write(cx, &[1; 64])).await;
            let _ = sent.map(Result::unwrap);
            let got = once(|cx| {
                let mut space = [0; 64];
                let mut buffer = ReadBuf::new(&mut space);
                Pin::new(&mut conn).poll_read(cx, &mut buffer).map(|end| end.map(|()| buffer.filled().len()))
            });
            read += got.await.map_or(0, Result::unwrap);
            while read > written {
                let answers = vec![2; read - written];
                match once(|cx| Pin::new(&mut conn).poll_write(cx, &answers)).await {
                    Some(count) => written += count.unwrap(),
                    None => break,
                }
            }
            assert!(read - written < AHEAD + 2 * 64, "{} bytes of answers wait", read - written);
            far.read_exact(&mut [0; 8]).await.unwrap();
        }
        assert!(read > 1000);
    }

    #[tokio::test]
    async fn closing_ends_a_read_that_waits_for_a_write() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut conn = ClosableStream::new(near, Duration::from_secs(60), 0, traffic());
        conn.write_all(&[2; 64]).await.unwrap();
        assert!(once(|cx| Pin::new(&mut conn).poll_write(cx, &[2; 8])).await.is_none());
        far.write_all(b"more").await.unwrap();
        let kill = conn.kill_switch();
        let reading = tokio::spawn(async move { conn.read(&mut [0; 8]).await.unwrap() });
        tokio::task::yield_now().await;
        kill.close();
        assert_eq!(reading.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn closing_ends_a_waiting_read_and_lets_writes_pass() {
        let (near, mut far) = tokio::io::duplex(64);
        let traffic = traffic();
        let mut conn = ClosableStream::new(near, Duration::from_secs(60), AHEAD, traffic.clone());
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
        let mut conn = ClosableStream::new(near, Duration::from_secs(20), AHEAD, traffic());
        let started = tokio::time::Instant::now();
        let error = conn.write_all(b"more than fits").await.unwrap_err();
        assert_eq!((error.kind(), started.elapsed().as_secs()), (io::ErrorKind::BrokenPipe, 20));
        assert_eq!(conn.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_long_for_a_client_that_stops_reading() {
        let (near, _far) = tokio::io::duplex(4);
        let mut conn = ClosableStream::new(near, Duration::from_secs(20), AHEAD, traffic());
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
        let mut conn = ClosableStream::new(near, Duration::from_secs(20), AHEAD, traffic());
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
        let mut conn = ClosableStream::new(near, Duration::from_secs(60), AHEAD, traffic());
        let kill = conn.kill_switch();
        let writing = tokio::spawn(async move { conn.write_all(b"more than fits").await });
        tokio::task::yield_now().await;
        kill.kill();
        assert!(writing.await.unwrap().is_err());
    }
}
