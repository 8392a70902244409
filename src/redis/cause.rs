//! Why Redis, or a part of Redis that the node needs, does not work: a kind of failure for metrics, and a sentence for
//! people.

use std::fmt;

use fred::error::{Error, ErrorKind};

/// Maximum length of a server's text, in characters. Longer texts are cut.
const MAX_TEXT: usize = 200;

/// The kind of a failure, which is its label in metrics and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CauseKind {
    /// There is no connection yet, or the subscriptions are not confirmed yet, and no error has been seen.
    Starting,
    /// The user or the password is missing or not accepted.
    WrongPassword,
    /// The host's name has no address.
    UnknownHost,
    /// No server listens at the address.
    Refused,
    /// The connection was closed, or reset.
    Lost,
    /// A connection attempt or a command was not answered before its time-out.
    Timeout,
    /// TLS failed: the certificate is not trusted, or one side does not speak TLS.
    Tls,
    /// The user has no right to a command, a key or a channel.
    NoRight,
    /// The server is a replica, which accepts no writes.
    ReadOnly,
    /// The server's memory is full and its policy allows no key to be evicted.
    OutOfMemory,
    /// The server's last snapshot failed, and the server accepts no writes until a snapshot succeeds.
    Misconf,
    /// The server has fewer replicas than its configuration requires for writes.
    NoReplicas,
    /// The server is loading its data.
    Loading,
    /// Nodes cannot use the server: the server is too old, or is a sentinel, or belongs to a cluster although the URL
    /// names a single server, or the reverse.
    WrongServer,
    /// The sentinels cannot be reached, or no sentinel knows a primary of the configured name.
    Sentinel,
    /// Redis accepts the messages that the node sends to itself, but does not deliver them.
    Deaf,
    /// Any other error from a server.
    Other,
}

impl CauseKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Starting,
        Self::WrongPassword,
        Self::UnknownHost,
        Self::Refused,
        Self::Lost,
        Self::Timeout,
        Self::Tls,
        Self::NoRight,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Misconf,
        Self::NoReplicas,
        Self::Loading,
        Self::WrongServer,
        Self::Sentinel,
        Self::Deaf,
        Self::Other,
    ];

    /// The label in metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WrongPassword => "wrong_password",
            Self::UnknownHost => "unknown_host",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::NoRight => "no_right",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Misconf => "misconf",
            Self::NoReplicas => "no_replicas",
            Self::Loading => "loading",
            Self::WrongServer => "wrong_server",
            Self::Sentinel => "sentinel",
            Self::Deaf => "deaf",
            Self::Other => "other",
        }
    }

    /// The meaning of the kind, as a sentence without a full stop.
    const fn meaning(self) -> &'static str {
        match self {
            Self::Starting => "the connection is not made yet",
            Self::WrongPassword => "the user or the password is not accepted",
            Self::UnknownHost => "the host's name has no address",
            Self::Refused => "no server listens at the address",
            Self::Lost => "the connection was closed",
            Self::Timeout => "Redis did not answer in time",
            Self::Tls => "TLS failed",
            Self::NoRight => "the user lacks a right that docs/redis.md lists",
            Self::ReadOnly => "the server is a replica, which takes no writes",
            Self::OutOfMemory => "the server's memory is full (maxmemory), and it evicts nothing",
            Self::Misconf => "the server's last snapshot failed, and it takes no writes until one succeeds",
            Self::NoReplicas => "the server has too few replicas to take writes (min-replicas-to-write)",
            Self::Loading => "the server is loading its data",
            Self::WrongServer => {
                "the server is of another kind than redis.url says, or older than Redis 7.0 (a Redis Cluster is \
                 redis-cluster://, a sentinel is redis-sentinel://)"
            }
            Self::Sentinel => "no sentinel could be asked for the primary, or none knows redis.sentinel.service",
            Self::Deaf => "a message of this node to itself did not come back",
            Self::Other => "Redis answered with an error",
        }
    }

    /// Whether a server with this failure refuses every write.
    pub(super) const fn refuses_writes(self) -> bool {
        matches!(self, Self::ReadOnly | Self::OutOfMemory | Self::Misconf | Self::NoReplicas | Self::Loading)
    }

    /// Whether only a change of the configuration, of the node or of Redis, can end the failure.
    pub const fn is_a_mistake(self) -> bool {
        matches!(self, Self::WrongPassword | Self::UnknownHost | Self::Tls | Self::NoRight | Self::WrongServer)
    }
}

/// Why a part of Redis does not work. The text contains no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The kind.
    pub kind: CauseKind,
    /// The error text of the server or the operating system, and the command or channel that the error concerns. May be
    /// empty.
    pub detail: String,
}

impl Cause {
    /// A cause without further detail.
    pub(super) fn new(kind: CauseKind) -> Self {
        Self { kind, detail: String::new() }
    }

    /// Classifies an error of fred, or of the server behind it.
    pub fn of(error: &Error) -> Self {
        let kind = kind_of(error);
        // A server that does not know HELLO repeats its arguments, which include the password.
        let detail = if kind == CauseKind::WrongServer { String::new() } else { shorten(error.details()) };
        Self { kind, detail }
    }

    /// Adds the object of the failure: a command and its key, or a channel.
    pub(super) fn about(mut self, what: &str) -> Self {
        let what = shorten(what);
        self.detail = if self.detail.is_empty() { what } else { format!("{what}: {}", self.detail) };
        self
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.meaning())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

fn shorten(text: &str) -> String {
    let mut shorten: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        shorten.push('…');
    }
    shorten
}

fn kind_of(error: &Error) -> CauseKind {
    let text = error.details();
    by_code(text).or_else(|| by_system(text)).unwrap_or_else(|| match error.kind() {
        ErrorKind::Auth => CauseKind::WrongPassword,
        ErrorKind::Tls => CauseKind::Tls,
        ErrorKind::Timeout => CauseKind::Timeout,
        ErrorKind::Sentinel => CauseKind::Sentinel,
        ErrorKind::IO | ErrorKind::Canceled | ErrorKind::Routing | ErrorKind::Backpressure => CauseKind::Lost,
        ErrorKind::Cluster => CauseKind::WrongServer,
        _ => CauseKind::Other,
    })
}

/// Classifies by the error code at the start of Redis' text. An error of a command inside a script begins with the code
/// as well, or, before Redis 7.2, with a sentence of its own.
fn by_code(text: &str) -> Option<CauseKind> {
    let code = text.split([' ', ':']).next().unwrap_or_default();
    Some(match code {
        "NOAUTH" | "WRONGPASS" => CauseKind::WrongPassword,
        "NOPERM" => CauseKind::NoRight,
        "READONLY" | "MASTERDOWN" => CauseKind::ReadOnly,
        "OOM" => CauseKind::OutOfMemory,
        "MISCONF" => CauseKind::Misconf,
        "NOREPLICAS" => CauseKind::NoReplicas,
        "LOADING" => CauseKind::Loading,
        "NOPROTO" | "MOVED" | "CROSSSLOT" => CauseKind::WrongServer,
        "ERR" if text.contains("The user executing the script can't") => CauseKind::NoRight,
        "ERR" if text.contains("nknown command") || text.contains("cluster support disabled") => CauseKind::WrongServer,
        "ERR" => CauseKind::Other,
        _ => return None,
    })
}

/// Classifies by the sentences of the operating system and of rustls.
fn by_system(text: &str) -> Option<CauseKind> {
    let lower = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["connection refused", "connectionrefused"]) {
        Some(CauseKind::Refused)
    } else if has(&["failed to lookup", "name or service not known", "no address", "nodename nor servname"]) {
        Some(CauseKind::UnknownHost)
    } else if has(&["certificate", "tls", "alert", "corrupt message", "handshake"]) {
        Some(CauseKind::Tls)
    } else if has(&["timed out", "timeout"]) {
        Some(CauseKind::Timeout)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_known_by_its_code_or_by_the_systems_words() {
        for (fred, text, kind) in [
            (
                ErrorKind::Auth,
                "WRONGPASS invalid username-password pair or user is disabled.",
                CauseKind::WrongPassword,
            ),
            (ErrorKind::Unknown, "READONLY You can't write against a read only replica.", CauseKind::ReadOnly),
            (ErrorKind::Unknown, "OOM command not allowed when used memory > 'maxmemory'.", CauseKind::OutOfMemory),
            (ErrorKind::Unknown, "MISCONF Redis is configured to save RDB snapshots", CauseKind::Misconf),
            (ErrorKind::Unknown, "NOREPLICAS Not enough good replicas to write.", CauseKind::NoReplicas),
            (ErrorKind::Unknown, "NOPERM this user has no permissions to run the 'set' command", CauseKind::NoRight),
            (
                ErrorKind::Unknown,
                "ERR The user executing the script can't run this command or subcommand script: f_1",
                CauseKind::NoRight,
            ),
            (
                ErrorKind::Unknown,
                "ERR unknown command `HELLO`, with args: `3`, `AUTH`, `u`, `pw`",
                CauseKind::WrongServer,
            ),
            (ErrorKind::Config, "ERR This instance has cluster support disabled", CauseKind::WrongServer),
            (
                ErrorKind::IO,
                "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }",
                CauseKind::Refused,
            ),
            (ErrorKind::IO, "failed to lookup address information: Name or service not known", CauseKind::UnknownHost),
            (ErrorKind::IO, "invalid peer certificate: UnknownIssuer", CauseKind::Tls),
            (ErrorKind::Timeout, "Request timed out.", CauseKind::Timeout),
            (ErrorKind::Canceled, "Canceled.", CauseKind::Lost),
            (ErrorKind::Unknown, "ERR syntax error", CauseKind::Other),
        ] {
            assert_eq!(Cause::of(&Error::new(fred, text)).kind, kind, "{text}");
        }
    }

    #[test]
    fn no_password_is_repeated() {
        let told = "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `u`, `hunter2`";
        let cause = Cause::of(&Error::new(ErrorKind::Unknown, told));
        assert!(!format!("{cause} {cause:?}").contains("hunter2"));
    }

    #[test]
    fn every_kind_has_a_label_of_its_own() {
        let mut labels = CauseKind::ALL.map(CauseKind::as_str);
        labels.sort_unstable();
        assert!(labels.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_long_text_is_cut_and_says_what_it_is_about() {
        let cause = Cause { kind: CauseKind::Other, detail: shorten(&"x".repeat(1000)) }.about("SET key");
        assert!(cause.to_string().contains("SET key: xxx") && cause.detail.chars().count() < 300);
    }
}
