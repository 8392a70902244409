//! The address at which other nodes reach this node's listener.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::config;

/// The node has no address that can be announced to the other nodes.
#[derive(Debug, thiserror::Error)]
#[error(
    "cluster.listen is on all addresses, and the host name {host:?} resolves to no address that other nodes can reach; set cluster.advertise"
)]
pub struct AdvertiseError {
    host: String,
    #[source]
    cause: Option<io::Error>,
}

/// Returns `cluster.advertise` if it is set, or else the bound address. If every address of the machine is bound, it
/// returns the first reachable address to which the machine's host name resolves. In a container that is the address of
/// the container.
///
/// # Errors
/// Returns an error if the host name resolves to nothing, or only to loopback addresses.
pub async fn advertised(config: &config::ClusterSettings, bound: SocketAddr) -> Result<String, AdvertiseError> {
    if let Some(address) = &config.advertise {
        return Ok(address.clone());
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound.to_string());
    }
    let host = host_name();
    let found = tokio::net::lookup_host((host.as_str(), bound.port())).await;
    match found.map(|mut found| found.find(|found| is_reachable(found.ip(), bound.is_ipv4()))) {
        Ok(Some(address)) => Ok(address.to_string()),
        Ok(None) => Err(AdvertiseError { host, cause: None }),
        Err(error) => Err(AdvertiseError { host, cause: Some(error) }),
    }
}

fn is_reachable(ip: IpAddr, ipv4_only: bool) -> bool {
    !ip.is_loopback() && !ip.is_unspecified() && (ip.is_ipv4() || !ipv4_only)
}

/// The machine's host name. Empty if the operating system returns no name.
fn host_name() -> String {
    let told =
        ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|file| std::fs::read_to_string(file).ok());
    told.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_configured_wins_then_what_is_bound() {
        let config = config::ClusterSettings {
            advertise: Some("node-1.internal:9".into()),
            ..config::ClusterSettings::default()
        };
        let every = "0.0.0.0:3002".parse().unwrap();
        assert_eq!(advertised(&config, every).await.unwrap(), "node-1.internal:9");
        let bound = "[::1]:3002".parse().unwrap();
        assert_eq!(advertised(&config::ClusterSettings::default(), bound).await.unwrap(), "[::1]:3002");
    }

    #[tokio::test]
    async fn a_node_that_binds_every_address_tells_one_that_others_reach_or_says_what_to_set() {
        let every = "0.0.0.0:3002".parse().unwrap();
        match advertised(&config::ClusterSettings::default(), every).await {
            Ok(address) => assert!(is_reachable(address.parse::<SocketAddr>().unwrap().ip(), true), "{address}"),
            Err(error) => assert!(error.to_string().ends_with("set cluster.advertise"), "{error}"),
        }
        assert!(!is_reachable("127.0.1.1".parse().unwrap(), false) && !is_reachable("fd00::1".parse().unwrap(), true));
        assert!(is_reachable("fd00::1".parse().unwrap(), false) && is_reachable("10.0.0.1".parse().unwrap(), true));
    }
}
