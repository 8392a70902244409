//! The Engine.IO connections of this node. A client has one connection, and may use it for any number of namespaces.

mod measure;
mod permit;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

pub use permit::ConnectionPermit;

use super::session::EngineSession;
use super::sids::Sids;
use crate::forward::Forwarder;
use crate::limits::Limits;
use crate::telemetry::metrics::Metrics;

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

impl Hub {
    /// Creates a hub without connections, which updates the metrics of connections whenever the metrics are scraped.
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

    // === for the sessions ===

    /// Makes a session's id and adds the session to the table. Any node can tell from the id which node has the
    /// session.
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
            permit::less(&self.closing);
        }
        self.all().remove(&number);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Weak<EngineSession>>> {
        self.sessions.lock().expect("no thread panics while it holds this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Handshake;
    use crate::config;
    use crate::engine::edge::binding::{Binding, ClientFingerprint};
    use crate::engine::edge::refusal::RequestRefusal;
    use crate::engine::edge::sids::SidLookup;
    use crate::session::ClientFacts;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn peer() -> ClientFacts {
        ClientFacts { ip: IP, transport: "polling", protocol: 4, user_agent: None, handshake: None }
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
