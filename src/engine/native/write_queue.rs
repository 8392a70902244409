//! The outgoing queue of a client. Its packets are written to a WebSocket, or fetched by a poll.

use std::io::{self, IoSlice};
use std::time::{Instant, SystemTime};

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;

use super::frame;
use super::packet;
use super::packets::Packets;
use super::payload;
use super::polling::Polling;
use crate::time::unix_millis;

/// The maximum number of packets in one write.
const MAX_SLICES: usize = 64;

/// The maximum number of urgent packets before a new pong replaces the latest waiting one, as the standard permits
/// (RFC 6455, 5.5.3).
const MAX_PONGS: usize = 16;

/// A connection's outgoing queue.
pub(super) struct WriteQueue {
    /// The WebSocket. `None`: the client polls, or the sending side is closed.
    pub(super) stream: Option<OwnedWriteHalf>,
    /// Whether the client polls; also true after an upgrade until the session's task has noticed the upgrade.
    pub(super) polling: Option<Box<Polling>>,
    pub(super) queue: Packets,
    pub(super) bytes: usize,
    /// Whether the first packet is partly written, and is not one of the urgent packets.
    begun: bool,
    /// The number of heartbeats and pongs that have been queued ahead of the other packets.
    urgent: usize,
    /// Whether the connection will be written without another request: by a writer in the next turn, or by the
    /// session's task at the end of its step.
    pub(super) write_requested: bool,
    /// The time since which the client has taken none of the waiting packets. `None`: the client is not blocked.
    pub(super) blocked: Option<Instant>,
    /// When the client last took packets, as Unix time in ms. 0: never.
    pub(super) written_at_ms: u64,
    /// Whether the last packet has been queued.
    pub(super) finished: bool,
    pub(super) broken: bool,
}

impl WriteQueue {
    pub(super) fn new(stream: Option<OwnedWriteHalf>) -> Self {
        Self {
            stream,
            polling: None,
            queue: Packets::default(),
            bytes: 0,
            begun: false,
            urgent: 0,
            write_requested: false,
            blocked: None,
            written_at_ms: 0,
            finished: false,
            broken: false,
        }
    }

    /// The queue of a polling client.
    pub(super) fn polled() -> Self {
        Self { polling: Some(Box::new(Polling::new())), ..Self::new(None) }
    }

    /// The state of polling. `None`: the client does not poll.
    pub(super) fn polled_by(&mut self) -> Option<&mut Polling> {
        self.polling.as_deref_mut().filter(|_| self.stream.is_none())
    }

    /// Moves the queue to a WebSocket.
    pub(super) fn become_websocket(&mut self, stream: OwnedWriteHalf) {
        self.stream = Some(stream);
        self.blocked = None;
        let packets: Vec<_> = self.queue.iter().map(payload::from_polling).collect();
        self.queue.clear();
        (self.bytes, self.begun, self.urgent) = (0, false, 0);
        packets.into_iter().for_each(|packet| self.push(packet));
    }

    /// Whether no more packets are accepted.
    pub(super) const fn is_over(&self) -> bool {
        self.finished || self.broken
    }

    pub(super) fn push(&mut self, packet: Bytes) {
        self.bytes += packet.len();
        self.queue.push(packet);
    }

    /// Queues a packet ahead of the others, but behind a partly written packet and behind earlier urgent packets.
    pub(super) fn overtake(&mut self, packet: Bytes) {
        let first = usize::from(self.begun) + self.urgent;
        debug_assert!(first <= self.queue.len(), "{first} packets are ahead of {}", self.queue.len());
        self.bytes += packet.len();
        self.queue.insert(first, packet);
        self.urgent += 1;
    }

    /// Queues a pong ahead of the others, like [`WriteQueue::overtake`]. If there are too many urgent packets, the pong
    /// replaces the latest waiting pong.
    pub(super) fn answer(&mut self, pong: Bytes) {
        if self.urgent >= MAX_PONGS {
            // The latest urgent packet is not the first packet of the queue, which may be partly written.
            if let Some(latest) = self.queue.get_mut(usize::from(self.begun) + self.urgent - 1)
                && frame::is_pong(latest)
            {
                self.bytes = self.bytes + pong.len() - latest.len();
                *latest = pong;
                return;
            }
        }
        self.overtake(pong);
    }

    /// Writes as much to the WebSocket as the kernel takes.
    pub(super) fn write(&self) -> io::Result<usize> {
        let Some(stream) = &self.stream else { return Err(io::ErrorKind::BrokenPipe.into()) };
        if let (Some(only), 1) = (self.queue.first(), self.queue.len()) {
            return stream.try_write(only);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = self.queue.len().min(MAX_SLICES);
        for (slice, packet) in slices.iter_mut().zip(self.queue.iter()) {
            *slice = IoSlice::new(packet);
        }
        stream.try_write_vectored(&slices[..count])
    }

    /// Removes the bytes that have been written.
    pub(super) fn advance(&mut self, mut written: usize) {
        debug_assert!(written <= self.bytes, "{written} bytes were written of {}", self.bytes);
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(front) = self.queue.first_mut() {
            if written < front.len() {
                front.advance(written);
                self.begun |= written > 0 && self.urgent == 0;
                return;
            }
            written -= front.len();
            self.queue.pop();
            if !std::mem::take(&mut self.begun) {
                self.urgent = self.urgent.saturating_sub(1);
            }
        }
    }

    /// Removes and returns packets of at most `most` bytes in total, but at least one packet if the queue is not empty.
    /// A close packet is returned alone: the official client handles it before the events of the same payload, shows
    /// these events only after it has reconnected, and asks for them again when it recovers its session.
    pub(super) fn fetch(&mut self, most: usize) -> Vec<Bytes> {
        self.written_at_ms = unix_millis(SystemTime::now());
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(front) = self.queue.first() {
            bytes += front.len();
            if !taken.is_empty() && (bytes > most || packet::is_close(front)) {
                return taken;
            }
            let front = front.clone();
            self.advance(front.len());
            taken.push(front);
        }
        self.rest();
        taken
    }

    /// Frees the queue's memory when nothing waits, so that an idle connection holds none.
    pub(super) fn rest(&mut self) {
        debug_assert!(self.queue.is_empty() && self.bytes == 0, "{} bytes wait", self.bytes);
        self.blocked = None;
        self.queue.clear();
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
        (self.begun, self.urgent) = (false, 0);
        self.blocked = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(packets: &[&'static str]) -> WriteQueue {
        let mut out = WriteQueue::new(None);
        packets.iter().for_each(|packet| out.push(Bytes::from_static(packet.as_bytes())));
        out
    }

    #[test]
    fn heartbeats_and_pongs_pass_the_queue_at_a_packets_end_in_their_order() {
        let mut out = out(&["abc", "def"]);
        out.overtake(Bytes::from_static(b"!!"));
        out.overtake(Bytes::from_static(b"?"));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["!!", "?", "abc", "def"]);
        out.advance(1);
        out.overtake(Bytes::from_static(b"."));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["!", "?", ".", "abc", "def"]);
        out.advance(5);
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["c", "def"]);
        out.overtake(Bytes::from_static(b"!"));
        out.overtake(Bytes::from_static(b"?"));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["c", "!", "?", "def"]);
        out.advance(2);
        out.overtake(Bytes::from_static(b"."));
        assert_eq!(out.queue.iter().collect::<Vec<_>>(), ["?", ".", "def"]);
        out.advance(3);
        assert_eq!((out.begun, out.urgent, out.bytes), (true, 0, 2));
    }

    #[test]
    fn of_too_many_pongs_the_latest_is_sent() {
        let mut out = out(&["abc"]);
        out.advance(1);
        for n in 0..100u8 {
            out.answer(frame::pong(&[n; 100][..usize::from(n)]));
        }
        assert_eq!(out.queue.len(), 1 + MAX_PONGS);
        assert_eq!(out.queue.get_mut(MAX_PONGS).unwrap(), &frame::pong(&[99; 99]));
        assert_eq!(out.queue.get_mut(MAX_PONGS - 1).unwrap(), &frame::pong(&[14; 14]));
        assert_eq!(out.bytes, out.queue.iter().map(Bytes::len).sum::<usize>());
        out.advance(2);
        out.answer(frame::pong(b"x"));
        assert_eq!((out.queue.len(), out.urgent), (MAX_PONGS, MAX_PONGS));
    }

    proptest! {
        #[test]
        fn writes_of_any_length_take_exactly_what_they_wrote(
            sizes in proptest::collection::vec(1usize..20, 1..20),
            writes in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let mut out = WriteQueue::new(None);
            sizes.iter().for_each(|size| out.push(Bytes::from(vec![0; *size])));
            let mut left: usize = sizes.iter().sum();
            for written in writes {
                let written = written.min(left);
                out.advance(written);
                left -= written;
                prop_assert_eq!(out.bytes, left);
                prop_assert_eq!(out.queue.iter().map(Bytes::len).sum::<usize>(), left);
            }
        }
    }
}
