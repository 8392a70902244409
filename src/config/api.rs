//! `[api]`

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Check, is_name};
use super::{Period, Secret};

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
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3001)),
            keys: Vec::new(),
            idempotency_ttl: Period::from_secs(600),
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
