//! What operators see: metrics, logs, the audit log and traces.

pub mod audit;
pub mod catalogue;
pub mod logging;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod process;
pub mod trace;
