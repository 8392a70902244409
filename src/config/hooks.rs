//! `[hooks.<name>]`

use std::time::Duration;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{SectionCheck, is_name};
use super::{Period, Secret, Url};

/// Minimum length of a hook's secret, in bytes. A shorter one could be guessed.
const SHORTEST_SECRET: usize = 16;
/// Maximum of `retries`. After this many failures another try is of no use.
const MOST_RETRIES: u32 = 10;

/// A backend that contracts may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Hook")]
pub struct HookSettings {
    /// The URL of the backend, which the node calls.
    pub url: Url,
    /// The secret with which the node signs requests to the backend. Not set: requests are not signed.
    pub secret: Option<Secret>,
    /// The secret before the last change of `secret`; requests are signed with both. Requests carry a signature with
    /// each of the two.
    pub previous_secret: Option<Secret>,
    /// How long the node waits for an answer of the backend.
    pub timeout: Period,
    /// How many calls of the hook may be in progress at once.
    pub concurrency: usize,
    /// How many further calls of the hook may wait. Beyond that, calls fail at once.
    pub queue: usize,
    /// How often a failed call is repeated, if the contract declares it idempotent.
    pub retries: u32,
    /// The circuit breaker: when the node stops calling a backend that fails.
    pub breaker: BreakerSettings,
    /// PEM file of the authority that signed the backend's certificate. Not set: the system's authorities.
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the node's own certificate, if the backend asks for one.
    #[schemars(with = "Option<String>")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the private key of that certificate.
    #[schemars(with = "Option<String>")]
    pub key_file: Option<PathBuf>,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            url: Url::default(),
            secret: None,
            previous_secret: None,
            timeout: Period::from_secs(5),
            concurrency: 64,
            queue: 256,
            retries: 2,
            breaker: BreakerSettings::default(),
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }
}

/// The circuit breaker: when the node stops calling a backend that fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Breaker")]
pub struct BreakerSettings {
    /// Number of failed calls in a row after which the node stops calling the backend.
    pub failures: u32,
    /// How long the node stops calling the backend. After that, one call tries again.
    pub open: Period,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, open: Period::from_secs(10) }
    }
}

impl HookSettings {
    pub(super) fn check(&self, name: &str, check: &mut SectionCheck<'_>) {
        if !is_name(name, 64) {
            let problem = "a hook's name is 1 to 64 letters, digits, dots, hyphens or underscores";
            check.refuse("", problem, "choose another, here and in the contracts");
        }
        if self.url.is_empty() {
            check.refuse("url", "is missing", "set the URL of the backend");
        } else {
            check.url("url", &self.url, &["https", "http"]);
        }
        for (key, secret) in [("secret", &self.secret), ("previous_secret", &self.previous_secret)] {
            if let Some(secret) = secret {
                check.secret(key, secret, SHORTEST_SECRET);
            }
        }
        if self.previous_secret.is_some() && self.secret.is_none() {
            check.refuse("previous_secret", "is set, but `secret` is not", "set `secret`");
        }
        check.at_least("timeout", *self.timeout, Duration::from_millis(10));
        check.count("concurrency", self.concurrency);
        check.must(self.retries <= MOST_RETRIES, "retries", "must be at most 10");
        check.must(self.breaker.failures >= 1, "breaker.failures", "must be at least 1");
        check.time("breaker.open", *self.breaker.open);
        check.tls_files([
            ("ca_file", self.ca_file.as_ref()),
            ("cert_file", self.cert_file.as_ref()),
            ("key_file", self.key_file.as_ref()),
        ]);
    }
}
