//! roomcast: a Socket.IO server that is configured, not coded, and scales out through Redis.
//!
//! A module may use modules of earlier rows, never of its own row or of later ones (`tests/tidy.rs` enforces it):
//!
//! ```text
//! json protocol query suggest time   text and numbers
//! msgpack                     JSON as MessagePack
//! event user error rate       values
//! config contract telemetry directory   facts
//! redis                       the clients of Redis
//! auth limits hooks drain forward   abilities
//! session order               a client
//! room                        the index of members
//! history presence owners mirror idempotency throttle   shared state
//! recovery                    sessions of clients that come back
//! publish                     the one way out
//! cluster gateway             the two directions
//! engine http doctor          edges
//! node cli                    composition
//! ```

// For `session/recorder.rs`, which unit tests and `tests/` share.
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
pub mod suggest;
pub mod telemetry;
pub mod throttle;
pub mod time;
pub mod user;
