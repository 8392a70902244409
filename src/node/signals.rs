//! Handles the signals of the process.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::logging::Logging;

/// Listens for SIGTERM and SIGINT from the start of the process to its end. Without a listener, a signal would end the
/// process at once, or be lost.
pub(super) struct EndSignals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl EndSignals {
    /// The node listens for signals from this call on, not only from the first wait.
    pub(super) fn listen() -> Self {
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            () = received(&mut self.terminate) => SignalKind::terminate(),
            () = received(&mut self.interrupt) => SignalKind::interrupt(),
        }
    }

    /// Ends the process at the next signal, with the exit code that shells use for it.
    pub(super) async fn end_at_next(mut self, logging: Arc<Logging>) {
        let code = 128 + self.next().await.as_raw_value();
        tracing::warn!(code, "received a second signal to end: ending at once");
        logging.flush();
        std::process::exit(code);
    }
}

/// Starts handling the signals that do not end the node: SIGUSR1 raises the log level, SIGUSR2 lowers it, and SIGHUP
/// does nothing. Needs a Tokio runtime.
pub(super) fn handle_log_signals(logging: Arc<Logging>) {
    let mut raise = signal(SignalKind::user_defined1()).ok();
    let mut lower = signal(SignalKind::user_defined2()).ok();
    let mut hang_up = signal(SignalKind::hangup()).ok();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = received(&mut raise) => logging.raise(),
                () = received(&mut lower) => logging.lower(),
                () = received(&mut hang_up) => {
                    tracing::warn!("SIGHUP is ignored: a node reads its files only at its start; restart it to apply changes");
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
