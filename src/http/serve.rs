//! The steps of every API request: key, work permit, parameters, body, route, answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::RequestPartsExt;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::answer::{ApiError, ApiResponse};
use super::params::Params;
use super::route::{ApiCall, Route};
use super::state::{ApiState, MAX_REQUESTS};
use super::{access, body};
use crate::error::Code;
use crate::telemetry::audit::{self, AuditEvent, AuditRecord};
use crate::telemetry::log_limit::log_seldom;
use crate::telemetry::{TRACE_HEADER, trace};

/// Maximum time for which a request is worked on. Every step has a limit of its own, so only a bug exceeds it.
pub const WORK_TIME: Duration = Duration::from_secs(60);

/// The header with the request's id, for logs. The id comes from the caller or is made here, and is returned with the
/// answer.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a caller's id, in bytes. A longer one is replaced.
const LONGEST_ID: usize = 128;

/// Answers a request to a route. It always answers, even if the route panics.
pub async fn serve(route: Arc<Route>, api: Arc<ApiState>, request: Request) -> Response {
    let id = request_id(request.headers());
    let span = span(route.name, request.headers(), &id);
    let mut response = answer(route, api, request).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The span of a request, in the caller's trace.
fn span(route: &'static str, headers: &HeaderMap, id: &HeaderValue) -> Span {
    let traceparent = headers.get(TRACE_HEADER).and_then(|value| value.to_str().ok());
    let span = tracing::info_span!(
        "api.request",
        otel.kind = "server",
        otel.name = route,
        api.route = route,
        request_id = id.to_str().unwrap_or_default(),
        trace_id = trace::trace_id(traceparent),
        http.status = tracing::field::Empty,
    );
    trace::adopt(&span, traceparent);
    span
}

/// Returns the caller's id of the request if it is fit for logs, else a new id.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        !value.is_empty() && value.len() <= LONGEST_ID && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let made = || HeaderValue::from_str(&Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("none"));
    headers.get(REQUEST_ID).filter(fit).cloned().unwrap_or_else(made)
}

async fn answer(route: Arc<Route>, api: Arc<ApiState>, request: Request) -> Response {
    let started = Instant::now();
    let (mut head, mut body) = request.into_parts();
    let mut key = None;
    let response = match handle(&route, api.clone(), &mut head, &mut body, &mut key).await {
        Ok(answer) => answer.into_response(),
        Err(error) => error.into_response(),
    };
    body::discard(&head.headers, body).await;
    let (status, elapsed_ms) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1000.0);
    audit(&route, key.as_deref(), status);
    Span::current().record("http.status", i64::from(status));
    tracing::debug!(api.route = route.name, http.status = status, elapsed_ms, "an API request was answered");
    let metrics = &api.metrics;
    metrics.api_requests_total.with_label_values(&[route.name, response.status().as_str()]).inc();
    metrics.api_request_seconds.with_label_values(&[route.name]).observe(started.elapsed().as_secs_f64());
    response
}

/// Writes requests that change something, and requests that were not permitted, to the audit log.
fn audit(route: &Route, key: Option<&str>, status: u16) {
    let kind = match status {
        401 | 403 => AuditEvent::ApiDenied,
        _ if route.method == http::Method::GET => return,
        // Publishes are frequent, so their audit records have a level and a rate limit of their own.
        _ if matches!(route.name, "publishEvents" | "emit" | "ask") => AuditEvent::ApiPublish,
        _ => AuditEvent::ApiCall,
    };
    let about = AuditRecord { key, route: Some(route.name), status: Some(status), ..AuditRecord::default() };
    audit::record(kind, about);
}

async fn handle(
    route: &Route,
    api: Arc<ApiState>,
    head: &mut Parts,
    body: &mut Body,
    key: &mut Option<String>,
) -> Result<ApiResponse, ApiError> {
    let caller = access::check(&api, route.access, &head.headers)?;
    *key = Some(caller.name.clone());
    let turn = api.turn().ok_or_else(|| {
        ApiError::new(Code::Overloaded, format!("{MAX_REQUESTS} requests are being worked on already; try again"))
    })?;
    let path = path_params(head).await?;
    let params = Params::read(route.params, path, head.uri.query().unwrap_or_default())?;
    let body = match route.request {
        None => Bytes::new(),
        Some(_) => body::read(&head.headers, body, api.limits.max_body).await?,
    };
    let work = (route.call)(ApiCall { api, caller, params, body });
    // A task of its own completes a request that was begun, even if the caller disconnects.
    let work = async move {
        let _turn = turn;
        tokio::time::timeout(WORK_TIME, work).await.unwrap_or_else(|_| Err(too_slow()))
    };
    let task = tokio::spawn(work.in_current_span());
    task.await.unwrap_or_else(|_| {
        log_seldom!(error, api.route = route.name, "a request of the API panicked; this is a fault of roomcast");
        Err(ApiError::new(Code::InternalError, "the node failed; its log says more"))
    })
}

fn too_slow() -> ApiError {
    ApiError::new(Code::Unavailable, format!("the request took longer than {} s and was given up", WORK_TIME.as_secs()))
}

async fn path_params(head: &mut Parts) -> Result<Vec<(String, String)>, ApiError> {
    let params = head.extract::<RawPathParams>().await.map_err(|_| {
        ApiError::new(Code::InvalidPayload, "the path is not percent-encoded UTF-8")
            .with_status(http::StatusCode::BAD_REQUEST)
    })?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
