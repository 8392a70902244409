//! Reports clients that this node cannot serve because they speak another version of the protocol or use another
//! parser. Such a client learns little and reconnects again and again, so the node logs the cause.

use crate::session::ClientFacts;
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::Metrics;

/// Why a client cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incompatible {
    /// The client uses a version of Engine.IO other than 4, or than 3 where `server.allow_eio3` permits that.
    Protocol,
    /// The client encodes packets with a parser that the engine does not have.
    Parser,
}

/// Counts a client that cannot be served, and logs the cause. Each cause is logged at most once a second.
pub(super) fn note(what: Incompatible, peer: &ClientFacts, metrics: &Metrics) {
    let (client, user_agent) = (peer.ip, peer.user_agent.as_deref().unwrap_or_default());
    match what {
        Incompatible::Protocol => {
            metrics.incompatible_clients_total.with_label_values(&["protocol"]).inc();
            log_seldom!(
                warn,
                %client,
                user_agent,
                "a client speaks an older version of the protocol (EIO is not 4) and is refused; use socket.io-client 3 or 4, or permit clients of \
                 Socket.IO 2 with server.allow_eio3"
            );
        }
        Incompatible::Parser => {
            metrics.incompatible_clients_total.with_label_values(&["parser"]).inc();
            log_seldom!(
                warn,
                %client,
                user_agent,
                "a client encodes packets with an unknown parser and is disconnected; leave the client's option `parser` out, or use \
                 socket.io-msgpack-parser with the native engine"
            );
        }
    }
}
