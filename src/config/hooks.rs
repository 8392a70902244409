//! `[hooks.<name>]`

use std::time::Duration;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, is_name};
use super::{Period, Secret, Url};

/// In bytes; a longer one cannot be guessed.
const SHORTEST_SECRET: usize = 16;
/// A backend that failed so often will not answer the next one.
const MOST_RETRIES: u32 = 10;

/// A backend that contracts may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// Where it is called.
    pub url: Url,
    /// What requests are signed with; not set: they are not signed.
    pub secret: Option<Secret>,
    /// The secret before the last rotation: requests carry a signature of each.
    pub previous_secret: Option<Secret>,
    /// How long an answer is waited for.
    pub timeout: Period,
    /// How many calls may be under way at once.
    pub concurrency: usize,
    /// How many more may wait; beyond that, calls fail at once.
    pub queue: usize,
    /// How often a call that the contract calls idempotent is repeated.
    pub retries: u32,
    /// When calls are no longer tried.
    pub breaker: Breaker,
    /// PEM file of the authority that signed the backend's certificate; not set: those of the system.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of our own certificate, where the backend asks for one.
    #[schemars(with = "Option<String>")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of its private key.
    #[schemars(with = "Option<String>")]
    pub key_file: Option<PathBuf>,
}

impl Default for Hook {
    fn default() -> Self {
        Self {
            url: Url::default(),
            secret: None,
            previous_secret: None,
            timeout: Period::from_secs(5),
            concurrency: 64,
            queue: 256,
            retries: 2,
            breaker: Breaker::default(),
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// When calls are no longer tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// After so many failures in a row …
    pub failures: u32,
    /// … for so long; then one call tries again.
    pub open: Period,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open: Period::from_secs(10) }
    }
}

impl Hook {
    pub(super) fn check(&self, name: &str, check: &mut Check<'_>) {
        if !is_name(name, 64) {
            let problem = "a hook's name is 1 to 64 letters, digits, dots, hyphens or underscores";
            check.refuse("", problem, "choose another, here and in the contracts");
        }
        if self.url.is_empty() {
            check.refuse("url", "is missing", "set where the backend is called");
        } else {
            check.url("url", &self.url, &["https", "http"]);
        }
        for (key, secret) in [("secret", &self.secret), ("previous_secret", &self.previous_secret)] {
            if let Some(secret) = secret {
                check.secret(key, secret, SHORTEST_SECRET);
            }
        }
        if self.previous_secret.is_some() && self.secret.is_none() {
            check.refuse("previous_secret", "there is no newer one", "set `secret`");
        }
        check.at_least("timeout", *self.timeout, Duration::from_millis(10));
        check.count("concurrency", self.concurrency);
        check.must(self.retries <= MOST_RETRIES, "retries", "must be 10 at most");
        check.must(self.breaker.failures >= 1, "breaker.failures", "must be at least 1");
        check.time("breaker.open", *self.breaker.open);
        check.tls_files([
            ("ca_file", self.ca_file.as_ref()),
            ("cert_file", self.cert_file.as_ref()),
            ("key_file", self.key_file.as_ref()),
        ]);
    }
}
