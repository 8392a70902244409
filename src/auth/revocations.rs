//! The revocations in the memory of a node, because every token is checked against them. `cluster` keeps them equal on
//! all nodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use super::claims::issued_at;
use crate::directory::{MAX_REVOCATIONS, Revocation, RevocationInfo, Subject};
use crate::telemetry::metrics::Metrics;
use crate::time::from_unix_millis;
use crate::user::User;

/// The set of revocations, of which there are at most [`MAX_REVOCATIONS`]. Expired ones are removed.
pub struct Revocations {
    entries: RwLock<HashMap<Subject, Revocation>>,
    /// The number of revocations in the set. Lets nodes without revocations skip the lock.
    count: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Revocations {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { entries: RwLock::default(), count: AtomicUsize::new(0), metrics }
    }

    /// Whether a token is revoked, either itself or with all tokens of its user.
    pub fn refuse(&self, user: Option<&str>, token: Option<&str>, issued_at: Option<u64>) -> bool {
        if self.is_empty() {
            return false;
        }
        let user = user.is_some_and(|id| self.find(&Subject::User(id.into())).is_some_and(|it| !it.spares(issued_at)));
        user || token.is_some_and(|id| self.find(&Subject::Token(id.into())).is_some())
    }

    /// Whether the token that identified this user is revoked.
    pub fn refuse_user(&self, user: &User) -> bool {
        if self.is_empty() || user.anonymous {
            return false;
        }
        self.refuse(Some(&user.id), user.token_id.as_deref(), issued_at(user.claims.get("iat").as_ref()))
    }

    /// Whether there are no revocations.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The number of revocations.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether `more` further revocations fit, after expired ones are removed.
    pub fn has_room_for(&self, more: usize) -> bool {
        if self.len() + more > MAX_REVOCATIONS {
            self.forget_ended(SystemTime::now());
        }
        self.len() + more <= MAX_REVOCATIONS
    }

    /// Adds a revocation, or replaces the revocation of the same subject. Returns false when nothing changes, because
    /// the same revocation exists already or the set is full. A revocation for which there is no space is counted.
    pub fn add(&self, subject: &Subject, revocation: Revocation) -> bool {
        self.change(|entries| {
            if entries.len() >= MAX_REVOCATIONS && !entries.contains_key(subject) {
                self.count_dropped("full", 1);
                return false;
            }
            entries.insert(subject.clone(), revocation) != Some(revocation)
        })
    }

    /// Counts revocations that were dropped. The reason is `full` when this set or Redis has the maximum number, and
    /// `unsaved` when too many revocations wait to be written to Redis.
    pub fn count_dropped(&self, reason: &str, number: usize) {
        self.metrics.revocations_dropped_total.with_label_values(&[reason]).inc_by(number as u64);
    }

    /// Removes a revocation. Returns false when there was none.
    pub fn remove(&self, subject: &Subject) -> bool {
        self.change(|entries| entries.remove(subject).is_some())
    }

    /// Removes expired revocations.
    pub fn forget_ended(&self, now: SystemTime) {
        self.change(|entries| entries.retain(|_, revocation| !revocation.has_ended(now)));
    }

    /// All revocations that have not expired.
    pub fn all(&self) -> Vec<(Subject, Revocation)> {
        let now = SystemTime::now();
        let entries = self.entries.read().expect("no thread panics while it holds this lock");
        entries.iter().filter(|(_, it)| !it.has_ended(now)).map(|(subject, it)| (subject.clone(), *it)).collect()
    }

    fn find(&self, subject: &Subject) -> Option<Revocation> {
        let found = self.entries.read().expect("no thread panics while it holds this lock").get(subject).copied();
        found.filter(|revocation| !revocation.has_ended(SystemTime::now()))
    }

    fn change<T>(&self, work: impl FnOnce(&mut HashMap<Subject, Revocation>) -> T) -> T {
        let mut entries = self.entries.write().expect("no thread panics while it holds this lock");
        let done = work(&mut entries);
        self.count.store(entries.len(), Ordering::Release);
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        self.metrics.revocations.with_label_values::<&str>(&[]).set(count);
        done
    }
}

impl From<(Subject, Revocation)> for RevocationInfo {
    fn from((subject, revocation): (Subject, Revocation)) -> Self {
        Self {
            kind: subject.kind(),
            id: subject.id().to_string(),
            since: from_unix_millis(revocation.since),
            until: from_unix_millis(revocation.until),
            spares_newer: revocation.spares_newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::user::Claims;

    fn set() -> Revocations {
        Revocations::new(Arc::new(Metrics::new()))
    }

    fn user(id: &str, token: &str, issued: u64) -> User {
        let claims = json!({ "iat": issued }).as_object().unwrap().clone();
        User { token_id: Some(token.into()), claims: Claims::of(&claims), ..User::named(id) }
    }

    #[test]
    fn users_and_tokens_are_refused_and_nobody_else() {
        let set = set();
        let forever = Revocation { since: 0, until: u64::MAX, spares_newer: false };
        assert!(set.add(&Subject::User("ada".into()), forever));
        assert!(!set.add(&Subject::User("ada".into()), forever), "it is there already");
        set.add(&Subject::Token("t1".into()), forever);
        set.add(&Subject::Socket("s1".into()), forever);
        assert!(set.refuse_user(&user("ada", "t9", 5)) && set.refuse_user(&user("bob", "t1", 5)));
        assert!(!set.refuse_user(&user("bob", "t2", 5)) && !set.refuse_user(&user("t1", "ada", 5)));
        assert!(!set.refuse_user(&User::anonymous()));
        assert!(set.remove(&Subject::User("ada".into())) && !set.remove(&Subject::User("ada".into())));
        assert!(!set.refuse_user(&user("ada", "t9", 5)));
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let set = set();
        let now = SystemTime::now();
        let mut ends = Revocation::lasting(Duration::from_secs(60));
        set.add(&Subject::User("ada".into()), ends);
        assert!(set.refuse_user(&user("ada", "t", 0)));
        set.forget_ended(now + Duration::from_secs(120));
        assert!(set.is_empty());
        ends.until = 5;
        set.add(&Subject::User("ada".into()), ends);
        assert!(!set.refuse_user(&user("ada", "t", 0)), "one that has ended refuses nobody");
    }

    #[test]
    fn tokens_issued_later_can_be_spared() {
        let set = set();
        set.add(&Subject::User("ada".into()), Revocation { since: 10_000, until: u64::MAX, spares_newer: true });
        assert!(set.refuse_user(&user("ada", "t", 10)));
        assert!(!set.refuse_user(&user("ada", "t", 11)));
    }
}
