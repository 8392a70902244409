//! The binary: see `roomcast --help`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use roomcast::cli::{Cli, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers too; nobody is left to tell of a closed output.
            _ = answer.print();
            return if answer.use_stderr() { Failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell of a closed output.
            _ = writeln!(std::io::stderr(), "{failure}");
            failure.code()
        }
    }
}
