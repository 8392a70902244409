//! Tests TLS: which backends the node trusts, and the certificate with which the node identifies itself to backends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::Version;
use roomcast::config;
use roomcast::hooks::{HookError, Hooks};
use roomcast::telemetry::metrics::Metrics;

use super::{HOOK, event, hooks_with, section};
use crate::support::backend::{Backend, Reply, Tls, key_file};

async fn backend(tls: Tls) -> Backend {
    Backend::start_with(tls, |_, _| Reply::new(204, "")).await
}

fn trusting(backend: &Backend, authority: &str) -> config::HookSettings {
    config::HookSettings { ca_file: Some(key_file(authority)), ..section(&backend.url()) }
}

fn identified(mut section: config::HookSettings) -> config::HookSettings {
    section.cert_file = Some(key_file("client.pem"));
    section.key_file = Some(key_file("client-key.pem"));
    section
}

#[tokio::test]
async fn https_speaks_http_2_on_one_connection() {
    let backend = backend(Tls::Server).await;
    let (hooks, _) = hooks_with(trusting(&backend, "ca.pem"));
    for _ in 0..5 {
        hooks.call(HOOK, event()).await.unwrap();
    }
    assert_eq!((backend.seen()[0].version, backend.connections()), (Version::HTTP_2, 1));
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let backend = backend(Tls::Server).await;
    for section in [trusting(&backend, "stranger.pem"), section(&backend.url())] {
        let (hooks, _) = hooks_with(section);
        assert_eq!(hooks.call(HOOK, event()).await.unwrap_err(), HookError::Unreachable);
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn a_backend_may_ask_for_a_certificate_of_ours() {
    let backend = backend(Tls::Mutual).await;
    let (hooks, _) = hooks_with(identified(trusting(&backend, "ca.pem")));
    assert!(hooks.call(HOOK, event()).await.is_ok());
    let (hooks, _) = hooks_with(trusting(&backend, "ca.pem"));
    assert_eq!(hooks.call(HOOK, event()).await.unwrap_err(), HookError::Unreachable);
    assert_eq!(backend.count(), 1);
}

#[test]
fn a_mistake_in_a_section_names_its_key() {
    let fine = || section("https://backend.example/hooks");
    let cases = [
        (section("not a url"), "hooks.songs.url: not a URL"),
        (section("ftp://backend.example/"), "hooks.songs.url: neither http:// nor https://"),
        (section("https://user:hunter2@backend.example/"), "hooks.songs.url: holds a user name or password"),
        (section("https://backend.example/#x"), "hooks.songs.url: has a fragment"),
        (
            config::HookSettings { ca_file: Some(PathBuf::from("/nowhere.pem")), ..fine() },
            "hooks.songs.ca_file: /nowhere.pem",
        ),
        (
            config::HookSettings { ca_file: Some(key_file("make.sh")), ..fine() },
            "hooks.songs.ca_file: contains no certificate",
        ),
        (config::HookSettings { cert_file: Some(key_file("client.pem")), ..fine() }, "hooks.songs.key_file: missing"),
        (
            config::HookSettings { key_file: Some(key_file("client-key.pem")), ..fine() },
            "hooks.songs.cert_file: missing",
        ),
        (
            config::HookSettings { key_file: Some(key_file("ca.pem")), ..identified(fine()) },
            "hooks.songs.cert_file: not a certificate",
        ),
    ];
    for (section, expected) in cases {
        let all = BTreeMap::from([(HOOK.to_owned(), section)]);
        let error = Hooks::new("node-1", &all, Arc::new(Metrics::new())).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
