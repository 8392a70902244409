//! The connections of this node below Socket.IO: one for each client, whatever namespaces it is in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use prometheus::IntGaugeVec;

use crate::engine::conn::KillSwitch;
use crate::session::Peer;
use crate::telemetry::metrics::{Metrics, count};

/// For so long a polling client whose connection we closed is told so; then its session is merely unknown.
const REMEMBER_CLOSED: Duration = Duration::from_secs(30);

/// A polling client that is between two polls has so long to fetch what is queued for it, before its session is closed.
const LAST_POLL: Duration = Duration::from_secs(2);

/// A poll that finds something queued is answered within this; how often a session that closes is looked at.
const ANSWERED: Duration = Duration::from_millis(50);

/// A polling client whose session is closed comes for the news within this, or never.
const NEWS: Duration = Duration::from_secs(3);

/// At most so many closed polling sessions are remembered.
const MAX_CLOSED: usize = 65_536;

/// Sends what closes a polling session.
type Closer = Box<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

/// Counts connections, and finds those that poll by their ids.
#[derive(Default)]
pub struct Hub {
    open: AtomicU64,
    closing: AtomicU64,
    refuses: AtomicBool,
    numbers: AtomicU64,
    sessions: Mutex<HashMap<u64, Weak<EngineSession>>>,
    polling: Mutex<HashMap<String, Weak<EngineSession>>>,
    closed: Mutex<HashMap<String, Closed>>,
    closer: OnceLock<Closer>,
}

/// A polling session that we have closed.
struct Closed {
    at: Instant,
    /// The client polls, and does not know it yet.
    untold: bool,
}

/// A client's connection, from its handshake to its end. The engine keeps it among the handshake's extensions, so that
/// it lives exactly as long as the engine's own session.
pub struct EngineSession {
    peer: Peer,
    number: u64,
    hub: Arc<Hub>,
    // Weak: the connection itself keeps it, so that one that is gone can be told from one that is there.
    websocket: Mutex<Option<Weak<KillSwitch>>>,
    backlog: OnceLock<Weak<dyn Backlog>>,
    sid: OnceLock<String>,
    closing: AtomicBool,
    /// Polls that wait now, and all that ever came.
    polls: AtomicU64,
    polled: AtomicU64,
    /// It is over: its place was given back.
    over: AtomicBool,
}

/// Knows how much waits to be written to a client.
pub trait Backlog: Send + Sync {
    /// Packets, and their bytes.
    fn waiting(&self) -> (usize, usize);
}

/// A place among the connections that a node may have.
pub struct Place {
    hub: Arc<Hub>,
}

impl Hub {
    /// How many clients are connected.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Resolves when nobody is connected. The listener does not know: it has given WebSockets away.
    pub async fn emptied(&self) {
        while self.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether new clients are taken.
    pub fn accepts(&self) -> bool {
        !self.refuses.load(Ordering::Relaxed)
    }

    /// Whether new clients are taken from now on; those that are connected stay.
    pub fn accept(&self, yes: bool) {
        self.refuses.store(!yes, Ordering::Relaxed);
    }

    /// How many clients are connected, and were not told to go.
    pub fn unasked(&self) -> u64 {
        self.open().saturating_sub(self.closing.load(Ordering::Relaxed))
    }

    /// How many polling clients do not know yet that their sessions are closed.
    pub fn untold(&self) -> usize {
        let closed = self.closed.lock().expect("no panic while held");
        closed.values().filter(|closed| closed.untold && closed.at.elapsed() < NEWS).count()
    }

    /// Every connection.
    pub fn sessions(&self) -> Vec<Arc<EngineSession>> {
        self.sessions.lock().expect("no panic while held").values().filter_map(Weak::upgrade).collect()
    }

    /// Has the connections measured at every scrape.
    pub fn measured_by(self: &Arc<Self>, metrics: &Metrics) {
        let hub = Arc::downgrade(self);
        metrics.measure(move |metrics| {
            if let Some(hub) = hub.upgrade() {
                hub.measure(metrics);
            }
        });
    }

    fn measure(&self, metrics: &Metrics) {
        let sessions = self.sessions();
        let (mut packets, mut bytes, mut longest) = (0, 0, 0);
        for (waiting, size) in
            sessions.iter().filter_map(|session| session.backlog.get()?.upgrade()).map(|b| b.waiting())
        {
            packets += waiting;
            bytes += size;
            longest = waiting.max(longest);
        }
        let websockets = sessions.iter().filter(|session| session.is_websocket()).count();
        let set = |gauge: &IntGaugeVec, number| gauge.with_label_values::<&str>(&[]).set(count(number));
        set(&metrics.queue_packets, packets);
        set(&metrics.queue_bytes, bytes);
        set(&metrics.queue_longest_packets, longest);
        metrics.transports.with_label_values(&["websocket"]).set(count(websockets));
        metrics.transports.with_label_values(&["polling"]).set(count(sessions.len() - websockets));
    }

    /// A place for one more client; `max` 0 means no limit.
    pub(super) fn take_place(self: &Arc<Self>, max: u64) -> Option<Place> {
        let fits = |open| (max == 0 || open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Place { hub: self.clone() })
    }

    /// Notes the id of a session that began by polling.
    pub(super) fn remember(&self, sid: &str, session: &Arc<EngineSession>) {
        if session.sid.set(sid.to_owned()).is_ok() {
            self.polling.lock().expect("no panic while held").insert(sid.to_owned(), Arc::downgrade(session));
        }
    }

    /// A session that began by polling.
    pub(super) fn session(&self, sid: &str) -> Option<Arc<EngineSession>> {
        self.polling.lock().expect("no panic while held").get(sid)?.upgrade()
    }

    /// Whether we have closed a polling session a short while ago. Whoever polls is then told so.
    pub(super) fn was_closed(&self, sid: &str, polls: bool) -> bool {
        let mut closed = self.closed.lock().expect("no panic while held");
        let Some(closed) = closed.get_mut(sid).filter(|closed| closed.at.elapsed() < REMEMBER_CLOSED) else {
            return false;
        };
        closed.untold &= !polls;
        true
    }

    /// Sets what closes a polling session in the engine.
    pub(super) fn close_polling_by(&self, closer: impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        let _ = self.closer.set(Box::new(closer));
    }

    async fn close_polling(&self, sid: &str, untold: bool) {
        self.note_closed(sid, untold);
        if let Some(closer) = self.closer.get() {
            closer(sid).await;
        }
    }

    fn note_closed(&self, sid: &str, untold: bool) {
        let mut closed = self.closed.lock().expect("no panic while held");
        if closed.len() >= MAX_CLOSED {
            closed.retain(|_, closed| closed.at.elapsed() < REMEMBER_CLOSED);
        }
        if closed.len() < MAX_CLOSED {
            closed.insert(sid.to_owned(), Closed { at: Instant::now(), untold });
        }
    }
}

// === impl EngineSession ===

impl EngineSession {
    pub(super) fn new(peer: Peer, websocket: Option<Arc<KillSwitch>>, place: Place) -> Arc<Self> {
        let hub = place.hub.clone();
        // From here on the session gives the place back.
        std::mem::forget(place);
        let number = hub.numbers.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Self {
            peer,
            number,
            hub,
            websocket: Mutex::new(websocket.as_ref().map(Arc::downgrade)),
            backlog: OnceLock::new(),
            sid: OnceLock::new(),
            closing: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let mut sessions = session.hub.sessions.lock().expect("no panic while held");
        sessions.insert(number, Arc::downgrade(&session));
        drop(sessions);
        session
    }

    /// Who the client is, as its handshake said.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sets what knows how much waits for the client.
    pub(in crate::engine) fn measure_by<B: Backlog + 'static>(&self, backlog: &Arc<B>) {
        let backlog: Weak<B> = Arc::downgrade(backlog);
        let _ = self.backlog.set(backlog);
    }

    /// Notes that the session moves to a WebSocket.
    pub(super) fn upgrading(&self, kill: &Arc<KillSwitch>) {
        *self.websocket.lock().expect("no panic while held") = Some(Arc::downgrade(kill));
        // One that opens while we close the session closes with it.
        if self.is_closing() {
            kill.close();
        }
    }

    /// Notes that the client polls, for as long as what is returned lives.
    pub(super) fn polling(self: &Arc<Self>) -> Poll {
        self.polls.fetch_add(1, Ordering::AcqRel);
        self.polled.fetch_add(1, Ordering::AcqRel);
        Poll(self.clone())
    }

    /// Whether it is on a WebSocket, or moves to one.
    fn is_websocket(&self) -> bool {
        self.websocket.lock().expect("no panic while held").is_some()
    }

    /// Whether we are closing it.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Closes the connection, so that the official client sees `transport close` and returns. What is queued is sent before.
    /// Needs a Tokio runtime.
    pub fn close(self: &Arc<Self>) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.hub.closing.fetch_add(1, Ordering::Relaxed);
        let websocket = self.websocket.lock().expect("no panic while held").clone();
        let kill = websocket.as_ref().and_then(Weak::upgrade);
        if let Some(kill) = &kill {
            kill.close();
        }
        let is_polling = kill.is_none();
        drop(kill);
        // Weak: what ends by itself is not kept for this.
        tokio::spawn(see_off(Arc::downgrade(self), websocket.filter(|_| !is_polling)));
    }

    /// Whether a poll waits, or one has come since: then what was queued is on its way.
    fn is_fetched(&self, polled: u64) -> bool {
        self.polls.load(Ordering::Acquire) > 0 || self.polled.load(Ordering::Acquire) > polled
    }

    /// Gives the place back. The library keeps sessions that never connected to a namespace until their time is over,
    /// whatever has become of their connections.
    fn end(&self) {
        if self.over.swap(true, Ordering::AcqRel) {
            return;
        }
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
        if self.is_closing() {
            self.hub.closing.fetch_sub(1, Ordering::Relaxed);
        }
        self.hub.sessions.lock().expect("no panic while held").remove(&self.number);
        if let Some(sid) = self.sid.get() {
            self.hub.polling.lock().expect("no panic while held").remove(sid);
        }
    }
}

/// Sees to it that a session that we close comes to its end.
async fn see_off(session: Weak<EngineSession>, websocket: Option<Weak<KillSwitch>>) {
    let Some((hub, sid)) = session.upgrade().map(|session| (session.hub.clone(), session.sid.get().cloned())) else {
        return;
    };
    if let Some(sid) = sid {
        if websocket.is_none() {
            let by = Instant::now() + LAST_POLL;
            let polled = session.upgrade().map_or(0, |session| session.polled.load(Ordering::Acquire));
            while session.upgrade().is_some_and(|session| !session.is_fetched(polled)) && Instant::now() < by {
                tokio::time::sleep(ANSWERED).await;
            }
        }
        // If the session has moved to its WebSocket, the engine refuses this, and nothing happens.
        hub.close_polling(&sid, websocket.is_none()).await;
    }
    while websocket.as_ref().is_some_and(|websocket| websocket.strong_count() > 0) {
        tokio::time::sleep(ANSWERED).await;
    }
    if let Some(session) = session.upgrade() {
        session.end();
    }
}

/// A request of a client that waits for what is queued.
pub(super) struct Poll(Arc<EngineSession>);

impl Drop for Poll {
    fn drop(&mut self) {
        self.0.polls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for EngineSession {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn peer() -> Peer {
        Peer { ip: IpAddr::from([127, 0, 0, 1]), transport: "polling", user_agent: None }
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let hub = Arc::new(Hub::default());
        let first = EngineSession::new(peer(), None, hub.take_place(2).unwrap());
        let second = hub.take_place(2).unwrap();
        assert!(hub.take_place(2).is_none());
        drop(second);
        hub.remember("abc", &first);
        assert!(hub.session("abc").is_some());
        assert_eq!((hub.open(), hub.sessions().len()), (1, 1));
        drop(first);
        assert!(hub.session("abc").is_none());
        assert_eq!((hub.open(), hub.sessions().len()), (0, 0));
    }
}
