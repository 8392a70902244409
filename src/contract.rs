//! Contracts: applications as data. A contract says what clients may send, what backends may publish, and who may join
//! which room.
//!
//! This module uses neither Redis nor sockets, so every rule can be tested in a plain unit test.

pub mod digits;
pub mod embedded;
pub mod event_name;
pub mod file;
pub mod handshake;
pub mod json_object;
pub mod load;
pub mod model;
pub mod namespace;
pub mod path;
pub mod payload;
pub mod report;
pub mod room_name;
pub mod rule;
pub mod schema;
pub mod scope;
pub mod sent;
pub mod template;

mod compile;
mod document;
mod reads;
mod structure;
