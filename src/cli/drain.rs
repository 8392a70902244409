//! `roomcast drain`

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use super::{ConfigFile, Failure, write_stdout};
use crate::config::{ApiSettings, Config};

/// How often `--wait` asks a draining node for its progress.
const ASK: Duration = Duration::from_millis(500);

/// How long the API may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The node to drain, and the request to it.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The URL of the node's API, as http://ADDRESS:PORT. Default: api.listen of the configuration.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The secret of an API key that permits everything. Default: the first such key of the configuration. Other users
    /// of the machine can see this argument.
    #[arg(long, value_name = "SECRET")]
    key: Option<String>,
    /// Waits until the node has no clients.
    #[arg(long)]
    wait: bool,
    /// Tells the node to serve again.
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    /// Only shows the node's progress.
    #[arg(long, conflicts_with = "undo")]
    status: bool,
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &DrainArgs) -> Result<(), Failure> {
    // With both URL and key on the command line, no configuration is needed.
    let config = match (&args.url, &args.key) {
        (Some(_), Some(_)) => Config::default(),
        _ => args.config.load(Vec::new())?.config,
    };
    let node = NodeApi::new(args, &config.api).map_err(Failure::configuration)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the runtime cannot start").map_err(Failure::run)?;
    runtime.block_on(drain(args, &node))
}

async fn drain(args: &DrainArgs, node: &NodeApi) -> Result<(), Failure> {
    let method = match (args.undo, args.status) {
        (true, _) => Method::DELETE,
        (_, true) => Method::GET,
        _ => Method::POST,
    };
    let mut status = node.ask(method).await.map_err(Failure::run)?;
    write_stdout(&format!("{status}\n"))?;
    while args.wait && status["state"] != "drained" {
        if status["state"] == "serving" {
            return Err(Failure::run(anyhow!("the node is not draining: the drain was undone, or never started")));
        }
        tokio::time::sleep(ASK).await;
        let next = node.ask(Method::GET).await.map_err(Failure::run)?;
        if next != status {
            write_stdout(&format!("{next}\n"))?;
        }
        status = next;
    }
    Ok(())
}

/// The API of one node.
struct NodeApi {
    client: Client,
    url: String,
    key: String,
}

impl NodeApi {
    fn new(args: &DrainArgs, api: &ApiSettings) -> anyhow::Result<Self> {
        let url = match &args.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", reachable(api.listen)),
        };
        let configured = || api.keys.iter().find(|key| key.contracts.iter().any(|name| name == "*"));
        let key = args.key.clone().or_else(|| Some(configured()?.secret.expose().to_owned()));
        let key = key.context("no API key: give --key, or configure a key with contracts = [\"*\"] under api.keys")?;
        // Fails if another part of the program has installed a provider already. That one works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            Client::builder().no_proxy().timeout(PATIENCE).build().context("the HTTP client cannot be made")?;
        Ok(Self { client, url: format!("{url}/api/v1/drain"), key })
    }

    async fn ask(&self, method: Method) -> anyhow::Result<Value> {
        let request = self.client.request(method, &self.url).bearer_auth(&self.key);
        let response = request.send().await.with_context(|| format!("{} does not answer", self.url))?;
        let status = response.status();
        let body: Value =
            response.json().await.with_context(|| format!("{} did not answer as roomcast does", self.url))?;
        if status != StatusCode::OK && status != StatusCode::ACCEPTED {
            let said = body["error"]["message"].as_str().unwrap_or("no reason was given").to_owned();
            bail!("{} answered {status}: {said}", self.url);
        }
        Ok(body)
    }
}

/// The address at which this machine reaches the listener: loopback if it listens on all addresses.
fn reachable(mut listen: std::net::SocketAddr) -> std::net::SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), asked);
        }
    }
}
