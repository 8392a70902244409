//! Makes events of a room wait for each other: events are emitted in the order in which they were appended.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::RoomKey;

/// Number of locks that the rooms share. Rooms that share a lock wait for each other, which is harmless and rare.
const PLACES: usize = 1024;

/// Lets the publishers of this node append and emit in a room one after the other (in turn), first come, first served.
///
/// Between the append and the emit of an event no later event may be emitted, or clients would see a different order
/// than the history has. A publisher keeps its turn while Redis is asked. It cannot keep the turn long, because a
/// history fails at once while Redis is unavailable. A turn does not lock any data.
pub struct Sequencer {
    places: Box<[Arc<Mutex<()>>]>,
    hasher: RandomState,
}

/// A publisher's turn in some rooms, which ends when this value is dropped.
#[must_use = "the turn ends when it is dropped"]
pub struct RoomTurn {
    _places: Vec<OwnedMutexGuard<()>>,
}

impl Sequencer {
    /// Creates a sequencer without waiting publishers.
    pub fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the turn in all of these rooms. Returns at once if `rooms` is empty.
    ///
    /// All callers take the locks in the same order, so that two publishers cannot deadlock.
    pub async fn turn(&self, rooms: &[RoomKey]) -> RoomTurn {
        let mut wanted: Vec<_> = rooms.iter().map(|room| self.place(room)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut places = Vec::with_capacity(wanted.len());
        for place in wanted {
            places.push(self.places[place].clone().lock_owned().await);
        }
        RoomTurn { _places: places }
    }

    fn place(&self, room: &RoomKey) -> usize {
        (self.hasher.hash_one(room) % PLACES as u64) as usize
    }
}

impl Default for Sequencer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as SyncMutex;
    use std::time::Duration;

    use super::*;

    fn key(room: &str) -> RoomKey {
        RoomKey { namespace: "/".into(), room: room.into() }
    }

    #[tokio::test]
    async fn turns_in_a_room_follow_the_order_of_asking() {
        let sequencer = Arc::new(Sequencer::new());
        let seen = Arc::new(SyncMutex::new(Vec::new()));
        let first = sequencer.turn(&[key("a")]).await;
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (sequencer, seen) = (sequencer.clone(), seen.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = sequencer.turn(&[key("a")]).await;
                tokio::task::yield_now().await;
                seen.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn rooms_in_any_order_never_wait_for_each_other() {
        let sequencer = Arc::new(Sequencer::new());
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let sequencer = sequencer.clone();
                let rooms = if number % 2 == 0 { [key("a"), key("b")] } else { [key("b"), key("a")] };
                tokio::spawn(async move {
                    let _turn = sequencer.turn(&rooms).await;
                    tokio::task::yield_now().await;
                })
            })
            .collect();
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect("no deadlock");
    }
}
