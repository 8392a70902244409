//! `[node]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{SectionCheck, is_name};

/// This process: its id and its mode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Node")]
pub struct NodeSettings {
    /// The node's name within the cluster; random for each run unless set. Two nodes must not share one.
    pub id: Option<String>,
    /// Whether the node runs in development mode, which `roomcast serve --dev` sets. Never use it in production: it
    /// prints keys, and then accepts them.
    pub dev: bool,
}

impl NodeSettings {
    /// Returns the configured node id, or a new random id. Call it once and keep the result.
    pub fn id_or_random(&self) -> String {
        self.id.clone().unwrap_or_else(|| {
            let id = uuid::Uuid::new_v4().simple().to_string();
            id[..12].to_owned()
        })
    }
}

impl NodeSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        let holds = self.id.as_ref().is_none_or(|id| is_name(id, 64));
        check.must(holds, "id", "must be 1 to 64 letters, digits, dots, hyphens or underscores");
    }
}
