//! Checks of a node's API listener: readiness, the API key, and the limit of open files.

use http::{HeaderValue, Method, header};
use reqwest::Url;
use serde_json::Value;

use super::deployment::{Deployment, PROMPT};
use super::report::Finding;
use crate::config::Secret;

/// The limit of open files below which a busy node may run out of them: each client needs an open file, and so does
/// each connection to a hook or to Redis.
const FEW_FILES: f64 = 65_536.0;

/// Runs the checks of the API's listener.
pub(super) async fn check(deployment: &Deployment, api: &Url, key: Option<&Secret>) -> Vec<Finding> {
    let (ready, metrics) = futures_util::join!(ready(deployment, api), metrics(deployment, api));
    let mut findings = vec![ready, files(&metrics), clients(&metrics)];
    if let Some(key) = key {
        findings.push(accepts(deployment, api, key).await);
    }
    findings
}

fn at(api: &Url, path: &str) -> Url {
    let mut url = api.clone();
    url.set_path(path);
    url
}

async fn ready(deployment: &Deployment, api: &Url) -> Finding {
    let name = "api.ready";
    let answer = match deployment.ask(Method::GET, at(api, "/ready"), &[], "", PROMPT).await {
        Ok(answer) => answer,
        Err(problem) => {
            let remedy = "check the address: it is the nodes' `api.listen`, a Service of its own in Kubernetes";
            return Finding::problem(name, problem, remedy);
        }
    };
    let Some(said) = serde_json::from_str::<Value>(&answer.body).ok().filter(|said| said["websocket"].is_object())
    else {
        return Finding::problem(
            name,
            format!("this is not a node ({})", answer.told()),
            "check the address of the API",
        );
    };
    let reasons: Vec<_> = said["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let told = format!(
        "{} is {}; the cluster has {} nodes",
        text(&said["node"]["id"]),
        text(&said["status"]),
        said["cluster"]["nodes"].as_u64().map_or("?".to_owned(), |nodes| nodes.to_string())
    );
    let remedy = "see the node's log; when Redis is away: its address, password and network";
    match said["status"].as_str() {
        Some("ready") => Finding::ok(name, told),
        Some("degraded") => Finding::warning(name, format!("{told}: {}", reasons.join("; ")), remedy),
        _ => Finding::problem(name, format!("{told}: {}", reasons.join("; ")), remedy),
    }
}

/// The text of the node's metrics; or the reason why it could not be read, and the remedy.
type MetricsText = Result<String, (String, &'static str)>;

async fn metrics(deployment: &Deployment, api: &Url) -> MetricsText {
    match deployment.ask(Method::GET, at(api, "/metrics"), &[], "", PROMPT).await {
        Ok(answer) if answer.status == 200 => Ok(answer.body),
        Ok(answer) => Err((answer.told(), "permit requests for /metrics of the API's listener from here")),
        Err(problem) => Err((problem, "see api.ready")),
    }
}

/// Reports clients that the node could not serve since it started.
fn clients(metrics: &MetricsText) -> Finding {
    let name = "api.clients";
    let text = match metrics {
        Ok(text) => text,
        Err((problem, remedy)) => return Finding::unknown(name, problem.clone(), *remedy),
    };
    let tries =
        |reason| metric(text, &format!("roomcast_incompatible_clients_total{{reason=\"{reason}\"}}")).unwrap_or(0.0);
    match (tries("protocol"), tries("parser")) {
        (0.0, 0.0) => Finding::ok(name, "no client came that speaks another protocol or uses another parser"),
        (protocol, 0.0) => Finding::warning(
            name,
            format!("clients of another version of the protocol tried to connect {protocol} times"),
            "use socket.io-client 3 or 4, or set server.allow_eio3: versions 1 and 2 speak Engine.IO 3, which is refused without it; the \
             node's log has the clients' addresses",
        ),
        (protocol, parser) => Finding::warning(
            name,
            format!(
                "clients with an unknown parser connected {parser} times, clients of another version of the protocol {protocol} times"
            ),
            "leave `parser` out of the clients' options (the native engine also has socket.io-msgpack-parser), and use \
             socket.io-client 3 or 4, or set server.allow_eio3; the node's log has their addresses",
        ),
    }
}

fn files(metrics: &MetricsText) -> Finding {
    let name = "api.open_files";
    let text = match metrics {
        Ok(text) => text,
        Err((problem, remedy)) => return Finding::unknown(name, problem.clone(), *remedy),
    };
    let (Some(most), Some(open)) = (metric(text, "process_max_fds"), metric(text, "process_open_fds")) else {
        return Finding::unknown(name, "the metrics do not contain it", "see `ulimit -n` of the node's process");
    };
    let found = format!("{open} of {most} files are open");
    let remedy = "raise the limit: LimitNOFILE in systemd, ulimits.nofile in compose, the container runtime's default in Kubernetes";
    if open > 0.8 * most {
        Finding::problem(name, found, remedy)
    } else if most < FEW_FILES {
        Finding::warning(name, found, remedy)
    } else {
        Finding::ok(name, found)
    }
}

/// The value of the metric with this name and these labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

async fn accepts(deployment: &Deployment, api: &Url, key: &Secret) -> Finding {
    let name = "api.key";
    let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose())) else {
        return Finding::problem(
            name,
            "the key contains characters that are not permitted in a header",
            "see api.keys in roomcast.toml",
        );
    };
    value.set_sensitive(true);
    let asked = [(header::AUTHORIZATION, value)];
    // Any valid key may ask for counts. The counts themselves are not used.
    match deployment.ask(Method::GET, at(api, "/api/v1/counts"), &asked, "", PROMPT).await {
        Ok(answer) if answer.status == 401 => Finding::problem(
            name,
            "the key is not accepted",
            "see `api.keys` in roomcast.toml, and check that every node has the same keys",
        ),
        Ok(answer) if answer.status < 500 => Finding::ok(name, "the key is accepted"),
        Ok(answer) => Finding::unknown(name, answer.told(), "see the node's log"),
        Err(problem) => Finding::unknown(name, problem, "see api.ready"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Level;
    use super::*;

    #[test]
    fn clients_that_cannot_be_served_are_told_with_the_cause() {
        let of = |protocol: u8, parser: u8| {
            let line = |reason: &str, tries: u8| {
                format!("roomcast_incompatible_clients_total{{reason=\"{reason}\"}} {tries}\n")
            };
            clients(&Ok(line("parser", parser) + &line("protocol", protocol)))
        };
        assert_eq!(of(0, 0).level, Level::Ok);
        let (old, other) = (of(3, 0), of(0, 5));
        assert_eq!((old.level, other.level), (Level::Warning, Level::Warning));
        assert!(old.found.contains("3 times") && old.remedy.unwrap().contains("server.allow_eio3"));
        assert!(other.found.contains("5 times") && other.remedy.unwrap().contains("msgpack"));
        assert_eq!(clients(&Err(("refused".into(), "see api.ready"))).level, Level::Unknown);
    }

    #[test]
    fn a_metric_is_read_by_its_whole_name() {
        let text = "# HELP process_max_fds x\nprocess_max_fds_x 3\nprocess_max_fds 1024\n";
        assert_eq!(metric(text, "process_max_fds"), Some(1024.0));
        assert_eq!(metric(text, "process_open_fds"), None);
    }
}
