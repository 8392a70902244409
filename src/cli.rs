//! The command line.

mod check;
mod dev;
mod doctor;
mod drain;
mod failure;
mod serve;
mod token;
pub mod welcome;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use failure::Failure;

use crate::config::{self, LoadedConfig, Sources};
use crate::telemetry::version::LINE;

/// A Socket.IO server that is configured by contracts and scales out through Redis.
///
/// Settings come from roomcast.toml, and from variables ROOMCAST_SECTION__KEY, which override the file.
///
/// Exit codes: 0 success; 1 the command failed; 64 wrong usage, configuration or contracts; 143 or 130 a second SIGTERM
/// or SIGINT stopped a node that was draining.
#[derive(Debug, Parser)]
#[command(version = LINE, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node.
    Serve(serve::ServeArgs),
    /// Tells a running node to hand its clients over to other nodes, and to keep running; or to serve again.
    Drain(drain::DrainArgs),
    /// Checks contract files; without files, checks the configuration and the contracts that it names. Reports every
    /// mistake at once.
    Check(check::CheckArgs),
    /// Prints the effective configuration as TOML, with the layer of each value. Secrets are hidden.
    Config(ConfigFile),
    /// Prints the JSON Schema of contract files, or of roomcast.toml, for editors.
    Schema {
        /// The file that the schema describes.
        #[arg(value_enum, default_value = "contract")]
        of: SchemaKind,
    },
    /// Checks a deployment from outside, as clients see it: handshakes, sticky sessions, proxy time-outs, CORS, tokens,
    /// Redis.
    Doctor(doctor::DoctorArgs),
    /// Makes a token for development, signed with a shared secret.
    Token(token::TokenArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    /// A contract.
    Contract,
    /// roomcast.toml.
    Config,
}

/// The configuration file.
#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file. Default: the file that ROOMCAST_CONFIG names, else roomcast.toml, if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self, flags: Vec<(&'static str, &'static str, String)>) -> Result<LoadedConfig, Failure> {
        config::load(Sources::of_process(self.config.clone(), flags)).map_err(Failure::configuration)
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Returns the failure, with its exit code.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Drain(args) => drain::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Config(file) => write_stdout(&file.load(Vec::new())?.to_toml()),
            Command::Schema { of } => {
                let schema = match of {
                    SchemaKind::Contract => crate::contract::file::json_schema(),
                    SchemaKind::Config => config::keys::json_schema(),
                };
                write_stdout(&format!("{schema:#}\n"))
            }
            Command::Doctor(args) => doctor::run(&args),
            Command::Token(args) => write_stdout(&format!("{}\n", token::run(&args)?)),
        }
    }
}

/// Writes to standard output. If the reader has closed it, the writing ends without an error.
fn write_stdout(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::run(error.into())),
        _ => Ok(()),
    }
}
