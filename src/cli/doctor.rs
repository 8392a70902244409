//! `roomcast doctor`

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::{Failure, write_stdout};
use crate::config::{Period, Secret, Url};
use crate::doctor::{self, DoctorOptions};

/// The deployment to check.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The URL of the clients, with the path if it is not `/socket.io/`: `https://rt.example.com`
    url: String,
    /// The URL of the API's listener: http://10.0.0.7:3001
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// A key of the API. Prefer the variable: other users of the machine can see arguments.
    #[arg(long, value_name = "SECRET", env = "DOCTOR_KEY", hide_env_values = true, requires = "api")]
    key: Option<String>,
    /// The Redis of the nodes, as in redis.url.
    #[arg(long, value_name = "URL", env = "DOCTOR_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// A client's token to check.
    #[arg(long, value_name = "TOKEN", env = "DOCTOR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The namespace in which the token is checked.
    #[arg(long, value_name = "NAMESPACE", default_value = "/")]
    namespace: String,
    /// The origin of a page that should be able to connect, such as `https://app.example.com`
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// PEM file of a certificate authority to trust.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Number of polls that check whether a long-polling session is still known.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    polls: u32,
    /// A check to skip: its name, or the part before the dot (redis). May be given several times.
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = skip)]
    skip: Vec<String>,
    /// The maximum duration. Time-outs of proxies are found only if it is longer than ping_interval + ping_timeout.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    patience: String,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let options = options(args).map_err(Failure::configuration)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot start").map_err(Failure::run)?;
    let report = runtime.block_on(doctor::examine(&options)).map_err(Failure::configuration)?;
    // Ends without waiting for a host name that is still being resolved.
    runtime.shutdown_background();
    if args.json {
        write_stdout(&format!("{:#}\n", report.json()))?
    } else {
        write_stdout(&report.to_string())?
    }
    if report.is_good() { Ok(()) } else { Err(Failure::run(anyhow!("the deployment has problems"))) }
}

fn options(args: &DoctorArgs) -> anyhow::Result<DoctorOptions> {
    let patience: Period = args.patience.parse().map_err(|problem| anyhow!("--patience must be {problem}"))?;
    if !args.namespace.starts_with('/') {
        bail!("--namespace must begin with a slash");
    }
    Ok(DoctorOptions {
        target: address("the URL", &args.url)?,
        api: args.api.as_deref().map(|api| address("--api", api)).transpose()?,
        key: args.key.as_deref().map(Secret::new),
        redis: args.redis.as_deref().map(Url::new),
        token: args.token.as_deref().map(Secret::new),
        namespace: args.namespace.clone(),
        origin: args.origin.clone(),
        ca: args.ca.clone(),
        polls: args.polls,
        skip: args.skip.clone(),
        patience: patience.get(),
    })
}

fn skip(name: &str) -> Result<String, String> {
    doctor::may_skip(name).map(|()| name.to_owned())
}

fn address(what: &str, text: &str) -> anyhow::Result<reqwest::Url> {
    let url = reqwest::Url::parse(text)
        .with_context(|| format!("{what} is not an address such as https://rt.example.com"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("{what} must begin with http:// or https://");
    }
    Ok(url)
}
