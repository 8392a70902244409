//! `roomcast check`

use clap::Args;

use super::{ConfigFile, Failure, say};
use crate::contract::load;

/// What is checked.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Contract files, globs, directories, or embedded:NAME. Without any: the configuration, and the contracts that it names.
    files: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let configured = match args.files.as_slice() {
        [] => args.config.load(Vec::new())?.config.contracts.files,
        _ => Vec::new(),
    };
    let files = if args.files.is_empty() { &configured } else { &args.files };
    if files.is_empty() {
        return say("no mistakes in the configuration, which names no contracts\n");
    }
    let summary = load::check(files).map_err(Failure::configuration)?;
    say(&format!("{summary}\n"))
}
