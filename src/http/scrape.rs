//! `/metrics`: Prometheus' text format. Gauges are measured at each request.

use std::io::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::{ApiError, ApiResponse};
use super::ready;
use super::state::ApiState;
use crate::error::Code;
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::metrics::count;

/// The content type of Prometheus' text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers `/metrics`, compressed if the client accepts gzip, as Prometheus does.
pub async fn metrics(State(api): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    measure(&api);
    api.drain.report();
    match api.metrics.encode() {
        Ok(text) => {
            let compressed = if accepts_gzip(&headers) { gzip(text.as_bytes()).ok() } else { None };
            let mut response = ApiResponse::text(CONTENT_TYPE, text).into_response();
            response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
            if let Some(compressed) = compressed {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                *response.body_mut() = Body::from(compressed);
            }
            response
        }
        Err(error) => {
            log_seldom!(error, %error, "metrics cannot be encoded");
            ApiError::new(Code::InternalError, "metrics cannot be encoded; the node's log says more").into_response()
        }
    }
}

/// Whether the client accepts gzip (RFC 9110, 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let quality = |wanted: &str| {
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut codings = values.flat_map(|value| value.split(',')).map(|coding| {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let quality =
                parameters.trim().strip_prefix("q=").map_or(Some(1.0), |quality| quality.trim().parse::<f32>().ok());
            (name.trim(), quality.unwrap_or(0.0))
        });
        codings.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, quality)| quality)
    };
    quality("gzip").or_else(|| quality("*")).is_some_and(|quality| quality > 0.0)
}

fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

fn measure(api: &ApiState) {
    let metrics = &api.metrics;
    for namespace in api.rooms.namespaces() {
        let namespace_counts = api.rooms.namespace_counts(namespace);
        for (gauge, number) in [
            (&metrics.connections, namespace_counts.sessions),
            (&metrics.rooms, namespace_counts.rooms),
            (&metrics.memberships, namespace_counts.memberships),
            (&metrics.users, namespace_counts.users),
        ] {
            gauge.with_label_values(&[&**namespace]).set(count(number));
        }
    }
    metrics.namespaces.with_label_values::<&str>(&[]).set(count(api.rooms.namespaces().count()));
    let (status, _) = ready::report(api.ready.status(), SystemTime::now());
    metrics.ready.with_label_values::<&str>(&[]).set(i64::from(status == StatusCode::OK));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_ask_for_it() {
        for (asked, accepts) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0, *", false),
            ("*;q=0", false),
            ("identity", false),
            ("", false),
            ("gzip;q=x", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(asked))]);
            assert_eq!(accepts_gzip(&headers), accepts, "{asked}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
