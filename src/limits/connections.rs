//! How often an address may connect.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bounded::{Key, Keyed};
use super::{Clock, Config, refusal};
use crate::contract::model::Contract;
use crate::error::Refusal;

/// Addresses that have a bucket of their own at a time, over all limits of the node: 18 MB at most.
///
/// 16 tables of 65,536 places of 17 bytes, each filled to 7/8, beyond which a table would double.
pub const MAX_ADDRESSES: usize = 16 * 57_344;

/// The rates of new connections.
pub struct ConnectionLimits {
    node: Option<Keyed>,
    namespaces: HashMap<Arc<str>, Vec<Keyed>>,
}

impl ConnectionLimits {
    /// The node's limit, and each contract's.
    pub(super) fn new(config: &Config, contracts: &[Arc<Contract>], clock: &Clock) -> Self {
        let with_limit = contracts.iter().filter_map(|contract| Some((contract, contract.limits.connections_per_ip?)));
        let count = with_limit.clone().count() + usize::from(config.connections_per_ip.is_some());
        let most = MAX_ADDRESSES / count.max(1);
        let mut namespaces: HashMap<_, Vec<_>> = HashMap::new();
        for (contract, rate) in with_limit {
            namespaces.entry(contract.namespace.clone()).or_default().push(Keyed::new(rate, most, clock));
        }
        Self { node: config.connections_per_ip.map(|rate| Keyed::new(rate, most, clock)), namespaces }
    }

    /// Counts one; the longest wait is told when several limits refuse.
    pub(super) fn check(&self, namespace: &str, ip: IpAddr) -> Result<(), Refusal> {
        let key = address_key(ip);
        let limits = self.node.iter().chain(self.namespaces.get(namespace).into_iter().flatten());
        let refused: Option<(Duration, &Keyed)> =
            limits.filter_map(|limit| Some((limit.check(key).err()?, limit))).max_by_key(|(wait, _)| *wait);
        refused.map_or(Ok(()), |(wait, limit)| Err(refusal("connections of this address", limit.rate, wait)))
    }

    /// Addresses that have a bucket now.
    pub(super) fn tracked(&self) -> usize {
        self.node.iter().chain(self.namespaces.values().flatten()).map(Keyed::tracked).sum()
    }
}

/// IPv4: the address, in the neighbourhood of its /16. IPv6: the /64, in that of its /32.
///
/// An IPv4 address written as IPv6 is the IPv4 address. The two cannot be mixed up: IPv6 prefixes that begin with
/// 32 zero bits are not routed.
fn address_key(ip: IpAddr) -> Key {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let id = u64::from(ip.to_bits());
            Key { id, neighbourhood: id >> 16 }
        }
        IpAddr::V6(ip) => {
            let id = u64::try_from(ip.to_bits() >> 64).expect("64 bits are left");
            Key { id, neighbourhood: id >> 32 << 16 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: &str) -> (ConnectionLimits, Clock) {
        let clock = Clock::fake();
        let config = Config { connections_per_ip: Some(rate.parse().unwrap()), ..Config::default() };
        (ConnectionLimits::new(&config, &[], &clock), clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn eleventh_connection_of_a_minute_is_refused_with_the_time_to_wait() {
        let (limits, clock) = limits("10/1m");
        for _ in 0..10 {
            assert!(limits.check("/", ip("192.0.2.1")).is_ok());
        }
        let refusal = limits.check("/", ip("192.0.2.1")).unwrap_err();
        assert_eq!(refusal.code, crate::error::Code::RateLimitExceeded);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(6)));
        assert!(limits.check("/", ip("192.0.2.2")).is_ok());
        clock.advance(Duration::from_secs(60));
        assert!(limits.check("/", ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_is_counted_by_64_and_mapped_ipv4_as_ipv4() {
        let (limits, _) = limits("1/1m");
        assert!(limits.check("/", ip("2001:db8:1:2::1")).is_ok());
        assert!(limits.check("/", ip("2001:db8:1:2:ffff::2")).is_err());
        assert!(limits.check("/", ip("2001:db8:1:3::1")).is_ok());
        assert!(limits.check("/", ip("::ffff:192.0.2.1")).is_ok());
        assert!(limits.check("/", ip("192.0.2.1")).is_err());
    }

    #[test]
    fn million_addresses_stay_within_the_bound() {
        let (limits, _) = limits("10/1m");
        for n in 0..1_100_000_u32 {
            let _ = limits.check("/", IpAddr::V4((0x0a00_0000 + n).into()));
        }
        assert!(limits.tracked() <= MAX_ADDRESSES);
        assert!(limits.tracked() > MAX_ADDRESSES * 9 / 10);
    }
}
