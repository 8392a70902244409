//! `roomcast serve`

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::runtime::Runtime;
use tracing_subscriber::filter::Targets;
#[cfg(not(feature = "otlp"))]
use tracing_subscriber::layer::Identity;

use super::dev::{self, Development};
use super::welcome::{self, WelcomeInfo};
use super::{ConfigFile, Failure, write_stdout};
use crate::config::{Config, LogFormat};
use crate::node::{self, BoundAddresses};
use crate::telemetry::logging::{self, Logging};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp;

/// Options of the node.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Development mode: signs with a key for this run, loads the contracts of the binary unless others are configured,
    /// and prints a token, a client and a curl command to try.
    #[arg(long)]
    dev: bool,
    /// The format of log records. It overrides log.format.
    #[arg(long, value_name = "FORMAT")]
    log: Option<FormatArg>,
}

/// The format of log records.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    /// One line for people.
    Human,
    /// One JSON object per line. The node also prints one to standard output when it listens.
    Json,
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let mut flags = Vec::new();
    if args.dev {
        flags.push(("--dev", "node.dev", "true".to_owned()));
    }
    if let Some(format) = args.log {
        flags.push(("--log", "log.format", format!("{format:?}").to_lowercase()));
    }
    let mut config = args.config.load(flags)?.config;
    let format = match config.log.format {
        LogFormat::Human => logging::Format::Human,
        LogFormat::Json => logging::Format::Json,
    };
    let targets = config.log.targets().map_err(|part| Failure::run(anyhow::anyhow!("log.level: {part}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot start").map_err(Failure::run)?;
    let (logging, export) = begin_telemetry(&config, format, targets, &runtime).map_err(Failure::run)?;
    let logging = Arc::new(logging);
    let ended = on_ready(&mut config)
        .and_then(|on_ready| runtime.block_on(node::serve(config, logging.clone(), on_ready)).map_err(Failure::run));
    export();
    logging.flush();
    ended
}

/// Starts logging, and the export of spans if it is configured. Returns the export, which must be ended.
#[cfg(feature = "otlp")]
fn begin_telemetry(
    config: &Config,
    format: logging::Format,
    targets: Targets,
    runtime: &Runtime,
) -> Result<(Logging, impl FnOnce() + use<>), anyhow::Error> {
    let (layer, export) = if otlp::is_wanted() {
        let (layer, export) = otlp::layer(config.node.id.as_deref(), runtime.handle().clone())?;
        (Some(layer), Some(export))
    } else {
        (None, None)
    };
    let logging = logging::init(format, targets, layer).context("logging cannot start")?;
    let end = move || {
        if let Some(export) = export {
            export.end();
        }
    };
    Ok((logging, end))
}

/// Starts logging. This build does not export spans.
#[cfg(not(feature = "otlp"))]
fn begin_telemetry(
    _: &Config,
    format: logging::Format,
    targets: Targets,
    _: &Runtime,
) -> Result<(Logging, impl FnOnce() + use<>), anyhow::Error> {
    let logging = logging::init::<Identity>(format, targets, None).context("logging cannot start")?;
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, but this binary is built without the feature otlp");
    }
    Ok((logging, || ()))
}

/// What the node prints to standard output once it listens: a line for programs, or a page for newcomers.
fn on_ready(config: &mut Config) -> Result<impl FnOnce(&BoundAddresses) + Send + 'static, Failure> {
    let development =
        if config.node.dev { Some(dev::prepare(config).map_err(|e| Failure::run(e.into()))?) } else { None };
    let announces =
        config.log.format == LogFormat::Json || std::env::var("ROOMCAST_ANNOUNCE").is_ok_and(|value| value == "1");
    let path = config.server.path.clone();
    Ok(move |bound: &BoundAddresses| {
        if announces {
            let BoundAddresses { server, api, cluster, node, .. } = bound;
            let mut line = json!({ "ready": true, "server": server, "api": api, "node": node });
            if let Some(cluster) = cluster {
                line["cluster"] = json!(cluster);
            }
            _ = write_stdout(&format!("{line}\n"));
        }
        if let Some(Development { token, api_key }) = development {
            let example = welcome::example(&bound.namespaces);
            let info = WelcomeInfo { server: bound.server, api: bound.api, path, token, api_key, example };
            _ = write_stdout(&welcome::text(&info));
        }
    })
}
