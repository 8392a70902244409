//! `roomcast check`

use clap::Args;

use super::{ConfigFile, Failure, write_stdout};
use crate::config::Config;
use crate::contract::load;
use crate::{auth, node};

/// The contracts to check.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Contract files, globs, directories, or embedded:NAME. Default: the configuration and the contracts that it
    /// names, also against each other.
    files: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    if args.files.is_empty() {
        return deployment(&args.config.load(Vec::new())?.config);
    }
    let summary = load::check(&args.files).map_err(Failure::configuration)?;
    write_stdout(&format!("{summary}\n"))
}

/// Checks that a node would start with this configuration.
fn deployment(config: &Config) -> Result<(), Failure> {
    auth::check_keys(&config.auth).map_err(Failure::configuration)?;
    let namespaces = load::load(&config.contracts.files).map_err(Failure::configuration)?;
    let contracts: Vec<_> = namespaces.iter().flat_map(|namespace| namespace.contracts.iter().cloned()).collect();
    node::check_requirements(config, &contracts).map_err(Failure::configuration)?;
    let summary = load::check(&config.contracts.files).map_err(Failure::configuration)?;
    write_stdout(&format!("the configuration has no mistakes\n{summary}\n"))
}
