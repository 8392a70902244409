//! The audit log: records of security events, under a target of their own. Records never hold secrets.
//!
//! An attacker can cause records. So each kind has a rate limit; records beyond it are counted and not written. A
//! record holds names, codes and addresses only. It has no field for a token, a key or a payload.

use std::net::IpAddr;
use std::sync::LazyLock;

use tracing::Level;

use super::log_limit::LogLimit;

/// The log target of every audit record.
pub const TARGET: &str = "roomcast::audit";

/// Maximum number of records of one kind in a burst.
pub const BURST: u32 = 200;

/// Number of records of one kind per second after a burst.
pub const PER_SECOND: u32 = 20;

/// Maximum length of a name in a record, in characters.
const MAX_NAME: usize = 128;

macro_rules! kinds {
    ($( #[doc = $doc:literal] $kind:ident = $name:literal $level:ident; )*) => {
        /// The kinds of events that are recorded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum AuditEvent { $( #[doc = $doc] $kind, )* }

        impl AuditEvent {
            /// All kinds, for documents and tests.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            /// The value of `audit.event`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$kind => $name, )* }
            }

            /// The log level of records of this kind.
            pub const fn level(self) -> Level {
                match self { $( Self::$kind => kinds!(@level $level), )* }
            }
        }
    };
    (@level warn) => { Level::WARN };
    (@level info) => { Level::INFO };
    (@level debug) => { Level::DEBUG };
}

kinds! {
    /// The token of a handshake is invalid or missing.
    TokenRejected = "token_rejected" warn;
    /// A handshake was refused for another reason.
    ConnectRefused = "connect_refused" warn;
    /// A one-room capability is invalid.
    CapabilityRejected = "capability_rejected" warn;
    /// The rule or the hook of a room refused a join.
    JoinRefused = "join_refused" warn;
    /// A client exceeded a limit.
    LimitHit = "limit_hit" warn;
    /// A page of this origin is not allowed to connect.
    OriginRefused = "origin_refused" warn;
    /// A request to `cluster.listen` has no valid, recent and unused signature of a node of the cluster.
    ForwardRefused = "forward_refused" warn;
    /// A client used the id of another client's session.
    BindingFailed = "binding_failed" warn;
    /// A client was disconnected because it did not read.
    SlowDisconnected = "slow_disconnected" warn;
    /// A newer token from a client was refused.
    RefreshRefused = "refresh_refused" warn;
    /// A newer token from a client was accepted.
    TokenRefreshed = "token_refreshed" info;
    /// A client left a room because its newer token does not permit it.
    RoomLost = "room_lost" info;
    /// A socket was disconnected because its token is no longer valid.
    SessionEnded = "session_ended" info;
    /// Users, tokens or sockets were revoked, or revocations were lifted.
    Revoked = "revoked" info;
    /// A request to the API had no key that permits the request.
    ApiDenied = "api_denied" warn;
    /// A request to the API that changes something.
    ApiCall = "api_call" info;
    /// A publish, emit or question through the API. Recorded at `debug`, because backends send many.
    ApiPublish = "api_publish" debug;
}

/// The fields of a record besides its kind. Fields whose value is not known are left out.
#[derive(Debug, Default, Clone, Copy)]
pub struct AuditRecord<'a> {
    /// The namespace.
    pub nsp: Option<&'a str>,
    /// The user's id.
    pub user: Option<&'a str>,
    /// The socket's id.
    pub socket: Option<&'a str>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// The room.
    pub room: Option<&'a str>,
    /// The client's event, by its name in the contract.
    pub name: Option<&'a str>,
    /// A code or reason. Always one of the node's own words, never text from outside.
    pub reason: Option<&'a str>,
    /// The name of the API key.
    pub key: Option<&'a str>,
    /// The route of the API request.
    pub route: Option<&'a str>,
    /// The HTTP status that the API answered.
    pub status: Option<u16>,
    /// The id of a token (`jti`, or its fingerprint). It is not a secret.
    pub token: Option<&'a str>,
}

/// Writes a record, unless its level is not shown or its kind has exceeded its rate.
pub fn record(kind: AuditEvent, record: AuditRecord<'_>) {
    // Checked before the rate: a record that is not shown must not count as suppressed.
    if !is_shown(kind.level()) {
        return;
    }
    let Some(suppressed) = GATES[kind as usize].pass() else { return };
    let ip = record.ip.map(tracing::field::display);
    let (nsp, user, socket, room) =
        (record.nsp.map(shorten), record.user.map(shorten), record.socket.map(shorten), record.room.map(shorten));
    let (name, reason, key) = (record.name.map(shorten), record.reason, record.key.map(shorten));
    let (route, status, token) = (record.route, record.status, record.token.map(shorten));
    let suppressed = (suppressed > 0).then_some(suppressed);
    macro_rules! write {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                target: TARGET,
                {
                audit.event = kind.as_str(),
                client.nsp = nsp,
                client.user = user,
                client.socket = socket,
                client.ip = ip,
                client.room = room,
                client.event = name,
                audit.reason = reason,
                api.key = key,
                api.route = route,
                http.status = status,
                token.id = token,
                audit.suppressed = suppressed },
                $text
            )
        };
    }
    match kind.level() {
        Level::WARN => write!(warn, "refused"),
        Level::INFO => write!(info, "done"),
        _ => write!(debug, "done"),
    }
}

fn is_shown(level: Level) -> bool {
    match level {
        Level::WARN => tracing::enabled!(target: TARGET, Level::WARN),
        Level::INFO => tracing::enabled!(target: TARGET, Level::INFO),
        _ => tracing::enabled!(target: TARGET, Level::DEBUG),
    }
}

/// How many records of a kind exceeded the rate since the process started.
pub fn suppressed(kind: AuditEvent) -> u64 {
    GATES[kind as usize].suppressed()
}

fn shorten(name: &str) -> &str {
    name.char_indices().nth(MAX_NAME).map_or(name, |(end, _)| &name[..end])
}

/// The rate limit of each kind.
static GATES: LazyLock<[LogLimit; AuditEvent::ALL.len()]> =
    LazyLock::new(|| std::array::from_fn(|_| LogLimit::new(BURST, PER_SECOND)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_gate_and_a_row_on_the_page() {
        let page = include_str!("../../docs/audit.md");
        for kind in AuditEvent::ALL {
            let row = format!("| `{}` | {} |", kind.as_str(), kind.level().as_str().to_lowercase());
            assert!(page.contains(&row), "docs/audit.md lacks {row}");
            assert!(GATES.get(*kind as usize).is_some());
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(shorten(&"é".repeat(300)).chars().count(), MAX_NAME);
        assert_eq!(shorten("ada"), "ada");
    }
}
