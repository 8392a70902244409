//! `/metrics`: Prometheus' text format, with gauges taken from the truth as they are asked for.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::answer::{Answer, ApiError};
use super::state::Api;
use crate::error::Code;

/// What Prometheus calls its text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `/metrics`.
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    for namespace in api.rooms.namespaces() {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (connections, rooms) = (api.rooms.session_count(namespace), api.rooms.room_count(namespace));
        api.metrics.connections.with_label_values(&[&**namespace]).set(count(connections));
        api.metrics.rooms.with_label_values(&[&**namespace]).set(count(rooms));
    }
    match api.metrics.encode() {
        Ok(text) => Answer::text(CONTENT_TYPE, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            ApiError::new(Code::InternalError, "metrics cannot be encoded; the node's log says more").into_response()
        }
    }
}
