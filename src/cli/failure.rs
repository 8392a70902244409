//! Failures of commands, and their exit codes for scripts.

use std::fmt;
use std::process::ExitCode;

use crate::auth::AuthSetupError;
use crate::config::ConfigError;
use crate::contract::report::ContractReport;

/// The exit code of all failures that have no code of their own.
const RUN: u8 = 1;

/// A failure and its exit code.
#[derive(Debug)]
pub struct Failure {
    error: anyhow::Error,
    code: u8,
}

impl Failure {
    /// The exit code of `EX_USAGE` in sysexits.h: the command line, the configuration or a contract has to be
    /// corrected.
    pub const USAGE: u8 = 64;

    /// The configuration or a contract is wrong.
    pub fn configuration(error: impl Into<anyhow::Error>) -> Self {
        Self { error: error.into(), code: Self::USAGE }
    }

    /// The node could not start, or ended with an error. If a mistake of the configuration is among the causes, the
    /// exit code says so.
    pub fn run(error: anyhow::Error) -> Self {
        let is_configuration = error
            .chain()
            .any(|cause| cause.is::<ConfigError>() || cause.is::<ContractReport>() || cause.is::<AuthSetupError>());
        Self { error, code: if is_configuration { Self::USAGE } else { RUN } }
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        self.code.into()
    }
}

// Writes the error and its causes on one line each.
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
        assert_eq!(Failure::run(ContractReport::default().into()).code, 64);
        assert_eq!(Failure::run(anyhow::anyhow!("the port is taken")).code, 1);
    }
}
