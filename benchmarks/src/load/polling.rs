//! A client that polls, or that polls until it has upgraded.
//!
//! The client's first TCP stream carries the handshake and the polls, one after the other. A second stream carries a
//! posted body and closes after it, or it is the WebSocket of the upgrade.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use mio::net::TcpStream;

use crate::wire;

/// The state of long-polling.
pub(super) struct Polling {
    address: SocketAddr,
    /// The session id. Empty until the handshake is answered.
    sid: String,
    outbox: Vec<Vec<u8>>,
    upgrade: Upgrade,
    side: Option<Side>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    /// The client only polls.
    No,
    Wanted,
    /// The WebSocket has been opened, and its probe is not answered yet.
    Trying,
    /// The server has answered the probe of the upgrade. The client moves when its last poll is answered.
    Probed,
    Moved,
}

/// The second stream.
struct Side {
    stream: TcpStream,
    websocket: bool,
    held: Vec<u8>,
    unsent: Vec<u8>,
}

/// The client's next step after an answer.
pub(super) enum Next {
    /// The client sends this request on its first stream.
    Send(String),
    /// The client has moved to its WebSocket.
    Moves,
}

impl Polling {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, sid: String::new(), outbox: Vec::new(), upgrade: Upgrade::No, side: None }
    }

    /// Makes the request that opens the session.
    pub(super) fn open(&self) -> String {
        wire::get(self.address, "")
    }

    /// Handles an answer on the first stream: to the handshake, to the post of the CONNECT packet `connect`, or to a
    /// poll.
    pub(super) fn answered(&mut self, body: &[u8], connect: &str) -> anyhow::Result<Next> {
        if self.sid.is_empty() {
            let text = std::str::from_utf8(body)?;
            let sid = text.split_once(r#""sid":""#).and_then(|(_, rest)| rest.split_once('"')).context("no sid")?;
            self.sid = sid.0.to_owned();
            return Ok(Next::Send(wire::post(self.address, &self.sid, connect.as_bytes(), false)));
        }
        if self.upgrade == Upgrade::Probed {
            self.say_upgrade()?;
            return Ok(Next::Moves);
        }
        Ok(Next::Send(wire::get(self.address, &self.sid)))
    }

    /// Queues a packet for the body of the next POST request.
    pub(super) fn post(&mut self, packet: &[u8]) {
        self.outbox.push(packet.to_vec());
    }

    /// Makes the client upgrade to a WebSocket.
    pub(super) fn upgrade(&mut self) {
        if self.upgrade == Upgrade::No {
            self.upgrade = Upgrade::Wanted;
        }
    }

    /// The next request that needs a second stream, and the server's address: the upgrade, or a POST of the queued
    /// packets.
    pub(super) fn wanted(&mut self) -> Option<(SocketAddr, String)> {
        if self.side.is_some() {
            return None;
        }
        if self.upgrade == Upgrade::Wanted {
            self.upgrade = Upgrade::Trying;
            return Some((self.address, wire::websocket(self.address, Some(&self.sid))));
        }
        if self.outbox.is_empty() {
            return None;
        }
        let body = std::mem::take(&mut self.outbox).join(&0x1e);
        Some((self.address, wire::post(self.address, &self.sid, &body, true)))
    }

    /// Sends the request on a second stream.
    pub(super) fn begin(&mut self, stream: TcpStream, request: String) -> anyhow::Result<()> {
        let websocket = self.upgrade == Upgrade::Trying;
        let side = Side { stream, websocket, held: Vec::new(), unsent: request.into_bytes() };
        self.side.insert(side).flush()
    }

    /// Reads the second stream.
    pub(super) fn read_side(&mut self, buffer: &mut [u8], writable: bool) -> anyhow::Result<()> {
        let Some(side) = &mut self.side else { return Ok(()) };
        if writable {
            side.flush()?;
        }
        let ended = side.read(buffer)?;
        if !side.websocket {
            let answered = wire::answer(&side.held)?.is_some();
            ensure!(answered || !ended, "a body was not answered");
            if answered {
                self.side = None;
            }
            return Ok(());
        }
        ensure!(!ended, "the WebSocket of an upgrade was closed");
        if side.held.starts_with(b"HTTP/1.1 101") {
            let Some(head) = wire::head(&side.held) else { return Ok(()) };
            side.held.drain(..head);
            return side.say(b"2probe");
        }
        if wire::frame(&side.held).is_some_and(|(payload, _)| payload == b"3probe") {
            side.held.clear();
            self.upgrade = Upgrade::Probed;
        }
        Ok(())
    }

    fn say_upgrade(&mut self) -> anyhow::Result<()> {
        self.upgrade = Upgrade::Moved;
        self.side.as_mut().context("no WebSocket")?.say(b"5")
    }

    /// The stream of the WebSocket that the client has upgraded to.
    pub(super) fn moved(&mut self) -> Option<TcpStream> {
        if self.upgrade != Upgrade::Moved {
            return None;
        }
        self.side.take().map(|side| side.stream)
    }
}

impl Side {
    /// Returns true when the server has closed the stream.
    fn read(&mut self, buffer: &mut [u8]) -> anyhow::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => self.held.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn say(&mut self, text: &[u8]) -> anyhow::Result<()> {
        wire::put_client_frame(&mut self.unsent, text);
        self.flush()
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
