//! What the node logs, to standard error: standard output is for what it says to programs and to newcomers.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry, fmt, registry};

/// How a record looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people, in colours on a terminal.
    Human,
    /// A JSON object a line: `timestamp`, `level`, `target`, `message`, the fields, and in `span` those of what it happened in.
    Json,
}

/// At `trace`, libraries write down what is on the wire, tokens among it: such records are never taken.
fn shows_no_wire(record: &Metadata<'_>) -> bool {
    *record.level() != Level::TRACE || record.target().starts_with("roomcast")
}

/// Begins logging for the whole process, with another layer beside it if there is one.
///
/// # Errors
/// When something else has begun already.
pub fn init<L>(format: Format, targets: Targets, beside: Option<L>) -> Result<(), TryInitError>
where
    L: tracing_subscriber::Layer<Registry> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match format {
        Format::Human => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    registry().with(beside).with(layer.with_filter(targets.and(filter_fn(shows_no_wire)))).try_init()
}
