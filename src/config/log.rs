//! `[log]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::check::SectionCheck;

/// The log's format and levels. Logs go to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Log")]
pub struct LogSettings {
    /// `human` for terminals, `json` for collectors.
    pub format: LogFormat,
    /// A level (error, warn, info, debug, trace), and levels of single targets: `info,roomcast::auth=debug`. SIGUSR1
    /// raises and SIGUSR2 lowers all of them.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".into() }
    }
}

/// The format of a log record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for each record, for people.
    #[default]
    Human,
    /// One JSON object in each line.
    Json,
}

impl LogSettings {
    pub(super) fn check(&self, check: &mut SectionCheck<'_>) {
        if let Err(part) = self.targets() {
            let problem =
                format!("{part:?} is neither a level (error, warn, info, debug, trace, off) nor TARGET=LEVEL");
            check.refuse("level", &problem, "write for example \"info\" or \"info,roomcast::auth=debug\"");
        }
    }

    /// The log levels by target.
    ///
    /// # Errors
    /// Returns the text of the first part that is neither a level nor `TARGET=LEVEL`.
    pub fn targets(&self) -> Result<Targets, String> {
        let mut parts = self.level.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.try_fold(Targets::new(), |targets, part| {
            let (target, level) = part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
            let level: LevelFilter = level.trim().parse().map_err(|_| part.to_owned())?;
            Ok(match target {
                Some(target) => targets.with_target(target.trim(), level),
                None => targets.with_default(level),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_from_targets() {
        let log = |level: &str| LogSettings { level: level.into(), ..LogSettings::default() }.targets();
        let targets = log("info, roomcast::auth=debug,hyper=off").unwrap();
        assert!(targets.would_enable("roomcast::auth::jwks", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("roomcast::http", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("hyper", &tracing::Level::ERROR));
        for bad in ["loud", "roomcast", "info,roomcast=loud", "6"] {
            assert!(log(bad).is_err(), "{bad}");
        }
    }
}
