//! A node from its inner side: readiness, the key, and open files.

use http::{HeaderValue, Method, header};
use reqwest::Url;
use serde_json::Value;

use super::report::Finding;
use super::sight::{PROMPT, Sight};
use crate::config::Secret;

/// Below so many a busy node runs out: each client is one, and so is each connection to a hook or to Redis.
const FEW_FILES: f64 = 65_536.0;

/// Asks the API's listener.
pub(super) async fn check(sight: &Sight, api: &Url, key: Option<&Secret>) -> Vec<Finding> {
    let (ready, metrics) = futures_util::join!(ready(sight, api), files(sight, api));
    let mut findings = vec![ready, metrics];
    if let Some(key) = key {
        findings.push(accepts(sight, api, key).await);
    }
    findings
}

fn at(api: &Url, path: &str) -> Url {
    let mut url = api.clone();
    url.set_path(path);
    url
}

async fn ready(sight: &Sight, api: &Url) -> Finding {
    let name = "api.ready";
    let answer = match sight.ask(Method::GET, at(api, "/ready"), &[], "", PROMPT).await {
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

async fn files(sight: &Sight, api: &Url) -> Finding {
    let name = "api.open_files";
    let text = match sight.ask(Method::GET, at(api, "/metrics"), &[], "", PROMPT).await {
        Ok(answer) if answer.status == 200 => answer.body,
        Ok(answer) => {
            return Finding::unknown(name, answer.told(), "let /metrics of the API's listener be asked from here");
        }
        Err(problem) => return Finding::unknown(name, problem, "see api.ready"),
    };
    let (Some(most), Some(open)) = (metric(&text, "process_max_fds"), metric(&text, "process_open_fds")) else {
        return Finding::unknown(name, "the metrics do not say it", "see `ulimit -n` of the node's process");
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

/// A metric without labels.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

async fn accepts(sight: &Sight, api: &Url, key: &Secret) -> Finding {
    let name = "api.key";
    let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose())) else {
        return Finding::problem(
            name,
            "the key holds characters that no header may have",
            "see api.keys in roomcast.toml",
        );
    };
    value.set_sensitive(true);
    let asked = [(header::AUTHORIZATION, value)];
    // A question that every key may ask: what is counted does not matter.
    match sight.ask(Method::GET, at(api, "/api/v1/counts"), &asked, "", PROMPT).await {
        Ok(answer) if answer.status == 401 => Finding::problem(
            name,
            "the key is not accepted",
            "see `api.keys` in roomcast.toml, and that every node has them",
        ),
        Ok(answer) if answer.status < 500 => Finding::ok(name, "the key is accepted"),
        Ok(answer) => Finding::unknown(name, answer.told(), "see the node's log"),
        Err(problem) => Finding::unknown(name, problem, "see api.ready"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_read_by_its_whole_name() {
        let text = "# HELP process_max_fds x\nprocess_max_fds_x 3\nprocess_max_fds 1024\n";
        assert_eq!(metric(text, "process_max_fds"), Some(1024.0));
        assert_eq!(metric(text, "process_open_fds"), None);
    }
}
