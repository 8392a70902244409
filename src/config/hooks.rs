//! `[hooks.<name>]`

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Secret, Url};

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
