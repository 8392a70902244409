//! `roomcast doctor`: checks a deployment from outside, as clients, backends and operators see it.
//!
//! The doctor first opens a long-polling session. Then all other checks run at once, each for at most
//! [`DoctorOptions::patience`]. The report names a remedy for every problem. The doctor opens and closes sessions, and
//! writes nothing but one key to Redis, which expires after a second.

mod api;
mod cors;
mod deployment;
mod frames;
mod polling;
mod proxy_timeouts;
mod redis;
mod report;
mod token;
mod websocket;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use crate::config::{Secret, Url};

use deployment::Deployment;
pub use report::{DoctorReport, Finding, Level};

/// The deployment to check, and the options of the checks.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// The URL at which clients connect: `https://rt.example.com`, with the path if it is not `/socket.io/`.
    pub target: reqwest::Url,
    /// The URL of the API: the listener of one node, or a Service in front of several.
    pub api: Option<reqwest::Url>,
    /// An API key.
    pub key: Option<Secret>,
    /// The Redis that the nodes use.
    pub redis: Option<Url>,
    /// A client's token.
    pub token: Option<Secret>,
    /// The namespace in which the token is tried.
    pub namespace: String,
    /// A page's origin that should be able to connect.
    pub origin: Option<String>,
    /// A PEM file with a certificate authority that is trusted besides those of the system, for the target and the
    /// API.
    pub ca: Option<PathBuf>,
    /// How many times a long-polling session is polled, to check that each poll reaches the node that has the session.
    pub polls: u32,
    /// The names of the checks to skip. A name also covers the checks whose names begin with it and a dot.
    pub skip: Vec<String>,
    /// The longest time that a check may take. The checks run at the same time, after the first one.
    pub patience: Duration,
}

/// Why the doctor could check nothing.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The file with the certificate authority cannot be used.
    #[error("--ca {path}: {problem}")]
    Authority {
        /// The file's path.
        path: PathBuf,
        /// The problem with the file of the certificate authority.
        problem: String,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

/// Every check, in the order of the documentation.
pub const CHECKS: &[&str] = &[
    FIRST,
    "handshake.websocket",
    "stickiness",
    "stickiness.no_cookies",
    "upgrade",
    "patience.websocket",
    "patience.polling",
    "cors",
    "cors.strangers",
    "clock",
    "token.times",
    "token.accepted",
    "api.ready",
    "api.open_files",
    "api.clients",
    "api.key",
    "redis",
    "redis.writes",
    "redis.version",
    "redis.mode",
    "redis.delay",
    "redis.output_buffer",
    "redis.eviction",
];

/// The check that runs first. Without the session that it opens, only the checks of the API and of Redis can run.
const FIRST: &str = "handshake.polling";

type CheckFn<'a> = (&'static str, Pin<Box<dyn Future<Output = Vec<Finding>> + Send + 'a>>);

/// Opens a long-polling session, then runs all other checks at once.
///
/// # Errors
/// Returns only errors that prevent the checks from running. What the checks find is in the report.
pub async fn examine(options: &DoctorOptions) -> Result<DoctorReport, DoctorError> {
    let deployment = Deployment::new(options)?;
    // If no session can be opened, the other checks of the clients' side would only repeat this finding.
    let (first, opened) = polling::handshake(&deployment).await;
    let mut findings = first;
    let mut checks: Vec<CheckFn<'_>> = Vec::new();
    let skipped = |check: &str| options.skip.iter().any(|name| covers(name, check));
    if let Some(opened) = &opened {
        checks.push(("stickiness", Box::pin(polling::stickiness(&deployment, options.polls))));
        checks.push(("handshake.websocket", Box::pin(websocket::open(&deployment))));
        checks.push(("upgrade", Box::pin(websocket::upgrade(&deployment))));
        checks.push(("patience.websocket", Box::pin(proxy_timeouts::check_silent_session(&deployment, opened))));
        checks.push(("patience.polling", Box::pin(proxy_timeouts::waiting(&deployment, opened))));
        checks.push(("cors", Box::pin(cors::check(&deployment, options.origin.as_deref()))));
        checks.push(("token.accepted", Box::pin(token::check(&deployment, options))));
    }
    if let Some(api) = &options.api {
        checks.push(("api.ready", Box::pin(api::check(&deployment, api, options.key.as_ref()))));
    }
    if let Some(redis) = &options.redis {
        checks.push(("redis", Box::pin(redis::check(redis))));
    }
    checks.retain(|(name, _)| !skipped(name));
    let bounded = checks.into_iter().map(async |(name, check)| {
        tokio::time::timeout(options.patience, check).await.unwrap_or_else(|_| {
            let found = format!("not known: it took longer than {} s", options.patience.as_secs_f64());
            vec![Finding::unknown(name, found, "give it more time with --patience, or look at what is slow")]
        })
    });
    for found in futures_util::future::join_all(bounded).await {
        findings.extend(found);
    }
    findings.retain(|finding| !skipped(finding.check));
    Ok(DoctorReport { target: options.target.to_string(), findings })
}

/// Checks that a name given to `--skip` names checks that can be skipped.
///
/// # Errors
/// Returns a sentence that says why: no check has this name, or all other checks need it.
pub fn may_skip(name: &str) -> Result<(), String> {
    if covers(name, FIRST) {
        return Err(format!("{FIRST} cannot be skipped: everything else begins with it"));
    }
    if CHECKS.iter().any(|check| covers(name, check)) {
        return Ok(());
    }
    Err(format!("there is no check {name:?}: there are {}", CHECKS.join(", ")))
}

fn covers(name: &str, check: &str) -> bool {
    check.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_check_and_those_below_it() {
        assert!(covers("redis", "redis.mode") && covers("cors", "cors"));
        assert!(!covers("redis.mode", "redis") && !covers("cor", "cors") && !covers("", "cors"));
    }

    #[test]
    fn what_is_unknown_or_needed_cannot_be_skipped() {
        assert_eq!(may_skip("stickiness"), Ok(()));
        assert!(may_skip("handshake").unwrap_err().contains("begins with it"));
        assert!(may_skip("sticky").unwrap_err().contains("stickiness"));
    }

    #[test]
    fn every_check_is_in_the_manual() {
        let manual = include_str!("../docs/doctor.md");
        for check in CHECKS {
            assert!(manual.contains(&format!("`{check}`")), "{check}");
        }
    }
}
