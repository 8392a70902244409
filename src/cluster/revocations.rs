//! Keeps revocations the same on every node.
//!
//! A node sends each change to the other nodes at once. Redis stores all revocations and the number of the last change.
//! A node whose own number differs reads all revocations again, so that a node that missed a message catches up.
//!
//! A revocation that is made while Redis is unreachable takes effect on this node at once, and is stored when Redis is
//! reachable again. If Redis has lost revocations, the nodes store their own copies again.

mod store;
mod unsaved;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use self::store::{RevocationChange, RevocationStore, StoreError, Version};
use self::unsaved::Unsaved;
use super::{Cluster, MessageHandlers};
use crate::auth::Revocations;
use crate::directory::{
    DirectoryError, DirectoryFuture, MAX_PAGE, Page, PageRequest, Revocation, RevocationInfo, Revoked, Revoker,
    SendOutcome, Subject,
};
use crate::protocol::user_room;
use crate::redis::Redis;
use crate::room::Rooms;
use crate::session::Session;

const TOPIC: &str = "revoke";

/// How often a node checks in Redis whether it has missed a change.
const CHECK: Duration = Duration::from_secs(2);

/// How often a node checks in Redis for missed changes until a check succeeds: at the node's start, and while Redis is
/// unreachable.
const CHECK_SOON: Duration = Duration::from_millis(50);

/// Maximum number of changes in one message or write.
const BATCH: usize = 500;

/// Disconnects a session whose token was revoked.
pub type EndSession = Arc<dyn Fn(&Arc<Session>) + Send + Sync>;

/// Revokes users, tokens and sockets on all nodes.
pub struct ClusterRevoker {
    cluster: Arc<Cluster>,
    set: Arc<Revocations>,
    rooms: Arc<Rooms>,
    store: Option<RevocationStore>,
    end: EndSession,
    state: Mutex<RevocationState>,
    /// Wakes the task that catches up with the store.
    behind: Notify,
}

#[derive(Default)]
struct RevocationState {
    /// The newest version of the store that this node knows.
    version: Option<Version>,
    /// Changes that are not stored in Redis yet.
    unsaved: Unsaved,
    /// Subjects that changed while the store was being read. The stored revocations of these subjects may be out of
    /// date, and are ignored.
    touched: Option<HashSet<Subject>>,
}

/// Changes of revocations, as one node sends them to the others.
#[derive(Serialize, Deserialize)]
pub(super) struct RevocationMessage {
    epoch: String,
    number: u64,
    changes: Vec<RevocationChange>,
}

impl ClusterRevoker {
    /// Starts to store revocations, if Redis is configured. `end` disconnects a session. Needs a Tokio runtime.
    pub fn start(
        cluster: &Arc<Cluster>,
        set: &Arc<Revocations>,
        rooms: &Arc<Rooms>,
        redis: Option<Redis>,
        end: EndSession,
    ) -> Arc<Self> {
        let revoker = Arc::new(Self {
            cluster: cluster.clone(),
            set: set.clone(),
            rooms: rooms.clone(),
            store: redis.map(RevocationStore::new),
            end,
            state: Mutex::default(),
            behind: Notify::new(),
        });
        tokio::spawn(keep_up(Arc::downgrade(&revoker)));
        revoker
    }

    /// Adds the handler of the revocations of other nodes.
    #[must_use]
    pub fn handle(self: &Arc<Self>, handlers: MessageHandlers) -> MessageHandlers {
        let revoker = self.clone();
        handlers.on(TOPIC, move |_, message: RevocationMessage| revoker.hear(message))
    }

    /// Applies changes on this node, stores the changes in Redis, and sends them to the other nodes.
    async fn change(&self, mut changes: Vec<RevocationChange>) -> Result<Revoked, DirectoryError> {
        let more = changes.iter().filter(|(_, revocation)| revocation.is_some()).count();
        if more > 0 && !self.set.has_room_for(more) {
            return Err(DirectoryError::Full);
        }
        let mut changed = 0;
        let mut ended = self.ending(&changes);
        changes.extend(self.tokens_of(&ended, &changes));
        for (subject, revocation) in &changes {
            changed += usize::from(self.apply(subject, *revocation));
        }
        ended.extend(self.ending(&changes));
        let local = self.end_sessions(ended);
        let mut told = SendOutcome::Alone;
        for batch in changes.chunks(BATCH) {
            let one = self.publish(batch).await;
            if !matches!(told, SendOutcome::NotCarried(_)) {
                told = one;
            }
        }
        Ok(Revoked { changed, local, remote: told })
    }

    /// Stores changes in Redis and sends them to the other nodes.
    async fn publish(&self, changes: &[RevocationChange]) -> SendOutcome {
        let Some(store) = &self.store else { return SendOutcome::Alone };
        match store.write(changes).await {
            Ok(version) => {
                let (epoch, number) = (version.epoch.clone(), version.number);
                self.advance(version);
                let message = RevocationMessage { epoch, number, changes: changes.to_vec() };
                // A node that misses this message later reads the new number from Redis.
                self.cluster.tell(TOPIC, &message).await
            }
            // The change takes effect on this node only: it is neither stored nor sent to the other nodes.
            Err(StoreError::Full) => {
                let made = changes.iter().filter(|(_, revocation)| revocation.is_some()).count();
                self.set.count_dropped("full", made);
                SendOutcome::NotCarried("full")
            }
            Err(StoreError::Away) => {
                self.save_later(changes);
                self.behind.notify_one();
                SendOutcome::NotCarried("away")
            }
        }
    }

    /// Keeps changes in memory until they can be stored in Redis. Counts the changes that do not fit.
    fn save_later(&self, changes: &[RevocationChange]) {
        let dropped = self.with(|state| state.unsaved.add(changes));
        self.set.count_dropped("unsaved", dropped);
    }

    fn hear(self: &Arc<Self>, message: RevocationMessage) {
        let ending = self.ending(&message.changes);
        let tokens = self.tokens_of(&ending, &message.changes);
        for (subject, revocation) in &message.changes {
            self.apply(subject, *revocation);
        }
        self.end_sessions(ending);
        self.advance(Version { epoch: message.epoch, number: message.number });
        if !tokens.is_empty() {
            let revoker = self.clone();
            tokio::spawn(async move {
                let number = tokens.len();
                if revoker.change(tokens).await.is_err() {
                    revoker.set.count_dropped("full", number);
                }
            });
        }
    }

    /// Records the store's new version if it directly follows the known version. A later version shows that this node
    /// missed a change, so the node catches up with the store.
    fn advance(&self, version: Version) {
        let is_next = self.with(|state| {
            let known = state.version.get_or_insert_default();
            let is_next = known.epoch == version.epoch && known.number + 1 == version.number;
            let is_old = known.epoch == version.epoch && known.number >= version.number;
            if is_next {
                *known = version;
            }
            is_next || is_old
        });
        if !is_next {
            self.behind.notify_one();
        }
    }

    fn apply(&self, subject: &Subject, revocation: Option<Revocation>) -> bool {
        self.with(|state| {
            if let Some(touched) = &mut state.touched {
                touched.insert(subject.clone());
            }
        });
        match revocation {
            Some(revocation) => self.set.add(subject, revocation),
            None => self.set.remove(subject),
        }
    }

    /// The sessions of this node that the revocations among these changes disconnect.
    fn ending(&self, changes: &[RevocationChange]) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        let mut tokens = HashSet::new();
        let made = changes.iter().filter_map(|(subject, revocation)| Some((subject, revocation.as_ref()?)));
        for (subject, revocation) in made {
            match subject {
                Subject::Token(id) => drop(tokens.insert(id.clone())),
                Subject::User(id) => {
                    let room = [user_room(id)];
                    for namespace in self.rooms.namespaces() {
                        let sessions = self.rooms.recipients(namespace, &room, &[]);
                        found.extend(sessions.into_iter().filter(|session| !is_spared(revocation, session)));
                    }
                }
                Subject::Socket(id) => {
                    found.extend(self.rooms.namespaces().filter_map(|namespace| self.rooms.session(namespace, id)));
                }
            }
        }
        if !tokens.is_empty() {
            let holds = |session: &Arc<Session>| session.user().token_id.as_ref().is_some_and(|id| tokens.contains(id));
            let all = self.rooms.namespaces().flat_map(|namespace| self.rooms.sessions(namespace));
            found.extend(all.filter(holds));
        }
        found
    }

    /// Returns a revocation of the token of each revoked socket. Otherwise the socket's client could reconnect at once
    /// with the same token.
    fn tokens_of(&self, sessions: &[Arc<Session>], changes: &[RevocationChange]) -> Vec<RevocationChange> {
        let by_socket: HashMap<&str, Revocation> = changes
            .iter()
            .filter_map(|(subject, revocation)| match subject {
                Subject::Socket(id) => Some((&**id, (*revocation)?)),
                _ => None,
            })
            .collect();
        let token = |session: &Arc<Session>| {
            let revocation = *by_socket.get(session.id())?;
            Some((Subject::Token(session.user().token_id.clone()?), Some(revocation)))
        };
        sessions.iter().filter_map(token).collect()
    }

    fn end_sessions(&self, sessions: Vec<Arc<Session>>) -> usize {
        let mut seen = HashSet::new();
        let mut count = 0;
        for session in sessions {
            if seen.insert((session.namespace().clone(), session.id().to_owned())) {
                (self.end)(&session);
                count += 1;
            }
        }
        count
    }

    /// Brings this node and the store to the same state. Returns false if Redis is unreachable.
    async fn catch_up(&self) -> bool {
        let Some(store) = &self.store else { return true };
        self.set.forget_ended(SystemTime::now());
        let outcome = async {
            self.save(store).await?;
            let stored = store.version().await?;
            let known = self.with(|state| state.version.clone());
            match (&stored, &known) {
                (None, _) if self.set.is_empty() => {
                    self.with(|state| state.version = Some(Version::default()));
                    return Ok(());
                }
                (Some(stored), Some(known)) if stored == known => return Ok(()),
                _ => {}
            }
            let lost = match (&stored, &known) {
                (None, _) => true,
                (Some(stored), Some(known)) if known.number > 0 => {
                    stored.epoch != known.epoch || stored.number < known.number
                }
                _ => false,
            };
            if lost {
                let ours = self.set.all().into_iter().map(|(subject, revocation)| (subject, Some(revocation)));
                for batch in ours.collect::<Vec<_>>().chunks(BATCH) {
                    match store.write(batch).await {
                        Err(StoreError::Full) => self.set.count_dropped("full", batch.len()),
                        written => drop(written?),
                    }
                }
            }
            self.load(store).await
        };
        let done: Result<(), StoreError> = outcome.await;
        done.is_ok()
    }

    /// Stores the changes that could not be stored before, and sends them to the other nodes.
    async fn save(&self, store: &RevocationStore) -> Result<(), StoreError> {
        loop {
            let batch = self.with(|state| state.unsaved.batch(BATCH));
            if batch.is_empty() {
                return Ok(());
            }
            let version = match store.write(&batch).await {
                Ok(version) => version,
                // The store is full, so these changes would never fit, and would prevent this node from catching up.
                Err(StoreError::Full) => {
                    self.give_up(&batch);
                    continue;
                }
                Err(StoreError::Away) => return Err(StoreError::Away),
            };
            self.with(|state| state.unsaved.remove(&batch));
            let message = RevocationMessage { epoch: version.epoch, number: version.number, changes: batch };
            self.cluster.tell(TOPIC, &message).await;
        }
    }

    /// Drops the revocations of a batch that does not fit into the store, and counts these revocations as dropped. The
    /// ends of revocations in the batch are stored by the next attempt.
    fn give_up(&self, batch: &[RevocationChange]) {
        let made: Vec<RevocationChange> =
            batch.iter().filter(|(_, revocation)| revocation.is_some()).cloned().collect();
        // Redis never refuses a batch that only ends revocations. If Redis refused such a batch, this node would try to
        // store the batch for ever, so the whole batch is dropped.
        let dropped = if made.is_empty() { batch } else { &made };
        self.with(|state| state.unsaved.remove(dropped));
        self.set.count_dropped("full", dropped.len());
    }

    /// Makes this node's set equal to the store, except for subjects that change during the read.
    async fn load(&self, store: &RevocationStore) -> Result<(), StoreError> {
        self.with(|state| state.touched = Some(HashSet::new()));
        let read = store.read().await;
        let touched = self.with(|state| state.touched.take()).unwrap_or_default();
        let Some(stored) = read? else { return Ok(()) };
        for (subject, _) in self.set.all() {
            if !stored.entries.contains_key(&subject) && !touched.contains(&subject) {
                self.set.remove(&subject);
            }
        }
        let news = stored.entries.into_iter().filter(|(subject, _)| !touched.contains(subject));
        let news = news.filter(|(subject, revocation)| self.set.add(subject, *revocation));
        let news: Vec<RevocationChange> = news.map(|(subject, revocation)| (subject, Some(revocation))).collect();
        let ending = self.ending(&news);
        let tokens = self.tokens_of(&ending, &news);
        self.end_sessions(ending);
        self.save_later(&tokens);
        self.with(|state| state.version = Some(stored.version));
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut RevocationState) -> T) -> T {
        work(&mut self.state.lock().expect("no thread panics while it holds this lock"))
    }
}

fn is_spared(revocation: &Revocation, session: &Session) -> bool {
    revocation.spares(crate::auth::issued_at(session.user().claims.get("iat").as_ref()))
}

/// Checks at intervals whether this node has missed a change, until the revoker is dropped or the connections to Redis
/// are closed.
async fn keep_up(revoker: std::sync::Weak<ClusterRevoker>) {
    loop {
        let pause = match revoker.upgrade() {
            Some(revoker) if revoker.store.as_ref().is_some_and(|store| store.redis.is_closed()) => return,
            Some(revoker) => {
                let done = revoker.catch_up().await;
                if revoker.store.is_none() {
                    revoker.set.forget_ended(SystemTime::now());
                }
                let pause = if done { CHECK } else { CHECK_SOON };
                let _ = tokio::time::timeout(pause, revoker.behind.notified()).await;
                // Waits a moment, so that changes in quick succession are read together.
                Duration::from_millis(10)
            }
            None => return,
        };
        tokio::time::sleep(pause).await;
    }
}

impl Revoker for ClusterRevoker {
    fn revoke<'a>(&'a self, subjects: Vec<Subject>, revocation: Revocation) -> DirectoryFuture<'a, Revoked> {
        let changes = subjects.into_iter().map(|subject| (subject, Some(revocation))).collect();
        Box::pin(self.change(changes))
    }

    fn lift<'a>(&'a self, subjects: Vec<Subject>) -> DirectoryFuture<'a, Revoked> {
        let changes = subjects.into_iter().map(|subject| (subject, None)).collect();
        Box::pin(self.change(changes))
    }

    fn revocations<'a>(&'a self, page: PageRequest) -> DirectoryFuture<'a, Page<RevocationInfo>> {
        Box::pin(async move {
            let after = page.cursor.as_deref().map(|text| Subject::of_key(text).ok_or(DirectoryError::Cursor));
            let after = after.transpose()?;
            let mut all = self.set.all();
            all.retain(|(subject, _)| after.as_ref().is_none_or(|after| subject > after));
            all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            let limit = page.limit.clamp(1, MAX_PAGE);
            let next = (all.len() > limit).then(|| all[limit - 1].0.key());
            all.truncate(limit);
            let partial = self.store.as_ref().is_some_and(|store| !store.redis.takes_writes());
            Ok(Page { next, partial, ..Page::complete(all.into_iter().map(RevocationInfo::from).collect()) })
        })
    }
}
