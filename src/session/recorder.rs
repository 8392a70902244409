//! A fake client for tests that records the events that are sent to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::offsets::SessionOffsets;
use super::{AckId, AckSender, ClientFacts, Close, Link, SendError, Session};
use crate::event::{Args, Event};
use crate::user::User;

/// Records the texts of the events that were sent.
#[derive(Clone, Default)]
pub struct Recorder {
    sent: Arc<Mutex<Vec<String>>>,
    full: Arc<AtomicBool>,
}

impl Recorder {
    /// The texts sent so far.
    pub fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }

    /// Sets whether the client's queue is full from now on.
    pub fn be_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Creates a session in the namespace `/` that sends to this recorder.
    pub fn session(&self, id: &str, offsets: Option<Box<SessionOffsets>>) -> Arc<Session> {
        let peer = ClientFacts { ip: [127, 0, 0, 1].into(), transport: "websocket", user_agent: None };
        let user = Arc::new(User::anonymous());
        Session::with_trail(id.to_owned(), "/".into(), user, peer, Box::new(self.clone()), offsets)
    }
}

impl Link for Recorder {
    fn send(&self, event: &Event) -> Result<(), SendError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(SendError::Full);
        }
        self.sent.lock().unwrap().push(event.text().to_string());
        Ok(())
    }
    fn ask(&self, event: &Event, _: AckSender) -> Result<(), SendError> {
        self.send(event)
    }
    fn ack(&self, _: AckId, _: &Args) -> Result<(), SendError> {
        Ok(())
    }
    fn close(&self, _: Close) {}
}
