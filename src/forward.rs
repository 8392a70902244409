//! Any node takes any request: a long-polling session lives on one node, and the others pass its requests on to it.
//!
//! A session's id names its node in a way that only nodes can read ([`sid`]). `docs/sticky-sessions.md` describes both ways
//! of running a cluster: with a sticky proxy, where nothing of this happens, and without.

mod keys;
pub mod sid;

pub use keys::ClusterKeys;
pub use sid::{NodeKey, Sids};
