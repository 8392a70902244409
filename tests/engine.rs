//! The tests of engines, on the library's.

#[path = "engine/suite.rs"]
mod suite;

const ENGINE: roomcast::config::Engine = roomcast::config::Engine::Socketioxide;
