//! The users that are connected to this node, and their statuses.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use indexmap::IndexMap;
use serde_json::Value;

use super::{UserStatus, shown};
use crate::directory::UserInfo;
use crate::time::unix_millis;

/// Maximum number of statuses that a node without Redis keeps in a namespace for users without a socket. The oldest are
/// dropped first.
const MAX_ABSENT: usize = 100_000;

/// A status, and when it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TimedStatus {
    pub(super) at_ms: u64,
    pub(super) value: Value,
}

/// The users of this node. The index of rooms reports their sockets, so they are counted from the first one on.
pub(super) struct LocalUsers {
    namespaces: Mutex<HashMap<Arc<str>, NamespaceUsers>>,
    /// How long this node keeps the status of a user without a socket. `None`: Redis keeps it instead.
    keep: Option<Duration>,
}

#[derive(Default)]
struct NamespaceUsers {
    present: BTreeMap<Arc<str>, LocalUser>,
    // In the order in which the statuses expire.
    absent: IndexMap<Arc<str>, (TimedStatus, Instant)>,
}

#[derive(Default)]
struct LocalUser {
    sockets: u64,
    // Boxed, because most users have no status.
    status: Option<Box<TimedStatus>>,
}

impl LocalUsers {
    /// Creates the record of a node without users. `keep` is how long the node keeps statuses of users without a
    /// socket; `None` if it does not.
    pub(super) fn new(keep: Option<Duration>) -> Self {
        Self { namespaces: Mutex::default(), keep }
    }

    /// Counts a socket of the user that has connected.
    pub(super) fn connected(&self, namespace: &Arc<str>, user_id: &str) {
        let mut all = self.namespaces.lock().expect("no thread panics while it holds this lock");
        let users = all.entry(namespace.clone()).or_default();
        let back = users.absent.shift_remove(user_id).map(|(status, _)| Box::new(status));
        let user = users.present.entry(user_id.into()).or_default();
        user.sockets += 1;
        if back.is_some() {
            user.status = back;
        }
    }

    /// Counts a socket of the user that has disconnected.
    pub(super) fn disconnected(&self, namespace: &str, user_id: &str) {
        let now = Instant::now();
        self.with(namespace, |users| {
            let Some(user) = users.present.get_mut(user_id) else { return };
            debug_assert!(user.sockets > 0, "a user without sockets is present");
            user.sockets = user.sockets.saturating_sub(1);
            if user.sockets > 0 {
                return;
            }
            let gone = users.present.remove_entry(user_id);
            if let (Some(keep), Some((id, LocalUser { status: Some(status), .. }))) = (self.keep, gone) {
                users.absent.insert(id, (*status, now + keep));
                users.prune(now);
            }
        });
    }

    /// Sets a status. Returns false if the user has no socket on this node.
    pub(super) fn set_status(&self, namespace: &str, user_id: &str, status: TimedStatus) -> bool {
        self.with(namespace, |users| match users.present.get_mut(user_id) {
            Some(user) => {
                user.status = Some(Box::new(status));
                true
            }
            None => false,
        })
    }

    /// The statuses of all users with a socket on this node.
    pub(super) fn statuses(&self, namespace: &str) -> Vec<(Arc<str>, TimedStatus)> {
        self.with(namespace, |users| {
            users.present.iter().filter_map(|(id, user)| Some((id.clone(), user.status.as_deref()?.clone()))).collect()
        })
    }

    /// A user's status and number of sockets.
    pub(super) fn status(&self, namespace: &str, user_id: &str) -> UserStatus {
        let now = Instant::now();
        self.with(namespace, |users| match users.present.get(user_id) {
            Some(user) => {
                UserStatus { status: user.status.as_ref().map(|status| status.value.clone()), sockets: user.sockets }
            }
            None => {
                let kept = users.absent.get(user_id).filter(|(_, until)| *until > now);
                UserStatus { status: kept.map(|(status, _)| status.value.clone()), sockets: 0 }
            }
        })
    }

    /// All users with a socket on this node, in the order of their ids.
    pub(super) fn infos(&self, namespace: &str) -> Vec<UserInfo> {
        self.with(namespace, |users| users.present.iter().map(|(id, user)| user.info(namespace, id)).collect())
    }

    /// A user with a socket on this node.
    pub(super) fn info(&self, namespace: &str, user_id: &str) -> Option<UserInfo> {
        self.with(namespace, |users| users.present.get(user_id).map(|user| user.info(namespace, user_id)))
    }

    /// The number of users with a socket on this node.
    pub(super) fn count(&self, namespace: &str) -> usize {
        self.with(namespace, |users| users.present.len())
    }

    fn with<T>(&self, namespace: &str, work: impl FnOnce(&mut NamespaceUsers) -> T) -> T {
        let mut all = self.namespaces.lock().expect("no thread panics while it holds this lock");
        work(all.get_mut(namespace).unwrap_or(&mut NamespaceUsers::default()))
    }
}

// === impl Status ===

impl TimedStatus {
    /// A status that is set now.
    pub(super) fn now(value: &Value) -> Self {
        Self { at_ms: unix_millis(SystemTime::now()), value: value.clone() }
    }
}

// === impl NamespaceUsers ===

impl NamespaceUsers {
    /// Forgets statuses that have expired, and the oldest beyond [`MAX_ABSENT`].
    fn prune(&mut self, now: Instant) {
        while self.absent.first().is_some_and(|(_, (_, until))| *until <= now) || self.absent.len() > MAX_ABSENT {
            self.absent.shift_remove_index(0);
        }
    }
}

// === impl User ===

impl LocalUser {
    fn info(&self, namespace: &str, id: &str) -> UserInfo {
        UserInfo {
            user_id: id.to_owned(),
            namespace: namespace.to_owned(),
            connections: self.sockets,
            status: self.status.as_ref().map(|status| shown(&status.value)),
        }
    }
}
