//! `[contracts]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;

/// The contracts that the node serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Contracts {
    /// Contract files: paths, globs or directories, and `embedded:NAME` or `embedded:*` for contracts inside the
    /// binary.
    pub files: Vec<String>,
}

impl Contracts {
    pub(super) fn check(&self, check: &mut Check<'_>) {
        for (index, file) in self.files.iter().enumerate() {
            let holds = !file.trim().is_empty() && file != "embedded:";
            check.must(holds, &format!("files.{index}"), "must be a path, a glob, a directory or embedded:NAME");
        }
    }
}
