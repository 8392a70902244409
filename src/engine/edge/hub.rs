//! The connections of this node below Socket.IO: one for each client, whatever namespaces it is in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use prometheus::IntGaugeVec;

use super::binding::Mark;
use super::refusal::TurnedAway;
use crate::engine::conn::KillSwitch;
use crate::engine::outstanding::{Bounds, Outstanding};
use crate::forward::Forwarder;
use crate::limits::Limits;
use crate::session::Peer;
use crate::telemetry::metrics::{Metrics, count};

/// For so long a polling client whose connection we closed is told so; then its session is merely unknown.
const REMEMBER_CLOSED: Duration = Duration::from_secs(30);

/// A polling client that is between two polls has so long to fetch what is queued for it, before its session is closed.
const LAST_POLL: Duration = Duration::from_secs(2);

/// A poll that finds something queued is answered within this; how often a session that closes is looked at.
const ANSWERED: Duration = Duration::from_millis(50);

/// What is queued for a WebSocket of the library has so long to leave when it is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whoever has written nothing for so long, although nothing holds it up, has written everything.
const WRITTEN: Duration = Duration::from_millis(10);

/// A polling client whose session is closed comes for the news within this, or never.
const NEWS: Duration = Duration::from_secs(3);

/// At most so many closed polling sessions are remembered.
const MAX_CLOSED: usize = 65_536;

/// Sends what closes a polling session.
type Closer = Box<dyn Fn(&str) -> BoxFuture<'static, ()> + Send + Sync>;

/// Counts connections, and finds those that poll by their ids.
pub struct Hub {
    limits: Arc<Limits>,
    forwarder: Arc<Forwarder>,
    bounds: Bounds,
    open: AtomicU64,
    closing: AtomicU64,
    refuses: AtomicBool,
    numbers: AtomicU64,
    sessions: Mutex<HashMap<u64, Weak<EngineSession>>>,
    /// By their ids on the wire, which only their clients know.
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
    /// For clients of the library only.
    outstanding: OnceLock<Arc<Outstanding>>,
    polling: OnceLock<Box<Polling>>,
    closing: AtomicBool,
    /// Polls that wait now, and all that ever came.
    polls: AtomicU64,
    polled: AtomicU64,
    /// A body is on its way.
    posts: AtomicBool,
    /// It is over: its place was given back.
    over: AtomicBool,
}

/// What is known of a session that began by polling.
struct Polling {
    /// Its id in the engine, which is its Socket.IO id.
    inner: String,
    /// Its id on the wire.
    outer: String,
    mark: Mark,
}

/// Knows how much waits to be written to a client.
pub trait Backlog: Send + Sync {
    /// Packets, and their bytes.
    fn waiting(&self) -> (usize, usize);

    /// Whether compression was agreed on with the client.
    fn compresses(&self) -> bool;
}

/// A place among the connections that a node may have.
pub struct Place {
    hub: Arc<Hub>,
    ip: IpAddr,
}

impl Hub {
    /// Nobody is connected; so much may wait for each client.
    pub(in crate::engine) fn new(limits: Arc<Limits>, forwarder: Arc<Forwarder>, bounds: Bounds) -> Self {
        Self {
            limits,
            forwarder,
            bounds,
            open: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            closing: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            sessions: Mutex::default(),
            polling: Mutex::default(),
            closed: Mutex::default(),
            closer: OnceLock::new(),
        }
    }

    /// The limits on connections.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

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
        let (mut packets, mut bytes, mut longest) = (0, 0, (0, 0));
        for session in &sessions {
            let (count, size) = session.waiting();
            packets += count;
            bytes += size;
            longest = (count.max(longest.0), size.max(longest.1));
        }
        let websockets = sessions.iter().filter(|session| session.is_websocket()).count();
        let compressed = sessions.iter().filter_map(|session| session.backlog.get()?.upgrade());
        let compressed = compressed.filter(|backlog| backlog.compresses()).count();
        let set = |gauge: &IntGaugeVec, number| gauge.with_label_values::<&str>(&[]).set(count(number));
        set(&metrics.websockets_compressed, compressed);
        set(&metrics.queue_packets, packets);
        set(&metrics.queue_bytes, bytes);
        set(&metrics.queue_longest_packets, longest.0);
        set(&metrics.queue_longest_bytes, longest.1);
        metrics.transports.with_label_values(&["websocket"]).set(count(websockets));
        metrics.transports.with_label_values(&["polling"]).set(count(sessions.len() - websockets));
    }

    /// A place for one more client of an address; `max` 0 means no limit for the node.
    pub(super) fn take_place(self: &Arc<Self>, ip: IpAddr, max: u64) -> Result<Place, TurnedAway> {
        let fits = |open| (max == 0 || open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| TurnedAway::Crowded)?;
        if let Err(refusal) = self.limits.arrive(ip) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(TurnedAway::Limited(refusal));
        }
        Ok(Place { hub: self.clone(), ip })
    }

    fn give_back(&self, ip: IpAddr) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.limits.left(ip);
    }

    /// Notes a session that began by polling. Returns its id on the wire.
    pub(super) fn remember(&self, inner: &str, mark: Mark, session: &Arc<EngineSession>) -> String {
        let outer = self.forwarder.new_sid();
        let polling = Box::new(Polling { inner: inner.to_owned(), outer: outer.clone(), mark });
        if session.polling.set(polling).is_ok() {
            self.polling.lock().expect("no panic while held").insert(outer.clone(), Arc::downgrade(session));
        }
        outer
    }

    /// A session that began by polling, by its id on the wire.
    pub(super) fn session(&self, outer: &str) -> Option<Arc<EngineSession>> {
        self.polling.lock().expect("no panic while held").get(outer)?.upgrade()
    }

    /// Whether a session that began by polling is here, or was until a short while ago.
    pub(super) fn knows(&self, outer: &str) -> bool {
        self.session(outer).is_some() || self.closed.lock().expect("no panic while held").contains_key(outer)
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

    async fn close_polling(&self, inner: &str, outer: &str, untold: bool) {
        self.note_closed(outer, untold);
        if let Some(closer) = self.closer.get() {
            closer(inner).await;
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
            outstanding: OnceLock::new(),
            polling: OnceLock::new(),
            closing: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            polled: AtomicU64::new(0),
            posts: AtomicBool::new(false),
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

    /// The id that the engine knows the session by, if a request with this mark may use it.
    pub(super) fn inner_sid(&self, request: Mark, websocket: bool) -> Option<&str> {
        let polling = self.polling.get()?;
        polling.mark.permits(request, websocket).then_some(polling.inner.as_str())
    }

    /// The id that others may know it by, of one that began by polling.
    pub(super) fn public_id(&self) -> Option<&str> {
        self.polling.get().map(|polling| polling.inner.as_str())
    }

    /// Notes that the session moves to a WebSocket.
    pub(super) fn upgrading(&self, kill: &Arc<KillSwitch>) {
        *self.websocket.lock().expect("no panic while held") = Some(Arc::downgrade(kill));
        // One that opens while we close the session closes with it.
        if self.is_closing() {
            kill.close();
        }
        if let Some(outstanding) = self.outstanding.get() {
            kill.count_for(outstanding);
        }
    }

    /// What waits for a client of the library, counted from the first call on.
    pub(in crate::engine) fn outstanding(&self) -> Arc<Outstanding> {
        let outstanding = self.outstanding.get_or_init(|| Arc::new(Outstanding::new(self.hub.bounds)));
        let websocket = self.websocket.lock().expect("no panic while held").clone();
        if let Some(kill) = websocket.as_ref().and_then(Weak::upgrade) {
            kill.count_for(outstanding);
        }
        outstanding.clone()
    }

    /// Packets that wait for the client, as far as that can be known, and their bytes.
    fn waiting(&self) -> (usize, usize) {
        match self.backlog.get().and_then(Weak::upgrade) {
            Some(backlog) => backlog.waiting(),
            None => (0, self.outstanding.get().map_or(0, |outstanding| outstanding.waiting())),
        }
    }

    /// The client has fetched a body of so many bytes, if that is known.
    pub(super) fn fetched(&self, bytes: Option<u64>) {
        match (self.outstanding.get(), bytes) {
            (Some(outstanding), Some(bytes)) => outstanding.left(bytes),
            (Some(outstanding), None) => outstanding.drained(),
            (None, _) => {}
        }
    }

    /// Notes that the client polls, for as long as what is returned lives.
    pub(super) fn polling(self: &Arc<Self>) -> Poll {
        self.polls.fetch_add(1, Ordering::AcqRel);
        self.polled.fetch_add(1, Ordering::AcqRel);
        Poll(self.clone())
    }

    /// Notes that the client sends a body, for as long as what is returned lives. A client has one on its way at a time: each
    /// may be as long as a message, and come slowly.
    pub(super) fn posting(self: &Arc<Self>) -> Result<Posting, Overlap> {
        if self.posts.swap(true, Ordering::AcqRel) { Err(Overlap) } else { Ok(Posting(self.clone())) }
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
        match (&kill, self.outstanding.get()) {
            (Some(kill), Some(outstanding)) => {
                tokio::spawn(close_after(outstanding.clone(), Arc::downgrade(kill)));
            }
            (Some(kill), None) => kill.close(),
            (None, _) => {}
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
        self.hub.give_back(self.peer.ip);
        if self.is_closing() {
            self.hub.closing.fetch_sub(1, Ordering::Relaxed);
        }
        self.hub.sessions.lock().expect("no panic while held").remove(&self.number);
        if let Some(polling) = self.polling.get() {
            self.hub.polling.lock().expect("no panic while held").remove(&polling.outer);
        }
    }
}

/// Sees to it that a session that we close comes to its end.
async fn see_off(session: Weak<EngineSession>, websocket: Option<Weak<KillSwitch>>) {
    let of = |session: Arc<EngineSession>| {
        let ids = session.polling.get().map(|polling| (polling.inner.clone(), polling.outer.clone()));
        (session.hub.clone(), ids)
    };
    let Some((hub, ids)) = session.upgrade().map(of) else { return };
    if let Some((inner, outer)) = ids {
        if websocket.is_none() {
            let by = Instant::now() + LAST_POLL;
            let polled = session.upgrade().map_or(0, |session| session.polled.load(Ordering::Acquire));
            while session.upgrade().is_some_and(|session| !session.is_fetched(polled)) && Instant::now() < by {
                tokio::time::sleep(ANSWERED).await;
            }
        }
        // If the session has moved to its WebSocket, the engine refuses this, and nothing happens.
        hub.close_polling(&inner, &outer, websocket.is_none()).await;
    }
    while websocket.as_ref().is_some_and(|websocket| websocket.strong_count() > 0) {
        tokio::time::sleep(ANSWERED).await;
    }
    if let Some(session) = session.upgrade() {
        session.end();
    }
}

/// Closes a client's WebSocket in the library when what is queued has left, or cannot leave. As soon as the library sees the
/// end of what it reads, it writes no more.
async fn close_after(outstanding: Arc<Outstanding>, websocket: Weak<KillSwitch>) {
    let by = Instant::now() + LAST_WORDS;
    let mut left = None;
    // What leaves has frames around it, so nothing waits a little earlier than everything has left.
    while !outstanding.is_blocked() && Instant::now() < by {
        let now = outstanding.departed();
        if outstanding.waiting() == 0 && left == Some(now) {
            break;
        }
        left = Some(now);
        tokio::time::sleep(WRITTEN).await;
    }
    if let Some(kill) = websocket.upgrade() {
        kill.close();
    }
}

/// A body of a client that is on its way.
pub(super) struct Posting(Arc<EngineSession>);

/// There is one already.
#[derive(Debug)]
pub(super) struct Overlap;

impl Drop for Posting {
    fn drop(&mut self) {
        self.0.posts.store(false, Ordering::Release);
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
        self.hub.give_back(self.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::engine::edge::binding::Binding;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn peer() -> Peer {
        Peer { ip: IP, transport: "polling", user_agent: None }
    }

    fn hub(max_connections_per_ip: u32) -> Arc<Hub> {
        let limits = config::Limits { max_connections_per_ip, ..config::Limits::default() };
        let bounds = Bounds { packets: 1, bytes: 1 };
        let forwarder = Forwarder::alone(Arc::default());
        Arc::new(Hub::new(Arc::new(Limits::new(&limits, &[], Arc::default())), forwarder, bounds))
    }

    fn mark(ip: &str) -> Mark {
        Binding::new(true, &[]).mark(ip.parse().unwrap(), &http::Uri::from_static("/"), &http::HeaderMap::new())
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let hub = hub(0);
        let first = EngineSession::new(peer(), None, hub.take_place(IP, 2).unwrap());
        let second = hub.take_place(IP, 2).unwrap();
        assert!(matches!(hub.take_place(IP, 2), Err(TurnedAway::Crowded)));
        drop(second);
        let outer = hub.remember("abc", mark("127.0.0.1"), &first);
        assert!(hub.session(&outer).is_some());
        assert_eq!((hub.open(), hub.sessions().len()), (1, 1));
        drop(first);
        assert!(hub.session(&outer).is_none());
        assert_eq!((hub.open(), hub.sessions().len()), (0, 0));
    }

    #[test]
    fn places_of_an_address_are_limited_and_given_back() {
        let hub = hub(1);
        let first = hub.take_place(IP, 0).unwrap();
        assert!(matches!(hub.take_place(IP, 0), Err(TurnedAway::Limited(_))));
        assert_eq!(hub.open(), 1, "whoever is refused takes no place of the node");
        drop(first);
        let session = EngineSession::new(peer(), None, hub.take_place(IP, 0).unwrap());
        assert_eq!(hub.limits.present(), (1, 0));
        drop(session);
        assert_eq!((hub.open(), hub.limits.present()), (0, (0, 0)));
    }

    #[test]
    fn id_that_others_may_see_is_not_the_one_on_the_wire() {
        let hub = hub(0);
        let session = EngineSession::new(peer(), None, hub.take_place(IP, 0).unwrap());
        let own = mark("127.0.0.1");
        let outer = hub.remember("abc", own, &session);
        assert!(hub.session("abc").is_none());
        let found = hub.session(&outer).unwrap();
        assert_eq!(found.inner_sid(own, false), Some("abc"));
        assert_eq!(found.inner_sid(mark("192.0.2.1"), false), None);
    }
}
