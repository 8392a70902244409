//! A client in memory that records what it is sent. The unit tests and `tests/` share this file, so it names the crate
//! as `tests/` must.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use roomcast::event::{Args, Event};
use roomcast::session::{AckId, AckSender, ClientFacts, Close, Link, SendError, Session};
use roomcast::user::User;

/// Something that a client was sent.
#[derive(Clone)]
pub enum RecordedPacket {
    /// An event.
    Event(Event),
    /// An acknowledgement.
    Ack(AckId, Args),
    /// The end of the session.
    Close(Close),
}

/// Records what its session sends. Clones share the records.
#[derive(Clone)]
pub struct Recorder {
    packets: Arc<Mutex<Vec<RecordedPacket>>>,
    /// How many more events the write queue takes.
    space: Arc<AtomicUsize>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { packets: Arc::default(), space: Arc::new(AtomicUsize::new(usize::MAX)) }
    }
}

impl Recorder {
    /// All packets so far.
    pub fn packets(&self) -> Vec<RecordedPacket> {
        self.packets.lock().unwrap().clone()
    }

    /// All packets since the last call.
    pub fn take(&self) -> Vec<RecordedPacket> {
        std::mem::take(&mut *self.packets.lock().unwrap())
    }

    /// The texts of all events so far.
    pub fn events(&self) -> Vec<String> {
        let text = |packet: &RecordedPacket| match packet {
            RecordedPacket::Event(event) => Some(event.text().to_string()),
            _ => None,
        };
        self.packets.lock().unwrap().iter().filter_map(text).collect()
    }

    /// Sets how many more events the write queue takes. It is unlimited at first.
    pub fn set_space(&self, events: usize) {
        self.space.store(events, Ordering::Relaxed);
    }

    /// Creates a session that sends to this recorder.
    pub fn session(&self, namespace: &str, id: &str, user: User) -> Arc<Session> {
        Session::new(id.to_owned(), namespace.into(), Arc::new(user), peer(), Box::new(self.clone()))
    }
}

/// A client on this machine that uses a WebSocket.
pub fn peer() -> ClientFacts {
    ClientFacts { ip: [127, 0, 0, 1].into(), transport: "websocket", protocol: 4, user_agent: None, handshake: None }
}

impl Link for Recorder {
    fn send(&self, event: &Event) -> Result<(), SendError> {
        let left = self.space.load(Ordering::Relaxed).checked_sub(1).ok_or(SendError::Full)?;
        self.space.store(left, Ordering::Relaxed);
        self.packets.lock().unwrap().push(RecordedPacket::Event(event.clone()));
        Ok(())
    }
    fn ask(&self, event: &Event, _: AckSender) -> Result<(), SendError> {
        self.send(event)
    }
    fn ack(&self, id: AckId, args: &Args) -> Result<(), SendError> {
        self.packets.lock().unwrap().push(RecordedPacket::Ack(id, args.clone()));
        Ok(())
    }
    fn close(&self, how: Close) {
        self.packets.lock().unwrap().push(RecordedPacket::Close(how));
    }
}
