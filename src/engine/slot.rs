//! A socket's session, from before it exists to its end.
//!
//! Events may come before the session is opened, and the client may go at any moment: nothing is lost, nothing overtakes, and
//! the end is reported once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::engine::Gate;
use crate::engine::validate::validate;
use crate::event::Event;
use crate::session::AckId;

/// At most so many events wait until the session is open, which takes microseconds.
const MAX_EARLY: usize = 1024;

pub(super) struct Slot<G: Gate> {
    gate: Arc<G>,
    state: Mutex<State<G::Client>>,
}

type Early = VecDeque<(Event, Option<AckId>)>;

enum State<C> {
    /// CONNECT is not acknowledged yet, or only just.
    Waiting(Early),
    /// The session is open; what came before goes first.
    Draining(Early),
    Open(Arc<C>),
    Ended(&'static str),
}

/// An event that ends its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// More events came before the session was open than wait.
    TooEarly,
    /// Other clients could not read it.
    Malformed,
}

fn readable(event: &Event) -> Result<(), Unfit> {
    validate(event.text(), event.attachments().len()).map_err(|_| Unfit::Malformed)
}

impl<G: Gate> Slot<G> {
    pub(super) fn new(gate: Arc<G>) -> Arc<Self> {
        Arc::new(Self { gate, state: Mutex::new(State::Waiting(VecDeque::new())) })
    }

    /// Takes an event. It is counted before it is parsed; those that come early are few, and counted later.
    pub(super) fn event(&self, event: Event, ack: Option<AckId>) -> Result<(), Unfit> {
        let session = {
            let mut state = self.state.lock().expect("no panic while held");
            match &mut *state {
                State::Waiting(early) | State::Draining(early) if early.len() >= MAX_EARLY => {
                    return Err(Unfit::TooEarly);
                }
                State::Waiting(early) | State::Draining(early) => {
                    readable(&event)?;
                    early.push_back((event, ack));
                    return Ok(());
                }
                State::Open(session) => session.clone(),
                State::Ended(_) => return Ok(()),
            }
        };
        if self.gate.permit(&session, &event, ack) {
            readable(&event)?;
            self.gate.dispatch(&session, event, ack);
        }
        Ok(())
    }

    /// Opens the session, unless the client has gone already. `make` returns none when the client is not let in after all.
    pub(super) fn open(&self, make: impl FnOnce() -> Option<Arc<G::Client>>) {
        if matches!(*self.state.lock().expect("no panic while held"), State::Ended(_)) {
            return;
        }
        let Some(session) = make() else {
            *self.state.lock().expect("no panic while held") = State::Ended("refused");
            return;
        };
        while let Some((event, ack)) = self.next_early(&session) {
            if self.gate.permit(&session, &event, ack) {
                self.gate.dispatch(&session, event, ack);
            }
        }
    }

    /// The next event that came early. None when there is none and the session is open, or has ended and this was reported.
    fn next_early(&self, session: &Arc<G::Client>) -> Option<(Event, Option<AckId>)> {
        let mut state = self.state.lock().expect("no panic while held");
        if let State::Waiting(early) = &mut *state {
            *state = State::Draining(std::mem::take(early));
        }
        match &mut *state {
            State::Draining(early) => {
                if let Some(event) = early.pop_front() {
                    return Some(event);
                }
                *state = State::Open(session.clone());
                None
            }
            State::Ended(reason) => {
                let reason = *reason;
                drop(state);
                self.gate.closed(session, reason);
                None
            }
            State::Waiting(_) | State::Open(_) => None,
        }
    }

    /// The client is gone.
    pub(super) fn end(&self, reason: &'static str) {
        let before = {
            let mut state = self.state.lock().expect("no panic while held");
            match *state {
                State::Ended(_) => return,
                _ => std::mem::replace(&mut *state, State::Ended(reason)),
            }
        };
        // Whoever opens or drains finds the end and reports it.
        if let State::Open(session) = before {
            self.gate.closed(&session, reason);
        }
    }
}
