//! The binary: see `roomcast --help`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use roomcast::cli::{Cli, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are printed as answers. If the output is closed, there is nobody to tell.
            _ = answer.print();
            return if answer.use_stderr() { Failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed, there is nobody to tell.
            _ = writeln!(std::io::stderr(), "{failure}");
            failure.code()
        }
    }
}
