//! The integration tests, as one program: each file of this folder is a module of it. `cargo test --test it` runs all,
//! `cargo test --test it limits::` those of `limits.rs`. `README.md` lists the files, and the few programs of their
//! own.

mod support {
    pub mod backend;
    pub mod client;
    pub mod engine;
    pub mod node;
    pub mod presence;
    pub mod process;
    pub mod proxy;
    #[expect(dead_code, reason = "unit tests use the rest")]
    #[path = "../../src/session/recorder.rs"]
    pub mod recorder;
    pub mod redis;
}

mod chaos;
mod cli;
mod cluster;
mod codec;
mod contracts;
mod engine;
mod fuzz;
mod hooks;
mod limits;
mod mirror;
mod native;
mod operations;
mod peers;
mod redis;
mod replay;
mod stores;
