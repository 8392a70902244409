//! The session of a socket, from before it is opened to its end.
//!
//! Events may arrive before the session is open, and the client may disconnect at any moment. The slot loses no
//! event, keeps their order, and reports the end of the session once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::engine::Gate;
use crate::engine::validate::validate;
use crate::error::Refusal;
use crate::event::Event;
use crate::session::AckId;

/// The maximum number of events that wait until the session is open. Opening takes microseconds.
const MAX_EARLY: usize = 1024;

pub(super) struct SessionSlot<G: Gate> {
    gate: Arc<G>,
    state: Mutex<SlotState<G::Client>>,
}

type EarlyEvents = VecDeque<ReceivedEvent>;

/// An event that a client has sent. If `refusal` is set, the node refuses the event.
struct ReceivedEvent {
    event: Event,
    ack: Option<AckId>,
    refusal: Option<Box<Refusal>>,
}

enum SlotState<C> {
    /// CONNECT is not queued yet, or the session is just being opened.
    Waiting(EarlyEvents),
    /// The session is open, and the events that arrived before it was open are being handled. New events queue behind
    /// them.
    Draining(EarlyEvents),
    Open(Arc<C>),
    /// The client has disconnected, or was refused. Events that it sent before the session was open are still handled
    /// if the session is being opened.
    Ended(&'static str, EarlyEvents),
}

/// Why an event ends its connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InvalidEvent {
    /// More than [`MAX_EARLY`] events came before the session was open.
    TooEarly,
    /// Other clients could not parse the event.
    Malformed,
}

fn readable(event: &Event) -> Result<(), InvalidEvent> {
    validate(event.text(), event.attachments().len()).map_err(|_| InvalidEvent::Malformed)
}

impl<G: Gate> SessionSlot<G> {
    pub(super) fn new(gate: Arc<G>) -> Arc<Self> {
        Arc::new(Self { gate, state: Mutex::new(SlotState::Waiting(VecDeque::new())) })
    }

    /// Handles an event, or keeps it until the session is open. An event of an open session is counted before it is
    /// parsed. An event that comes earlier is parsed at once and counted when the session is open; at most
    /// [`MAX_EARLY`] such events are kept.
    pub(super) fn event(&self, event: Event, ack: Option<AckId>) -> Result<(), InvalidEvent> {
        self.receive(ReceivedEvent { event, ack, refusal: None })
    }

    /// Refuses an event that the node cannot convert to JSON. Such an event is counted like other events, and refused
    /// in the order in which the client sent its events.
    pub(super) fn refuse(&self, event: Event, ack: Option<AckId>, refusal: Refusal) -> Result<(), InvalidEvent> {
        self.receive(ReceivedEvent { event, ack, refusal: Some(Box::new(refusal)) })
    }

    fn receive(&self, heard: ReceivedEvent) -> Result<(), InvalidEvent> {
        let session = {
            let mut state = self.state.lock().expect("no thread panics while it holds this lock");
            match &mut *state {
                SlotState::Waiting(early) | SlotState::Draining(early) if early.len() >= MAX_EARLY => {
                    return Err(InvalidEvent::TooEarly);
                }
                SlotState::Waiting(early) | SlotState::Draining(early) => {
                    readable(&heard.event)?;
                    early.push_back(heard);
                    return Ok(());
                }
                SlotState::Open(session) => session.clone(),
                SlotState::Ended(..) => return Ok(()),
            }
        };
        if self.gate.permit(&session, &heard.event, heard.ack) {
            readable(&heard.event)?;
            self.handle(&session, heard);
        }
        Ok(())
    }

    /// Passes an event to the gate, which handles or refuses the event.
    fn handle(&self, session: &Arc<G::Client>, heard: ReceivedEvent) {
        let ReceivedEvent { event, ack, refusal } = heard;
        match refusal {
            None => self.gate.dispatch(session, event, ack),
            Some(refusal) => self.gate.refuse(session, &event, ack, *refusal),
        }
    }

    /// Opens the session, unless the client has already disconnected. `make` returns `None` if the client is refused
    /// after all.
    pub(super) fn open(&self, make: impl FnOnce() -> Option<Arc<G::Client>>) {
        if matches!(*self.state.lock().expect("no thread panics while it holds this lock"), SlotState::Ended(..)) {
            return;
        }
        let Some(session) = make() else {
            *self.state.lock().expect("no thread panics while it holds this lock") =
                SlotState::Ended("refused", EarlyEvents::new());
            return;
        };
        while let Some(heard) = self.next_early(&session) {
            if self.gate.permit(&session, &heard.event, heard.ack) {
                self.handle(&session, heard);
            }
        }
    }

    /// Returns the next event that came before the session was open. When no such event is left, the session becomes
    /// open, or its end is reported, and `None` is returned.
    fn next_early(&self, session: &Arc<G::Client>) -> Option<ReceivedEvent> {
        let mut state = self.state.lock().expect("no thread panics while it holds this lock");
        if let SlotState::Waiting(early) = &mut *state {
            *state = SlotState::Draining(std::mem::take(early));
        }
        match &mut *state {
            SlotState::Draining(early) => {
                if let Some(event) = early.pop_front() {
                    return Some(event);
                }
                *state = SlotState::Open(session.clone());
                None
            }
            SlotState::Ended(reason, early) => {
                if let Some(event) = early.pop_front() {
                    return Some(event);
                }
                let reason = *reason;
                drop(state);
                self.gate.closed(session, reason);
                None
            }
            SlotState::Waiting(_) | SlotState::Open(_) => None,
        }
    }

    /// Records that the client has disconnected.
    pub(super) fn end(&self, reason: &'static str) {
        let open = {
            let mut state = self.state.lock().expect("no thread panics while it holds this lock");
            let (early, open) = match &mut *state {
                SlotState::Waiting(early) | SlotState::Draining(early) => (std::mem::take(early), None),
                SlotState::Open(session) => (EarlyEvents::new(), Some(session.clone())),
                SlotState::Ended(..) => return,
            };
            *state = SlotState::Ended(reason, early);
            open
        };
        // If the session is still being opened, `next_early` notices the end and reports it.
        if let Some(session) = open {
            self.gate.closed(&session, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Handshake;
    use crate::error::Code;
    use crate::session::{ClientFacts, Link};

    /// Records what happens to a client.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Notes {
        fn add(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }

        fn all(&self) -> String {
            self.0.lock().unwrap().join(" ")
        }
    }

    impl Gate for Notes {
        type Admission = ();
        type Client = ();

        async fn admit(&self, _: &Arc<str>, _: &str, _: Handshake, _: &ClientFacts) -> Result<(), Refusal> {
            Ok(())
        }

        fn open(self: &Arc<Self>, (): (), _: &str, _: ClientFacts, _: Box<dyn Link>) -> Option<Arc<()>> {
            None
        }

        fn refuse(self: &Arc<Self>, _: &Arc<()>, event: &Event, _: Option<AckId>, refusal: Refusal) {
            self.add(&format!("{}:{}", event.name(), refusal.code));
        }

        fn dispatch(self: &Arc<Self>, _: &Arc<()>, event: Event, _: Option<AckId>) {
            self.add(event.name());
        }

        fn closed(self: &Arc<Self>, _: &Arc<()>, reason: &'static str) {
            self.add(reason);
        }
    }

    fn say(slot: &SessionSlot<Notes>, name: &str) {
        slot.event(Event::encode(name, [(); 0]).unwrap(), None).unwrap();
    }

    #[test]
    fn what_came_before_the_session_was_open_goes_first_even_when_the_client_is_gone_by_then() {
        let notes = Arc::<Notes>::default();
        let slot = SessionSlot::new(notes.clone());
        say(&slot, "early");
        slot.open(|| {
            // CONNECT has been queued: the client's next events come on another thread.
            say(&slot, "next");
            slot.end("gone");
            say(&slot, "late");
            Some(Arc::new(()))
        });
        slot.end("again");
        assert_eq!(notes.all(), "early next gone");
    }

    #[test]
    fn refused_events_keep_their_place_among_the_others() {
        let notes = Arc::<Notes>::default();
        let slot = SessionSlot::new(notes.clone());
        let refuse = |name: &str| {
            let event = Event::encode(name, [(); 0]).unwrap();
            slot.refuse(event, None, Refusal::new(Code::InvalidPayload, "no JSON")).unwrap();
        };
        say(&slot, "a");
        refuse("b");
        say(&slot, "c");
        slot.open(|| Some(Arc::new(())));
        refuse("d");
        say(&slot, "e");
        assert_eq!(notes.all(), "a b:INVALID_PAYLOAD c d:INVALID_PAYLOAD e");
    }

    #[test]
    fn who_is_gone_before_it_is_let_in_has_never_been_there() {
        let notes = Arc::<Notes>::default();
        let slot = SessionSlot::new(notes.clone());
        say(&slot, "early");
        slot.end("gone");
        slot.open(|| panic!("it is gone"));
        assert_eq!(notes.all(), "");
    }
}
