//! What operators see: metrics, and logs.

pub mod catalogue;
pub mod logging;
pub mod metrics;
pub mod process;
