//! Reserves the connections that the node may have.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Hub;
use crate::engine::edge::refusal::RequestRefusal;

/// A reservation for one of the connections that the node may have.
pub struct ConnectionPermit {
    /// `None`: the connection has been opened, and [`Hub::leave`] ends the reservation.
    hub: Option<Arc<Hub>>,
    ip: IpAddr,
}

impl Hub {
    /// Reserves a connection for one more client with this address. `max` is the node's limit on connections; 0 means
    /// no limit.
    pub(in crate::engine::edge) fn take_permit(
        self: &Arc<Self>,
        ip: IpAddr,
        max: u64,
    ) -> Result<ConnectionPermit, RequestRefusal> {
        let fits = |open| (max == 0 || open < max).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| RequestRefusal::Crowded)?;
        if let Err(refusal) = self.limits.arrive(ip) {
            less(&self.open);
            return Err(RequestRefusal::Limited(refusal));
        }
        Ok(ConnectionPermit { hub: Some(self.clone()), ip })
    }

    pub(super) fn give_back(&self, ip: IpAddr) {
        less(&self.open);
        self.limits.left(ip);
    }
}

/// Subtracts one from the number of connections.
pub(super) fn less(count: &AtomicU64) {
    let before = count.fetch_sub(1, Ordering::Relaxed);
    debug_assert!(before > 0, "a connection that was not counted has ended");
}

impl ConnectionPermit {
    /// Keeps the reservation until [`Hub::leave`] ends it.
    pub(in crate::engine::edge) fn keep(mut self) -> Arc<Hub> {
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
