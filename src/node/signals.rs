//! What the process does when it is signalled.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::logging::Logging;

/// SIGTERM and SIGINT. They are listened for from the start and by the same streams throughout: one that came while
/// nobody listened would end the process at once, or be lost.
pub(super) struct EndSignals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl EndSignals {
    /// Listens from the call on, not from the first wait.
    pub(super) fn listen() -> Self {
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            () = received(&mut self.terminate) => SignalKind::terminate(),
            () = received(&mut self.interrupt) => SignalKind::interrupt(),
        }
    }

    /// Ends the process at the next one, with the code by which a shell knows it.
    pub(super) async fn end_at_next(mut self, logging: Arc<Logging>) {
        let code = 128 + self.next().await.as_raw_value();
        tracing::warn!(code, "told to go a second time: ending at once");
        logging.flush();
        std::process::exit(code);
    }
}

/// Obeys the signals that do not end the node, from the call on: SIGUSR1 raises the log level, SIGUSR2 lowers it, and
/// SIGHUP does nothing. Needs a Tokio runtime.
pub(super) fn obey(logging: Arc<Logging>) {
    let mut raise = signal(SignalKind::user_defined1()).ok();
    let mut lower = signal(SignalKind::user_defined2()).ok();
    let mut hang_up = signal(SignalKind::hangup()).ok();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = received(&mut raise) => logging.raise(),
                () = received(&mut lower) => logging.lower(),
                () = received(&mut hang_up) => {
                    tracing::warn!("SIGHUP is ignored: a node reads its files once; restart it to have them read again");
                }
            }
        }
    });
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
