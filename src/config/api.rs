//! `[api]`

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, is_name};
use super::{Period, Secret, Size};

/// In bytes; a longer one cannot be guessed.
const SHORTEST_SECRET: usize = 16;

/// The listener for backends and operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Api {
    /// Where backends and operators connect, as `ADDRESS:PORT`. Port 0 takes any free one.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Who may use it. Without a key nobody may, and only `/live`, `/ready` and `/metrics` answer.
    pub keys: Vec<ApiKey>,
    /// How long the `id` of a publish is remembered: within this time the same id publishes once.
    pub idempotency_ttl: Period,
    /// No request's body is larger; 1kB to 100MB.
    pub max_body: Size,
    /// At most so many events are in one batch; 1 to 10000.
    pub max_batch: usize,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3001)),
            keys: Vec::new(),
            idempotency_ttl: Period::from_secs(600),
            max_body: Size::from_bytes(10_000_000),
            max_batch: 1000,
        }
    }
}

/// A backend's key. Two with the same name can be valid at once, so that keys can be rotated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// Who holds it; appears in logs.
    pub name: String,
    /// What is sent as `Authorization: Bearer …`; at least 16 characters.
    pub secret: Secret,
    /// The contracts that it may publish to and read of; `*`: all, and plain emits.
    pub contracts: Vec<String>,
}

impl Default for ApiKey {
    fn default() -> Self {
        Self { name: String::new(), secret: Secret::default(), contracts: vec!["*".into()] }
    }
}

impl Api {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        check.must((1_000..=100_000_000).contains(&self.max_body.bytes()), "max_body", "must be 1kB to 100MB");
        check.must((1..=10_000).contains(&self.max_batch), "max_batch", "must be 1 to 10000");
        for (index, key) in self.keys.iter().enumerate() {
            check.entry("keys", index, |check| {
                if !is_name(&key.name, 64) {
                    let problem = "must be 1 to 64 letters, digits, dots, hyphens or underscores";
                    check.refuse("name", problem, "name the backend that holds the key");
                }
                check.secret("secret", &key.secret, SHORTEST_SECRET);
                if key.contracts.is_empty() {
                    check.refuse(
                        "contracts",
                        "a key without contracts may do nothing",
                        "name them, or write [\"*\"] for all",
                    );
                }
                if self.keys[..index].iter().any(|earlier| earlier.secret == key.secret) && !key.secret.is_empty() {
                    check.refuse("secret", "another key has the same secret", "give each holder a secret of its own");
                }
            });
        }
    }
}
