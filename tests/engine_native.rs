//! Runs the engine tests on the native engine.

#[path = "engine/doors.rs"]
mod doors;
#[path = "engine/rfc6455.rs"]
mod rfc6455;
#[path = "engine/suite.rs"]
mod suite;

const ENGINE: roomcast::config::Engine = roomcast::config::Engine::Native;
