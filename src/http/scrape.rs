//! `/metrics`: Prometheus' text format, with gauges taken from the truth as they are asked for.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::answer::{Answer, ApiError};
use super::ready;
use super::state::Api;
use crate::error::Code;
use crate::telemetry::log_gate::log_seldom;
use crate::telemetry::metrics::count;

/// What Prometheus calls its text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `/metrics`.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    measure(&api);
    api.drain.report();
    match api.metrics.encode() {
        Ok(text) => Answer::text(CONTENT_TYPE, text).into_response(),
        Err(error) => {
            log_seldom!(error, %error, "metrics cannot be encoded");
            ApiError::new(Code::InternalError, "metrics cannot be encoded; the node's log says more").into_response()
        }
    }
}

fn measure(api: &Api) {
    let metrics = &api.metrics;
    for namespace in api.rooms.namespaces() {
        let census = api.rooms.census(namespace);
        for (gauge, number) in [
            (&metrics.connections, census.sessions),
            (&metrics.rooms, census.rooms),
            (&metrics.memberships, census.memberships),
            (&metrics.users, census.users),
        ] {
            gauge.with_label_values(&[&**namespace]).set(count(number));
        }
    }
    metrics.namespaces.with_label_values::<&str>(&[]).set(count(api.rooms.namespaces().count()));
    let (status, _) = ready::report(api.ready.status(), SystemTime::now());
    metrics.ready.with_label_values::<&str>(&[]).set(i64::from(status == StatusCode::OK));
}
