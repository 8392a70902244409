//! The load generator: many clients on one thread, one read buffer for all of them, and no copy of what they receive.

mod polling;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use self::polling::{Next, Polling};
use crate::wire;

/// Number of connections that are opened at once: fewer than a listener's backlog.
const OPENING: usize = 100;
const READ_BUFFER: usize = 256 * 1024;

/// Receives the packets that a server sends.
pub trait Sink {
    /// An event for a connection: `["name",…]`.
    fn event(&mut self, connection: usize, text: &[u8]);
}

/// Ignores all packets.
pub struct Deaf;

impl Sink for Deaf {
    fn event(&mut self, _: usize, _: &[u8]) {}
}

impl<F: FnMut(usize, &[u8])> Sink for F {
    fn event(&mut self, connection: usize, text: &[u8]) {
        self(connection, text);
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// The client opens its session with a WebSocket.
    #[default]
    WebSocket,
    /// The client opens its session with long-polling and upgrades to a WebSocket, as the official client does by
    /// default.
    Upgrade,
    /// The client only polls.
    Polling,
}

/// How a connection is opened.
#[derive(Clone, Default)]
pub struct Entry {
    /// How the client connects.
    pub transport: Transport,
    /// The namespace with its slash; empty: the main one.
    pub namespace: String,
    /// The payload of CONNECT. Empty: none.
    pub auth: Option<String>,
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    /// The state of long-polling; set while the client polls.
    polling: Option<Box<Polling>>,
    entry: Entry,
    /// The received part of an incomplete frame.
    held: Vec<u8>,
    /// Bytes that the kernel has not accepted yet.
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
    /// Creates a load generator without connections.
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

    /// Opens connections and waits until each is in its namespace. `to(index)` is the address of each.
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
        let stream = self.stream(address, index * 2)?;
        let polling = (entry.transport != Transport::WebSocket).then(|| Box::new(Polling::new(address)));
        let open = polling.as_ref().map_or_else(|| wire::websocket(address, None), |polling| polling.open());
        let mut connection =
            Connection { stream, upgraded: false, polling, entry, held: Vec::new(), unsent: Vec::new() };
        connection.put(open.as_bytes())?;
        self.connections.push(Some(connection));
        Ok(())
    }

    fn stream(&self, address: SocketAddr, token: usize) -> anyhow::Result<TcpStream> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// Number of connections that the server closed.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Number of acknowledgements that were received.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Sends an event, `["name",…]`. With an id, the event asks for an acknowledgement.
    pub fn emit(&mut self, index: usize, ack: Option<u32>, event: &str) -> anyhow::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
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
        connection.say(text.as_bytes())?;
        self.open_side(index)
    }

    /// Opens the second stream of a polling client, if it needs one.
    fn open_side(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return Ok(()) };
        let Some((address, request)) = connection.polling.as_mut().and_then(|polling| polling.wanted()) else {
            return Ok(());
        };
        let stream = self.stream(address, index * 2 + 1)?;
        match &mut self.connections[index] {
            Some(Connection { polling: Some(polling), .. }) => polling.begin(stream, request),
            _ => Ok(()),
        }
    }

    /// Makes every connection join a room, and waits for the acknowledgements of all joins.
    pub fn join(&mut self, room: impl Fn(usize) -> String, sink: &mut impl Sink) -> anyhow::Result<()> {
        let before = self.acknowledged;
        for index in 0..self.connections.len() {
            self.emit(index, Some(1), &format!(r#"["join","{}"]"#, room(index)))?;
            // Joins in groups, so that neither side has to answer everything at once.
            if index % OPENING == OPENING - 1 || index + 1 == self.connections.len() {
                let wanted = before + index + 1;
                self.until(Duration::from_secs(30), sink, |load| load.acknowledged >= wanted)
                    .context("rooms are joined")?;
            }
        }
        Ok(())
    }

    /// Closes all connections at once, without a close packet.
    pub fn close_all(&mut self) {
        self.connections.clear();
        self.entered = 0;
        self.acknowledged = 0;
    }

    /// Reads from all connections for at most `patience`. Returns as soon as anything was received.
    pub fn turn(&mut self, patience: Duration, sink: &mut impl Sink) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        let ready: Vec<(usize, bool)> =
            self.events.iter().map(|event| (event.token().0, event.is_writable())).collect();
        for (token, writable) in ready {
            let index = token / 2;
            let Some(Some(connection)) = self.connections.get_mut(index) else { continue };
            // A client that has moved to the WebSocket on its second stream has no other stream.
            if token % 2 == 1 && connection.polling.is_some() {
                connection.read_side(&mut self.buffer, writable, &mut self.entered)?;
            } else {
                if writable {
                    connection.flush()?;
                }
                self.read(index, sink)?;
            }
            self.open_side(index)?;
        }
        Ok(())
    }

    /// Reads from all connections until the condition is true, for at most `limit`.
    pub fn until(&mut self, limit: Duration, sink: &mut impl Sink, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !done(self) {
            ensure!(Instant::now() < deadline, "not within {limit:?}");
            self.turn(Duration::from_millis(20), sink)?;
        }
        Ok(())
    }

    /// Reads from all connections for the given time.
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

/// The packet that connects a client to its namespace.
fn connect_packet(entry: &Entry) -> String {
    let mut connect = String::from("40");
    if !entry.namespace.is_empty() {
        connect.push_str(&entry.namespace);
        connect.push(',');
    }
    connect.push_str(entry.auth.as_deref().unwrap_or_default());
    connect
}

/// The counters and the sink that receive a connection's packets.
struct Heard<'a, S> {
    entered: &'a mut usize,
    acknowledged: &'a mut usize,
    index: usize,
    sink: &'a mut S,
}

impl Connection {
    /// Reads the second stream of a polling client.
    fn read_side(&mut self, buffer: &mut [u8], writable: bool, entered: &mut usize) -> anyhow::Result<()> {
        let Some(polling) = &mut self.polling else { return Ok(()) };
        polling.read_side(buffer, writable)?;
        self.move_over(entered)
    }

    /// Makes the WebSocket the client's only stream, if the client has sent the upgrade packet on it.
    fn move_over(&mut self, entered: &mut usize) -> anyhow::Result<()> {
        let Some(stream) = self.polling.as_mut().and_then(|polling| polling.moved()) else { return Ok(()) };
        (self.stream, self.upgraded, self.polling) = (stream, true, None);
        *entered += 1;
        Ok(())
    }

    /// Handles the complete answers to requests on the first stream. Returns the number of bytes that were handled.
    fn answers<S: Sink>(&mut self, bytes: &[u8], heard: &mut Heard<'_, S>) -> anyhow::Result<usize> {
        let mut used = 0;
        while let Some((body, length)) = wire::answer(&bytes[used..])? {
            used += length;
            for packet in body.split(|byte| *byte == 0x1e) {
                self.packet(packet, heard)?;
            }
            let Some(polling) = &mut self.polling else { break };
            let connect = connect_packet(&self.entry);
            match polling.answered(body, &connect)? {
                Next::Send(request) => self.put(request.as_bytes())?,
                Next::Moves => return self.move_over(heard.entered).map(|()| used),
            }
        }
        Ok(used)
    }

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
        if self.polling.is_some() {
            return self.answers(bytes, heard);
        }
        let mut used = 0;
        if !self.upgraded {
            let Some(head) = wire::head(bytes) else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                bail!("no upgrade: {}", String::from_utf8_lossy(&bytes[..head]));
            }
            used = head;
            self.upgraded = true;
            let connect = connect_packet(&self.entry);
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
            // A client that upgrades counts as connected only after it has moved to its WebSocket.
            [b'4', b'0', ..] if self.entry.transport == Transport::Upgrade => {
                if let Some(polling) = &mut self.polling {
                    polling.upgrade();
                }
            }
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
        if let Some(polling) = &mut self.polling {
            polling.post(text);
            return Ok(());
        }
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
            // A closed connection is noticed by the next read.
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
