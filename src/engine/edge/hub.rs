//! The Engine.IO connections of this node. A client has one connection, and may use it for any number of namespaces.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use prometheus::IntGaugeVec;

use super::refusal::RequestRefusal;
use super::session::EngineSession;
use super::sids::Sids;
use crate::forward::Forwarder;
use crate::limits::Limits;
use crate::telemetry::metrics::{Metrics, count};

/// Counts the connections of this node, and finds the sessions that requests name.
pub struct Hub {
    limits: Arc<Limits>,
    forwarder: Arc<Forwarder>,
    open: AtomicU64,
    closing: AtomicU64,
    refuses: AtomicBool,
    numbers: AtomicU64,
    sessions: Mutex<HashMap<u64, Weak<EngineSession>>>,
    sids: Sids,
}

/// A reservation for one of the connections that the node may have.
pub struct ConnectionPermit {
    /// `None`: the connection has been opened, and [`Hub::leave`] ends the reservation.
    hub: Option<Arc<Hub>>,
    ip: IpAddr,
}

impl Hub {
    /// A hub without connections, which updates the metrics of connections whenever the metrics are scraped.
    pub(in crate::engine) fn new(limits: Arc<Limits>, forwarder: Arc<Forwarder>, metrics: &Metrics) -> Arc<Self> {
        let hub = Arc::new(Self {
            limits,
            forwarder,
            open: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            closing: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            sessions: Mutex::default(),
            sids: Sids::default(),
        });
        let measured = Arc::downgrade(&hub);
        metrics.measure(move |metrics| {
            if let Some(hub) = measured.upgrade() {
                hub.measure(metrics);
            }
        });
        hub
    }

    /// The limits on connections.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The table of sessions by their ids.
    pub(super) fn sids(&self) -> &Sids {
        &self.sids
    }

    /// How many clients are connected.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Resolves when no client is connected. The listener cannot detect this, because it passes its WebSockets to the
    /// engine.
    pub async fn emptied(&self) {
        while self.open() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Closes every connection. The official client then reconnects, as a rule to another node.
    pub(in crate::engine) fn close_all(&self) {
        self.sessions().iter().for_each(|session| session.close());
    }

    /// Whether the node takes new clients.
    pub fn accepts(&self) -> bool {
        !self.refuses.load(Ordering::Relaxed)
    }

    /// Sets whether the node takes new clients. Connected clients stay.
    pub fn accept(&self, yes: bool) {
        self.refuses.store(!yes, Ordering::Relaxed);
    }

    /// How many clients are connected and are not being closed by this node.
    pub fn unasked(&self) -> u64 {
        self.open().saturating_sub(self.closing.load(Ordering::Relaxed))
    }

    /// How many polling clients have not yet been told that their sessions are closed.
    pub fn untold(&self) -> usize {
        self.sids.untold()
    }

    /// The sessions of all connections.
    pub fn sessions(&self) -> Vec<Arc<EngineSession>> {
        self.all().values().filter_map(Weak::upgrade).collect()
    }

    fn measure(&self, metrics: &Metrics) {
        let sessions = self.sessions();
        let (mut packets, mut bytes, mut longest) = (0, 0, (0, 0));
        let (mut websockets, mut compressed) = (0, 0);
        for connection in sessions.iter().filter_map(|session| session.connection()) {
            let (count, size) = connection.waiting();
            packets += count;
            bytes += size;
            longest = (count.max(longest.0), size.max(longest.1));
            websockets += usize::from(connection.is_websocket());
            compressed += usize::from(connection.compresses());
        }
        let set = |gauge: &IntGaugeVec, number| gauge.with_label_values::<&str>(&[]).set(count(number));
        set(&metrics.websockets_compressed, compressed);
        set(&metrics.queue_packets, packets);
        set(&metrics.queue_bytes, bytes);
        set(&metrics.queue_longest_packets, longest.0);
        set(&metrics.queue_longest_bytes, longest.1);
        metrics.transports.with_label_values(&["websocket"]).set(count(websockets));
        metrics.transports.with_label_values(&["polling"]).set(count(sessions.len() - websockets));
        let legacy = sessions.iter().filter(|session| session.peer().protocol == 3).count();
        metrics.protocols.with_label_values(&["3"]).set(count(legacy));
        metrics.protocols.with_label_values(&["4"]).set(count(sessions.len() - legacy));
    }

    /// Reserves a connection for one more client with this address. `max` is the node's limit on connections; 0 means
    /// no limit.
    pub(super) fn take_permit(self: &Arc<Self>, ip: IpAddr, max: u64) -> Result<ConnectionPermit, RequestRefusal> {
        let fits = |open| (max == 0 || open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| RequestRefusal::Crowded)?;
        if let Err(refusal) = self.limits.arrive(ip) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(RequestRefusal::Limited(refusal));
        }
        Ok(ConnectionPermit { hub: Some(self.clone()), ip })
    }

    fn give_back(&self, ip: IpAddr) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.limits.left(ip);
    }

    // === for the sessions ===

    /// Makes a session's id and adds it to the table. Any node can tell from the id which node has the session.
    pub(super) fn enter_sid(&self, session: &Arc<EngineSession>) -> Box<str> {
        let sid: Box<str> = self.forwarder.new_sid().into();
        self.sids.enter(&sid, session);
        sid
    }

    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn enter(&self, number: u64, session: &Arc<EngineSession>) {
        self.all().insert(number, Arc::downgrade(session));
    }

    pub(super) fn begin_closing(&self) {
        self.closing.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, number: u64, ip: IpAddr, was_closing: bool) {
        self.give_back(ip);
        if was_closing {
            self.closing.fetch_sub(1, Ordering::Relaxed);
        }
        self.all().remove(&number);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Weak<EngineSession>>> {
        self.sessions.lock().expect("no panic while held")
    }
}

impl ConnectionPermit {
    /// Keeps the reservation until [`Hub::leave`] ends it.
    pub(super) fn keep(mut self) -> Arc<Hub> {
        self.hub.take().expect("a place is kept once")
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(hub) = &self.hub {
            hub.give_back(self.ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Handshake;
    use crate::config;
    use crate::engine::edge::binding::{Binding, ClientFingerprint};
    use crate::engine::edge::sids::SidLookup;
    use crate::session::ClientFacts;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn peer() -> ClientFacts {
        ClientFacts { ip: IP, transport: "polling", protocol: 4, user_agent: None }
    }

    fn hub(max_connections_per_ip: u32) -> Arc<Hub> {
        let limits = config::LimitsSettings { max_connections_per_ip, ..config::LimitsSettings::default() };
        let limits = Arc::new(Limits::new(&limits, &[], Arc::default()));
        Hub::new(limits, Forwarder::alone(Arc::default()), &Metrics::new())
    }

    fn fingerprint(ip: &str) -> ClientFingerprint {
        Binding::new(true, &[]).fingerprint(ip.parse().unwrap(), &http::Uri::from_static("/"), &http::HeaderMap::new())
    }

    #[test]
    fn places_are_limited_and_given_back() {
        let hub = hub(0);
        let first = EngineSession::new(peer(), Handshake::default(), hub.take_permit(IP, 2).unwrap());
        let second = hub.take_permit(IP, 2).unwrap();
        assert!(matches!(hub.take_permit(IP, 2), Err(RequestRefusal::Crowded)));
        drop(second);
        let sid = first.assign_sid(fingerprint("127.0.0.1")).to_owned();
        assert!(matches!(hub.sids().find(&sid), SidLookup::Open(_)));
        assert_eq!((hub.open(), hub.sessions().len()), (1, 1));
        drop(first);
        assert!(matches!(hub.sids().find(&sid), SidLookup::Unknown));
        assert_eq!((hub.open(), hub.sessions().len()), (0, 0));
    }

    #[test]
    fn places_of_an_address_are_limited_and_given_back() {
        let hub = hub(1);
        let first = hub.take_permit(IP, 0).unwrap();
        assert!(matches!(hub.take_permit(IP, 0), Err(RequestRefusal::Limited(_))));
        assert_eq!(hub.open(), 1, "a client that is refused takes no place of the node");
        drop(first);
        let session = EngineSession::new(peer(), Handshake::default(), hub.take_permit(IP, 0).unwrap());
        assert_eq!(hub.limits.present(), (1, 0));
        drop(session);
        assert_eq!((hub.open(), hub.limits.present()), (0, (0, 0)));
    }

    #[test]
    fn a_session_is_for_requests_that_have_its_mark() {
        let hub = hub(0);
        let session = EngineSession::new(peer(), Handshake::default(), hub.take_permit(IP, 0).unwrap());
        let own = fingerprint("127.0.0.1");
        assert!(!session.permits(own, false), "no request names a session without an id");
        session.assign_sid(own);
        assert!(session.permits(own, false));
        assert!(!session.permits(fingerprint("192.0.2.1"), false));
    }
}
