//! The tests of engines, on the library's.

#[path = "engine/doors.rs"]
mod doors;
#[path = "engine/suite.rs"]
mod suite;

const ENGINE: roomcast::config::Engine = roomcast::config::Engine::Socketioxide;
