//! `[contracts]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::SectionCheck;

/// The contracts that the node serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Contracts")]
pub struct ContractsSettings {
    /// Contract files: paths, globs or directories, and `embedded:NAME` or `embedded:*` for contracts inside the
    /// binary.
    pub files: Vec<String>,
}

impl ContractsSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        for (index, file) in self.files.iter().enumerate() {
            let holds = !file.trim().is_empty() && file != "embedded:";
            check.must(holds, &format!("files.{index}"), "must be a path, a glob, a directory or embedded:NAME");
        }
    }
}
