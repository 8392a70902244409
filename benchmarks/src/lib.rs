//! Measures roomcast beside other servers. `README.md` explains how.

pub mod load;
pub mod report;
pub mod scenario;
pub mod server;
pub mod wire;
