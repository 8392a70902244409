//! `[contracts]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The applications.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Contracts {
    /// Contract files: paths, globs or directories, and `embedded:NAME` or `embedded:*` for those inside the binary.
    pub files: Vec<String>,
}
