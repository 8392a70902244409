//! Everything that operators see: metrics, logs, the audit log and traces.

pub mod audit;
#[cfg(test)]
mod catalogue;
pub mod log_limit;
pub mod log_writer;
pub mod logging;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod process;
pub mod trace;
pub mod version;

/// The name of the header, and of the CloudEvents extension.
pub const TRACE_HEADER: &str = "traceparent";
