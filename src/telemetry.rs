//! What operators see: metrics, logs, and the audit log.

pub mod audit;
pub mod catalogue;
pub mod logging;
pub mod metrics;
pub mod process;
