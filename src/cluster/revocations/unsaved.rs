//! Changes of revocations that are not stored in Redis yet.

use std::collections::HashMap;

use super::store::RevocationChange;
use crate::directory::{MAX_REVOCATIONS, Revocation, Subject};

/// The newest change of each subject, until it is stored. At most [`MAX_REVOCATIONS`] changes.
#[derive(Default)]
pub(super) struct Unsaved(HashMap<Subject, Option<Revocation>>);

impl Unsaved {
    /// Adds changes. Returns how many changes did not fit and were dropped.
    pub(super) fn add(&mut self, changes: &[RevocationChange]) -> usize {
        let mut dropped = 0;
        for (subject, revocation) in changes {
            if self.0.len() < MAX_REVOCATIONS || self.0.contains_key(subject) {
                self.0.insert(subject.clone(), *revocation);
            } else {
                dropped += 1;
            }
        }
        dropped
    }

    /// Returns at most `most` of the changes.
    pub(super) fn batch(&self, most: usize) -> Vec<RevocationChange> {
        self.0.iter().take(most).map(|(subject, revocation)| (subject.clone(), *revocation)).collect()
    }

    /// Removes changes that were stored or given up, except changes of subjects that have changed again since.
    pub(super) fn remove(&mut self, changes: &[RevocationChange]) {
        for (subject, revocation) in changes {
            if self.0.get(subject) == Some(revocation) {
                self.0.remove(subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> Subject {
        Subject::Token(number.to_string().into())
    }

    #[test]
    fn changes_beyond_the_bound_are_dropped_and_known_subjects_still_change() {
        let mut unsaved = Unsaved::default();
        let forever = Revocation { since: 0, until: u64::MAX, spares_newer: false };
        let revoked = |numbers: std::ops::Range<usize>| -> Vec<RevocationChange> {
            numbers.map(|number| (token(number), Some(forever))).collect()
        };
        assert_eq!(unsaved.add(&revoked(0..MAX_REVOCATIONS - 1)), 0);
        assert_eq!(unsaved.add(&revoked(MAX_REVOCATIONS - 1..MAX_REVOCATIONS + 2)), 2);
        assert_eq!(unsaved.add(&[(token(7), None)]), 0);
        unsaved.remove(&revoked(0..MAX_REVOCATIONS));
        assert_eq!(unsaved.batch(9), [(token(7), None)], "it has changed since");
    }
}
