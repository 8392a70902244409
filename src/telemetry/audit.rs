//! The audit log: what matters to security, on a target of its own, and never with a secret in it.
//!
//! Whoever attacks causes records: each kind has a rate of its own, and what is beyond is counted and not written. Records
//! take names, codes and addresses only; there is no field for a token, a key or a payload.

use std::net::IpAddr;
use std::time::Instant;

use tracing::Level;

use super::log_gate::LogGate;

/// The target of every record.
pub const TARGET: &str = "roomcast::audit";

/// At most so many records of a kind at once …
pub const BURST: u32 = 200;

/// … and so many a second after that.
pub const PER_SECOND: u32 = 20;

/// At most so many characters of a name are written.
const MAX_NAME: usize = 128;

macro_rules! kinds {
    ($( #[doc = $doc:literal] $kind:ident = $name:literal $level:ident; )*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $( #[doc = $doc] $kind, )* }

        impl Kind {
            /// All of them, for documents and tests.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )*];

            /// The value of `audit.event`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$kind => $name, )* }
            }

            /// The level of its records.
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
    /// A handshake's token does not hold, or is missing.
    TokenRejected = "token_rejected" warn;
    /// A handshake was refused for another reason.
    ConnectRefused = "connect_refused" warn;
    /// A one-room capability does not hold.
    CapabilityRejected = "capability_rejected" warn;
    /// A room's rule or hook said no.
    JoinRefused = "join_refused" warn;
    /// A limit was hit.
    LimitHit = "limit_hit" warn;
    /// A page of this origin may not connect.
    OriginRefused = "origin_refused" warn;
    /// A request came to `cluster.listen` that no node of the cluster sent now.
    ForwardRefused = "forward_refused" warn;
    /// Somebody used the id of another client's session.
    BindingFailed = "binding_failed" warn;
    /// A client that did not read was disconnected.
    SlowDisconnected = "slow_disconnected" warn;
    /// A newer token was not taken.
    RefreshRefused = "refresh_refused" warn;
    /// A newer token was taken.
    TokenRefreshed = "token_refreshed" info;
    /// A newer token cost a room.
    RoomLost = "room_lost" info;
    /// A socket was disconnected because its token no longer holds.
    SessionEnded = "session_ended" info;
    /// Users, tokens or sockets were revoked, or revocations taken back.
    Revoked = "revoked" info;
    /// A request of the API without a key for it.
    ApiDenied = "api_denied" warn;
    /// A request of the API that changes something.
    ApiCall = "api_call" info;
    /// A publish, an emit or a question of the API. Backends send many: they are shown on request only.
    ApiPublish = "api_publish" debug;
}

/// What a record says beside its kind; what is not known is left out.
#[derive(Debug, Default, Clone, Copy)]
pub struct Record<'a> {
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
    /// The client's event, as the contract knows it.
    pub name: Option<&'a str>,
    /// A code or reason: a word of the node's own.
    pub reason: Option<&'a str>,
    /// The name of the API key.
    pub key: Option<&'a str>,
    /// The API's route.
    pub route: Option<&'a str>,
    /// The API's answer.
    pub status: Option<u16>,
    /// The id of a token (`jti`, or its fingerprint): no secret.
    pub token: Option<&'a str>,
}

/// Writes a record, unless its level is not shown, or there were too many of its kind.
pub fn record(kind: Kind, record: Record<'_>) {
    // Before the rate: a record that nobody wants to see is not a missing one.
    if !is_shown(kind.level()) {
        return;
    }
    let Some(suppressed) = GATES[kind as usize].pass(Instant::now()) else { return };
    let ip = record.ip.map(tracing::field::display);
    let (nsp, user, socket, room) =
        (record.nsp.map(cut), record.user.map(cut), record.socket.map(cut), record.room.map(cut));
    let (name, reason, key) = (record.name.map(cut), record.reason, record.key.map(cut));
    let (route, status, token) = (record.route, record.status, record.token.map(cut));
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

/// How many records of a kind were not written since the process started.
pub fn suppressed(kind: Kind) -> u64 {
    GATES[kind as usize].suppressed()
}

fn cut(name: &str) -> &str {
    name.char_indices().nth(MAX_NAME).map_or(name, |(end, _)| &name[..end])
}

/// Each kind's rate.
static GATES: [LogGate; Kind::ALL.len()] = [const { LogGate::new(BURST, PER_SECOND) }; Kind::ALL.len()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_gate_and_a_row_on_the_page() {
        let page = include_str!("../../docs/audit.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} |", kind.as_str(), kind.level().as_str().to_lowercase());
            assert!(page.contains(&row), "docs/audit.md lacks {row}");
            assert!(GATES.get(*kind as usize).is_some());
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(cut(&"é".repeat(300)).chars().count(), MAX_NAME);
        assert_eq!(cut("ada"), "ada");
    }
}
