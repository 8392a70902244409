//! roomcast: a Socket.IO server that is configured, not coded, and scales out through Redis.
//!
//! A module may use modules of earlier rows, never of its own row or of later ones. `tests/tidy.rs` enforces it. Each
//! row says why it may not use the later ones.
//!
//! ```text
//! formats json protocol query suggest time toml_file | text and numbers: every module may use them, so they need no other
//! msgpack | encodings: it reads and writes values without knowing what they are for
//! event user error rate | values: all parts hand them to each other, so they belong to no part
//! config contract telemetry directory | facts: they can be loaded, checked and counted without a running node
//! redis store | the clients of Redis, and the idiom of stores: neither knows what the stores keep
//! auth limits hooks drain forward | abilities: each does one job, and is tested without clients and rooms
//! session order | a client: it does not know its rooms' other members, so that locks are taken in one order
//! room | membership: a delivery does not depend on what is stored about a room
//! history presence owners mirror idempotency throttle | shared state: a store publishes nothing, so that publishing can use it
//! recovery | returning clients: it reads histories and publishes nothing
//! publish | the one way out: it treats an event the same, whether a client, a backend or another node sent it
//! cluster gateway | both directions: they meet in `publish` alone, so that events of both take the same way
//! engine http doctor | edges: they speak protocols, and each can be replaced without a change inside
//! node cli | composition: only here the whole configuration is known
//! ```

// Lets the module `session/recorder.rs`, which unit tests and `tests/` share, name the crate.
#[cfg(test)]
extern crate self as roomcast;

pub mod auth;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod contract;
pub mod directory;
pub mod doctor;
pub mod drain;
pub mod engine;
pub mod error;
pub mod event;
pub mod formats;
pub mod forward;
pub mod gateway;
pub mod history;
pub mod hooks;
pub mod http;
pub mod idempotency;
pub mod json;
pub mod limits;
pub mod mirror;
pub mod msgpack;
pub mod node;
pub mod order;
pub mod owners;
pub mod presence;
pub mod protocol;
pub mod publish;
pub mod query;
pub mod rate;
pub mod recovery;
pub mod redis;
pub mod room;
pub mod session;
pub mod store;
pub mod suggest;
pub mod telemetry;
pub mod throttle;
pub mod time;
pub mod toml_file;
pub mod user;
