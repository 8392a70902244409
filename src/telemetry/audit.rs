//! The audit log: what matters to security, on a target of its own, and never with a secret in it.
//!
//! Whoever attacks causes records: each kind has a rate of its own, and what is beyond is counted and not written. Records
//! take names, codes and addresses only; there is no field for a token, a key or a payload.

use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

            fn is_refusal(self) -> bool {
                match self { $( Self::$kind => kinds!(@refusal $level), )* }
            }
        }
    };
    (@refusal warn) => { true };
    (@refusal info) => { false };
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
    /// A publish by the API.
    ApiPublish = "api_publish" info;
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

/// Writes a record, unless there were too many of its kind.
pub fn record(kind: Kind, record: Record<'_>) {
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
    if kind.is_refusal() {
        write!(warn, "refused");
    } else {
        write!(info, "done");
    }
}

/// How many records of a kind were not written since the process started.
pub fn suppressed(kind: Kind) -> u64 {
    GATES[kind as usize].suppressed.load(Ordering::Relaxed)
}

fn cut(name: &str) -> &str {
    name.char_indices().nth(MAX_NAME).map_or(name, |(end, _)| &name[..end])
}

/// One kind's rate: of the process, because the disk is the process's.
struct Gate {
    state: Mutex<Option<Bucket>>,
    suppressed: AtomicU64,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// In units of 1/`PER_SECOND` s.
    tokens: f64,
    at: Instant,
    /// Not written since the last that was.
    missed: u64,
}

static GATES: [Gate; Kind::ALL.len()] =
    [const { Gate { state: Mutex::new(None), suppressed: AtomicU64::new(0) } }; Kind::ALL.len()];

impl Gate {
    /// How many were suppressed before this one; `None`: this one is, too.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().expect("no panic while held");
        let bucket = state.get_or_insert(Bucket { tokens: f64::from(BURST), at: now, missed: 0 });
        let since = now.saturating_duration_since(bucket.at).min(Duration::from_secs(3600));
        bucket.tokens = (bucket.tokens + since.as_secs_f64() * f64::from(PER_SECOND)).min(f64::from(BURST));
        bucket.at = bucket.at.max(now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Some(std::mem::take(&mut bucket.missed));
        }
        bucket.missed += 1;
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_is_bounded_and_counted() {
        let gate = Gate { state: Mutex::new(None), suppressed: AtomicU64::new(0) };
        let start = Instant::now();
        let written = (0..100_000).filter(|_| gate.pass(start).is_some()).count();
        assert_eq!(written, BURST as usize);
        assert_eq!(gate.suppressed.load(Ordering::Relaxed), 100_000 - u64::from(BURST));
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Some(100_000 - u64::from(BURST)), "the next record says how many it stands for");
        assert_eq!((0..1000).filter(|_| gate.pass(later).is_some()).count(), PER_SECOND as usize - 1);
    }

    #[test]
    fn every_kind_has_a_gate_and_a_row_on_the_page() {
        let page = include_str!("../../docs/audit.md");
        for kind in Kind::ALL {
            assert!(page.contains(&format!("| `{}` |", kind.as_str())), "docs/audit.md lacks {}", kind.as_str());
            assert!(GATES.get(*kind as usize).is_some());
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        assert_eq!(cut(&"é".repeat(300)).chars().count(), MAX_NAME);
        assert_eq!(cut("ada"), "ada");
    }
}
