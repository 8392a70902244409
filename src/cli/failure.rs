//! What went wrong, and the exit code that says it to scripts.

use std::fmt;
use std::process::ExitCode;

use crate::auth::AuthSetupError;
use crate::config::ConfigError;
use crate::contract::report::Report;

/// Everything else.
const RUN: u8 = 1;

/// What went wrong.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    code: u8,
}

impl Failure {
    /// The exit code of `EX_USAGE` in sysexits.h: somebody has to write something else.
    pub const USAGE: u8 = 64;

    /// The configuration or a contract is wrong.
    pub fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), code: Self::USAGE }
    }

    /// The node could not start, or ended with an error. What is wrong with the configuration is found among the causes.
    pub fn run(error: anyhow::Error) -> Self {
        let is_configuration = error
            .chain()
            .any(|cause| cause.is::<ConfigError>() || cause.is::<Report>() || cause.is::<AuthSetupError>());
        Self { error, code: if is_configuration { Self::USAGE } else { RUN } }
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        self.code.into()
    }
}

// With its causes, in one line each time.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_operators_are_told_from_misfortunes() {
        let wrong = anyhow::Error::from(ConfigError { mistakes: Vec::new() }).context("the node cannot start");
        assert_eq!(Failure::run(wrong).code, 64);
        assert_eq!(Failure::run(Report::default().into()).code, 64);
        assert_eq!(Failure::run(anyhow::anyhow!("the port is taken")).code, 1);
    }
}
