//! An application as data: what clients may send, what backends may publish, who may join which room.
//!
//! Knows neither Redis nor sockets, so that every rule is a plain unit test.

pub mod embedded;
pub mod file;
pub mod load;
pub mod members;
pub mod model;
pub mod namespace;
pub mod path;
pub mod payload;
pub mod report;
pub mod room_name;
pub mod rule;
pub mod schema;
pub mod scope;
pub mod template;

mod compile;
mod document;
mod reads;
mod structure;
mod suggest;
