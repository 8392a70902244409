//! Sets up the log, which goes to standard error, because standard output is for the results of commands.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd as _;
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, Registry, fmt, registry, reload};

use super::log_limit::LogLimit;
use super::log_writer::LogWriter;

/// How long the process waits for the log to be written when the process ends. Records that are not written by then are
/// lost.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The levels, from none to all.
const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// Limits the records of panics, so that a request that always panics cannot fill the log.
static PANICS: LazyLock<LogLimit> = LazyLock::new(|| LogLimit::new(10, 1));

/// The format of log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people, with colours on a terminal.
    Human,
    /// One JSON object per line: `timestamp`, `level`, `target`, `message`, the fields, and in `span` the fields of
    /// the spans around it.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Standard error cannot be used.
    #[error("the thread that writes to standard error cannot be started")]
    Output(#[from] io::Error),
    /// Logging has been set up before.
    #[error("logging has been set up already")]
    Begun(#[from] TryInitError),
}

/// Controls the process's log while it runs.
pub struct Logging {
    writer: LogWriter,
    levels: Mutex<Levels>,
    reload: Reload,
}

/// Replaces the filter of levels.
type Reload = Box<dyn Fn(Targets) + Send + Sync>;

/// The configured levels, and by how many steps all of them are raised.
struct Levels {
    configured: Targets,
    raised: isize,
}

/// Refuses the `trace` records of libraries: they contain the data of connections, including tokens.
fn shows_no_wire(record: &Metadata<'_>) -> bool {
    *record.level() != Level::TRACE || record.target().starts_with("roomcast")
}

/// Sets up logging for the whole process, together with the layer `beside` if there is one. Panics are logged as
/// records, because the standard panic message could block when the reader of standard error stalls.
///
/// # Errors
/// Logging has been set up before, or standard error cannot be used.
pub fn init<L>(format: Format, targets: Targets, beside: Option<L>) -> Result<Logging, LoggingError>
where
    L: tracing_subscriber::Layer<Registry> + Send + Sync + 'static,
{
    // The writer does not use the standard library's handle, which holds its lock while a write waits.
    let writer = LogWriter::start(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
    // A layer without a filter, even an absent one, would make `tracing` create every record, also those that nothing
    // shows. So the layer `beside` is added only if there is one.
    let reload = match beside {
        Some(beside) => install(registry().with(beside), format, targets.clone(), writer.clone()),
        None => install(registry(), format, targets.clone(), writer.clone()),
    }?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logging { writer, levels: Mutex::new(Levels { configured: targets, raised: 0 }), reload })
}

fn install<S>(base: S, format: Format, targets: Targets, writer: LogWriter) -> Result<Reload, TryInitError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    let layer = match format {
        Format::Human => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let (filter, handle) = reload::Layer::new(targets);
    base.with(layer.with_filter(filter.and(filter_fn(shows_no_wire)))).try_init()?;
    Ok(Box::new(move |targets| _ = handle.reload(targets)))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let Some(suppressed) = PANICS.pass() else { return };
    let suppressed = (suppressed > 0).then_some(suppressed);
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    tracing::error!(target: "roomcast::panic", suppressed, thread = thread.name(), backtrace, "{panic}");
}

// === impl Logging ===

impl Logging {
    /// Raises the level of all targets by one step, so that more is logged.
    pub fn raise(&self) {
        let levels = self.shift(1);
        tracing::warn!(%levels, "the log level was raised");
    }

    /// Lowers the level of all targets by one step, but never below `error`.
    pub fn lower(&self) {
        // The record is logged before the change, because the new level may hide it.
        let levels = self.levels.lock().expect("no thread panics while it holds this lock").shifted(-1).1;
        tracing::warn!(%levels, "the log level is lowered");
        self.shift(-1);
    }

    /// Waits at most 1 s until all records are written.
    pub fn flush(&self) {
        self.writer.flush(LAST_WORDS);
    }

    /// How many records were lost since the process started.
    pub fn lost(&self) -> u64 {
        self.writer.lost()
    }

    fn shift(&self, by: isize) -> Targets {
        let mut levels = self.levels.lock().expect("no thread panics while it holds this lock");
        let (raised, targets) = levels.shifted(by);
        levels.raised = raised;
        (self.reload)(targets.clone());
        targets
    }
}

// === impl Levels ===

impl Levels {
    /// The levels after a further shift by `by` steps, and the resulting number of steps. A shift without effect is not
    /// counted.
    fn shifted(&self, by: isize) -> (isize, Targets) {
        let all = self.configured.iter().map(|(_, level)| level).chain(self.configured.default_level());
        let steps: Vec<_> = all.map(step).filter(|step| *step > 0).collect();
        let (least, most) = (steps.iter().min().copied().unwrap_or(1), steps.iter().max().copied().unwrap_or(1));
        let raised = (self.raised + by).clamp(1 - most, LEVELS.len() as isize - 1 - least);
        let shift = |level: LevelFilter| match step(level) {
            0 => level,
            step => LEVELS[(step + raised).clamp(1, LEVELS.len() as isize - 1).unsigned_abs()],
        };
        let mut targets: Targets =
            self.configured.iter().map(|(target, level)| (target.to_owned(), shift(level))).collect();
        if let Some(level) = self.configured.default_level() {
            targets = targets.with_default(shift(level));
        }
        (raised, targets)
    }
}

fn step(level: LevelFilter) -> isize {
    LEVELS.iter().position(|one| *one == level).map_or(0, |step| step as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_shifted_together_and_what_is_off_stays_off() {
        let configured: Targets = "info,roomcast::auth=debug,hyper=off".parse().unwrap();
        let mut levels = Levels { configured, raised: 0 };
        let mut shift = |by| {
            let (raised, targets) = levels.shifted(by);
            levels.raised = raised;
            let of = |target: &str| targets.iter().find(|(name, _)| *name == target).unwrap().1;
            (targets.default_level().unwrap(), of("roomcast::auth"), of("hyper"))
        };
        let (off, error, warn) = (LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN);
        let (info, debug, trace) = (LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE);
        assert_eq!(shift(1), (debug, trace, off));
        assert_eq!(shift(1), (trace, trace, off));
        assert_eq!(shift(1), (trace, trace, off));
        assert_eq!(shift(-1), (debug, trace, off), "the shift that changed nothing was not counted");
        assert_eq!(shift(-1), (info, debug, off));
        assert_eq!(shift(-1), (warn, info, off));
        assert_eq!(shift(-1), (error, warn, off));
        assert_eq!(shift(-1), (error, error, off));
        assert_eq!(shift(-1), (error, error, off));
        assert_eq!(shift(1), (error, warn, off));
    }
}
