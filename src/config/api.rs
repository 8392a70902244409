//! `[api]`

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{SectionCheck, is_name};
use super::{Period, Secret, Size};

/// Minimum length of an API key's secret, in bytes. A shorter one could be guessed.
const SHORTEST_SECRET: usize = 16;

/// The listener for backends and operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Api")]
pub struct ApiSettings {
    /// The address where backends and operators connect, as `ADDRESS:PORT`. Port 0 takes any free port.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The keys that permit requests. Without a key, the API refuses every request, and only `/live`, `/ready` and
    /// `/metrics` answer.
    pub keys: Vec<ApiKeySettings>,
    /// How long the `id` of a publish is remembered: within this time the same id publishes once.
    pub idempotency_ttl: Period,
    /// Maximum size of a request's body; 1kB to 100MB.
    pub max_body: Size,
    /// Maximum number of events in one batch; 1 to 10000.
    pub max_batch: usize,
}

impl Default for ApiSettings {
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

/// The key of one backend. Two keys may have the same name, so that a key can be replaced without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ApiKey")]
pub struct ApiKeySettings {
    /// The name of the backend that holds the key; log records show it.
    pub name: String,
    /// The secret that the backend sends as `Authorization: Bearer …`; at least 16 characters.
    pub secret: Secret,
    /// The contracts that the key may publish to and read. `*` means all contracts, and events that no contract
    /// declares.
    pub contracts: Vec<String>,
}

impl Default for ApiKeySettings {
    fn default() -> Self {
        Self { name: String::new(), secret: Secret::default(), contracts: vec!["*".into()] }
    }
}

impl ApiSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
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
                        "a key without contracts permits nothing",
                        "name the contracts, or write [\"*\"] for all",
                    );
                }
                if self.keys[..index].iter().any(|earlier| earlier.secret == key.secret) && !key.secret.is_empty() {
                    check.refuse("secret", "another key has the same secret", "give each holder a secret of its own");
                }
            });
        }
    }
}
