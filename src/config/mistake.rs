//! Mistakes of a configuration, all reported at once.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingMistake {
    /// The dotted key, or the name of a variable. Empty if the mistake concerns a whole file.
    pub key: String,
    /// The value. `None` if it is a secret or absent.
    pub value: Option<String>,
    /// Where the key was set: a file and line, or a variable. `None` if it was not set.
    pub layer: Option<String>,
    /// The problem.
    pub problem: String,
    /// The remedy.
    pub remedy: String,
}

// A mistake as text:
// `limits.strikes = -1 (from environment ROOMCAST_LIMITS__STRIKES): must be …; remove it for the default, 0`
impl fmt::Display for SettingMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(layer) = &self.layer {
            write!(f, "{}(from {layer})", if self.key.is_empty() { "" } else { " " })?;
        }
        write!(f, ": {}", self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Every mistake of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The mistakes in the order in which they were found; there is at least one.
    pub mistakes: Vec<SettingMistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            writeln!(f, "{mistake}")?;
        }
        let count = self.mistakes.len();
        write!(f, "{count} {} in the configuration", if count == 1 { "mistake" } else { "mistakes" })
    }
}

impl std::error::Error for ConfigError {}
