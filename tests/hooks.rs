//! Hooks against a real backend on loopback.

mod calls;
mod docs;
mod failures;
mod notices;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use roomcast::config;
use roomcast::hooks::{Caller, HookRequest, Hooks};
use roomcast::telemetry::metrics::Metrics;
use roomcast::user::User;
use serde_json::Map;

const SECRET: &str = "a secret of the tests";

/// The name of the only hook of these tests.
const HOOK: &str = "songs";

fn section(url: &str) -> config::HookSettings {
    config::HookSettings {
        url: config::Url::new(url),
        secret: Some(config::Secret::new(SECRET)),
        ..config::HookSettings::default()
    }
}

fn hooks_with(section: config::HookSettings) -> (Arc<Hooks>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let all = BTreeMap::from([(HOOK.to_owned(), section)]);
    (Arc::new(Hooks::new("node-1", &all, metrics.clone()).unwrap()), metrics)
}

fn hooks(url: &str) -> (Arc<Hooks>, Arc<Metrics>) {
    hooks_with(section(url))
}

fn caller() -> Caller {
    Caller {
        contract: "songs".into(),
        namespace: "/".into(),
        user: Arc::new(User::named("u1")),
        socket_id: "s1".into(),
        ip: [127, 0, 0, 1].into(),
        connected_at: SystemTime::now(),
        rooms: Vec::new(),
        metadata: Map::new(),
    }
}

fn event() -> HookRequest {
    HookRequest::event(caller(), "cancel")
}

/// The value of the metric's series with these labels.
fn counted(metrics: &Metrics, line: &str) -> u64 {
    let text = metrics.encode().unwrap();
    let found = text.lines().find_map(|at| at.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

fn requests(metrics: &Metrics, result: &str) -> u64 {
    counted(metrics, &format!(r#"roomcast_hook_requests_total{{hook="{HOOK}",result="{result}"}}"#))
}

fn notices(metrics: &Metrics, result: &str) -> u64 {
    counted(metrics, &format!(r#"roomcast_hook_notices_total{{hook="{HOOK}",result="{result}"}}"#))
}

const SOON: Duration = Duration::from_secs(10);
