//! The load generator: many connections on one thread, one buffer for all of them, no copy of what they hear.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::wire;

/// Connections that are opened at once: fewer than a listener's backlog.
const OPENING: usize = 100;
const READ_BUFFER: usize = 256 * 1024;

/// Who hears what a server says.
pub trait Sink {
    /// An event for a connection: `["name",…]`.
    fn event(&mut self, connection: usize, text: &[u8]);
}

/// Nobody.
pub struct Deaf;

impl Sink for Deaf {
    fn event(&mut self, _: usize, _: &[u8]) {}
}

impl<F: FnMut(usize, &[u8])> Sink for F {
    fn event(&mut self, connection: usize, text: &[u8]) {
        self(connection, text);
    }
}

/// How a connection is opened.
#[derive(Clone, Default)]
pub struct Entry {
    /// The namespace with its slash; empty: the main one.
    pub namespace: String,
    /// What CONNECT carries; empty: nothing.
    pub auth: Option<String>,
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    entry: Entry,
    /// The part of a frame that has come.
    held: Vec<u8>,
    /// What the kernel did not take yet.
    unsent: Vec<u8>,
}

/// The connections.
pub struct Load {
    poll: Poll,
    events: Events,
    connections: Vec<Option<Connection>>,
    buffer: Vec<u8>,
    entered: usize,
    acknowledged: usize,
    closed: usize,
}

impl Load {
    /// No connection yet.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            connections: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            entered: 0,
            acknowledged: 0,
            closed: 0,
        })
    }

    /// Opens connections and waits until each is in its namespace. The address of each is `to(index)`.
    pub fn open(
        &mut self,
        count: usize,
        to: impl Fn(usize) -> SocketAddr,
        entry: impl Fn(usize) -> Entry,
        sink: &mut impl Sink,
    ) -> anyhow::Result<()> {
        let first = self.connections.len();
        let wanted = self.entered + count;
        for at in 0..count {
            let index = first + at;
            self.connect(index, to(at), entry(at))?;
            if (at + 1) % OPENING == 0 || at + 1 == count {
                let now = wanted - count + at + 1;
                self.until(Duration::from_secs(60), sink, |load| load.entered >= now)
                    .context("connections are opened")?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, address: SocketAddr, entry: Entry) -> anyhow::Result<()> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let mut connection = Connection { stream, upgraded: false, entry, held: Vec::new(), unsent: Vec::new() };
        connection.put(
            format!(
                "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .as_bytes(),
        )?;
        self.connections.push(Some(connection));
        Ok(())
    }

    /// How many connections were closed by the server.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// How many acknowledgements have come.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Sends an event: `["name",…]`, with an acknowledgement asked for if there is an id.
    pub fn emit(&mut self, connection: usize, ack: Option<u32>, event: &str) -> anyhow::Result<()> {
        let Some(connection) = &mut self.connections[connection] else { return Ok(()) };
        let mut text = String::with_capacity(event.len() + 32);
        text.push_str("42");
        if !connection.entry.namespace.is_empty() {
            text.push_str(&connection.entry.namespace);
            text.push(',');
        }
        if let Some(ack) = ack {
            text.push_str(&ack.to_string());
        }
        text.push_str(event);
        connection.say(text.as_bytes())
    }

    /// Lets every connection into a room of its own choice, and waits for the answers.
    pub fn join(&mut self, room: impl Fn(usize) -> String, sink: &mut impl Sink) -> anyhow::Result<()> {
        let before = self.acknowledged;
        for index in 0..self.connections.len() {
            self.emit(index, Some(1), &format!(r#"["join","{}"]"#, room(index)))?;
            // In groups, so that neither side has everything to answer at once.
            if index % OPENING == OPENING - 1 || index + 1 == self.connections.len() {
                let wanted = before + index + 1;
                self.until(Duration::from_secs(30), sink, |load| load.acknowledged >= wanted)
                    .context("rooms are joined")?;
            }
        }
        Ok(())
    }

    /// Closes every connection, at once and without a word.
    pub fn close_all(&mut self) {
        self.connections.clear();
        self.entered = 0;
        self.acknowledged = 0;
    }

    /// Reads what has come within the time; returns as soon as anything has.
    pub fn turn(&mut self, patience: Duration, sink: &mut impl Sink) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let ready: Vec<(usize, bool)> =
            self.events.iter().map(|event| (event.token().0, event.is_writable())).collect();
        for (index, writable) in ready {
            if let Some(Some(connection)) = self.connections.get_mut(index) {
                if writable {
                    connection.flush()?;
                }
                self.read(index, sink)?;
            }
        }
        Ok(())
    }

    /// Turns until it is so.
    pub fn until(&mut self, limit: Duration, sink: &mut impl Sink, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            ensure!(Instant::now() < deadline, "not within {limit:?}");
            self.turn(Duration::from_millis(20), sink)?;
        }
        Ok(())
    }

    /// Turns for a while.
    pub fn rest(&mut self, time: Duration, sink: &mut impl Sink) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(left.min(Duration::from_millis(20)), sink)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize, sink: &mut impl Sink) -> anyhow::Result<()> {
        loop {
            let Some(connection) = &mut self.connections[index] else { return Ok(()) };
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.lost(index),
                Ok(count) => {
                    let whole = count < self.buffer.len();
                    let mut heard =
                        Heard { entered: &mut self.entered, acknowledged: &mut self.acknowledged, index, sink };
                    connection.take(&self.buffer[..count], &mut heard)?;
                    if whole {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.lost(index),
            }
        }
    }

    fn lost(&mut self, index: usize) -> anyhow::Result<()> {
        self.connections[index] = None;
        self.closed += 1;
        Ok(())
    }
}

/// Where a connection's packets go.
struct Heard<'a, S> {
    entered: &'a mut usize,
    acknowledged: &'a mut usize,
    index: usize,
    sink: &'a mut S,
}

impl Connection {
    fn take<S: Sink>(&mut self, bytes: &[u8], heard: &mut Heard<'_, S>) -> anyhow::Result<()> {
        if self.held.is_empty() {
            let used = self.frames(bytes, heard)?;
            self.held.extend_from_slice(&bytes[used..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let used = self.frames(&held, heard)?;
            held.drain(..used);
            self.held = held;
        }
        Ok(())
    }

    fn frames<S: Sink>(&mut self, bytes: &[u8], heard: &mut Heard<'_, S>) -> anyhow::Result<usize> {
        let mut used = 0;
        if !self.upgraded {
            let Some(head) = wire::head(bytes) else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                bail!("no upgrade: {}", String::from_utf8_lossy(&bytes[..head]));
            }
            used = head;
            self.upgraded = true;
            let mut connect = String::from("40");
            if !self.entry.namespace.is_empty() {
                connect.push_str(&self.entry.namespace);
                connect.push(',');
            }
            connect.push_str(self.entry.auth.as_deref().unwrap_or_default());
            self.say(connect.as_bytes())?;
        }
        while let Some((payload, length)) = wire::frame(&bytes[used..]) {
            self.packet(payload, heard)?;
            used += length;
        }
        Ok(used)
    }

    fn packet<S: Sink>(&mut self, packet: &[u8], heard: &mut Heard<'_, S>) -> anyhow::Result<()> {
        match packet {
            [b'2', ..] => return self.say(b"3"),
            [b'4', b'0', ..] => *heard.entered += 1,
            [b'4', b'2', rest @ ..] => {
                let start = rest.iter().position(|byte| *byte == b'[').unwrap_or(0);
                heard.sink.event(heard.index, &rest[start..]);
            }
            [b'4', b'3', ..] => *heard.acknowledged += 1,
            [b'4', b'4', rest @ ..] => bail!("refused: {}", String::from_utf8_lossy(rest)),
            _ => {}
        }
        Ok(())
    }

    fn say(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let mut frame = Vec::with_capacity(text.len() + 14);
        wire::put_client_frame(&mut frame, text);
        self.put(&frame)
    }

    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        match self.stream.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(count) => self.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.unsent.extend_from_slice(bytes),
            // That it is gone is noticed as it is read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        self.put(&unsent)
    }
}
