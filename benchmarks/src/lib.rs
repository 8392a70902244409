//! Measures roomcast beside its peers. `README.md` says what and how.

pub mod load;
pub mod report;
pub mod scenario;
pub mod server;
pub mod wire;
