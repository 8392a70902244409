//! A large set of sessions, stored in blocks. A caller that visits them slowly keeps the blocks, while other sessions
//! join and leave.

use std::hash::BuildHasher as _;
use std::marker::PhantomData;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::session::Session;

/// Number of sessions in a block: visiting one block takes about 0.04 ms.
pub(super) const BLOCK: usize = 128;

/// A shared block of sessions. A block that has another owner is copied, and the copy is changed.
pub(super) type Block = Arc<Vec<Arc<Session>>>;

/// Defines when two sessions are the same.
pub(super) trait SessionIdentity {
    fn hash(session: &Session, hasher: &DefaultHashBuilder) -> u64;
    fn is_same(one: &Session, other: &Session) -> bool;
}

/// Two sessions are the same if they have the same memory address. An address is unique while the session is in the
/// set.
pub(super) struct ByAddress;

impl SessionIdentity for ByAddress {
    fn hash(session: &Session, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(std::ptr::from_ref(session))
    }

    fn is_same(one: &Session, other: &Session) -> bool {
        std::ptr::eq(one, other)
    }
}

/// Two sessions are the same if they have the same id.
pub(super) struct ById;

impl SessionIdentity for ById {
    fn hash(session: &Session, hasher: &DefaultHashBuilder) -> u64 {
        hasher.hash_one(session.id())
    }

    fn is_same(one: &Session, other: &Session) -> bool {
        one.id() == other.id()
    }
}

/// A set of sessions. Insert, remove and lookup are O(1).
pub(super) struct SessionSet<K> {
    /// The blocks. Each block except the last is full.
    blocks: Vec<Block>,
    /// Maps a session to its index, counted over all blocks.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    key: PhantomData<K>,
}

impl<K: SessionIdentity> SessionSet<K> {
    /// Adds a session. Returns false when the session is in the set already.
    pub(super) fn insert(&mut self, session: &Arc<Session>) -> bool {
        if self.contains(session) {
            return false;
        }
        let Self { blocks, places, hasher, .. } = self;
        let place = u32::try_from(places.len()).expect("no node has four billion clients");
        match blocks.last_mut() {
            Some(last) if last.len() < BLOCK => Arc::make_mut(last).push(session.clone()),
            _ => blocks.push(Arc::new(vec![session.clone()])),
        }
        places.insert_unique(K::hash(session, hasher), place, |&place| K::hash(at(blocks, place), hasher));
        true
    }

    /// Removes a session and moves the last session to its index. Returns false when the session was not in the set.
    pub(super) fn remove(&mut self, session: &Session) -> bool {
        let Self { blocks, places, hasher, .. } = self;
        let is_it = |&place: &u32| K::is_same(at(blocks, place), session);
        let Ok(found) = places.find_entry(K::hash(session, hasher), is_it) else { return false };
        let (place, _) = found.remove();
        let end = places.len();
        let Some(last) = blocks.last_mut().and_then(|block| Arc::make_mut(block).pop()) else { return true };
        if blocks.last().is_some_and(|block| block.is_empty()) {
            blocks.pop();
        }
        if place as usize != end {
            if let Some(moved) = places.find_mut(K::hash(&last, hasher), |&place| place as usize == end) {
                *moved = place;
            }
            let (block, within) = split(place);
            Arc::make_mut(&mut blocks[block])[within] = last;
        }
        true
    }

    pub(super) fn contains(&self, session: &Session) -> bool {
        let is_it = |&place: &u32| K::is_same(at(&self.blocks, place), session);
        self.places.find(K::hash(session, &self.hasher), is_it).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Whether the block with this number is unchanged since the caller took it from [`SessionSet::blocks`].
    pub(super) fn still_has(&self, number: usize, block: &Block) -> bool {
        self.blocks.get(number).is_some_and(|current| Arc::ptr_eq(current, block))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.blocks.iter().flat_map(|block| block.iter())
    }
}

impl SessionSet<ById> {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Session>> {
        let place = self.places.find(self.hasher.hash_one(id), |&place| at(&self.blocks, place).id() == id)?;
        Some(at(&self.blocks, *place))
    }
}

fn at(blocks: &[Block], place: u32) -> &Arc<Session> {
    let (block, within) = split(place);
    &blocks[block][within]
}

const fn split(place: u32) -> (usize, usize) {
    (place as usize / BLOCK, place as usize % BLOCK)
}

impl<K> Default for SessionSet<K> {
    fn default() -> Self {
        Self { blocks: Vec::new(), places: HashTable::new(), hasher: DefaultHashBuilder::default(), key: PhantomData }
    }
}
