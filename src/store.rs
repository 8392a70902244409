//! The idiom for a store that has a form in memory and a form in Redis.
//!
//! Such a store is a trait that states the promises, and two implementations: `Memory…` in `memory.rs` for a node
//! without Redis, and `Redis…` in `redis.rs` for a cluster. `tests/stores` checks the same promises of both. A node
//! knows from its configuration which form it has, so the part that uses the store keeps a [`MemoryOrRedis`] and calls
//! it with `on_store!`. Trait objects would need an allocation for each call, also for each event that a history keeps.
//! Presence has the same two forms, but is a trait object: the HTTP API needs only a part of its trait, and a call to
//! it is a lookup that few events need.
//!
//! Four stores have one form, on purpose:
//!
//! - The keys of `mirror` exist for other services, which read them from Redis. Without Redis nothing reads them.
//! - Revocations are always answered from the node's memory. Redis only carries them to other nodes and over restarts.
//! - The lease to publish for emitters is in Redis. Emitters publish through Redis, so a node without it has none.
//! - Rate limits and connection limits count the clients of one node, so they are never in Redis.

/// The form of a store that this node has.
pub enum MemoryOrRedis<M, R> {
    /// The node has no Redis. What the store keeps is lost when the process ends.
    Memory(M),
    /// The nodes of a cluster share what the store keeps.
    Redis(R),
}

impl<M, R> MemoryOrRedis<M, R> {
    /// The form's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Redis(_) => "redis",
        }
    }
}

/// Evaluates an expression for the form of the store that this node has:
/// `on_store!(&self.backend, store => store.get(key).await)`.
macro_rules! on_store {
    ($store:expr, $form:ident => $call:expr) => {
        match $store {
            $crate::store::MemoryOrRedis::Memory($form) => $call,
            $crate::store::MemoryOrRedis::Redis($form) => $call,
        }
    };
}

pub(crate) use on_store;
