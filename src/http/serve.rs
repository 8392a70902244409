//! What happens to every API request: key, turn, parameters, body, route, answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::RequestPartsExt;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;

use super::answer::{Answer, ApiError};
use super::params::Params;
use super::route::{Call, Route};
use super::state::{Api, MAX_REQUESTS};
use super::{access, body};
use crate::error::Code;
use crate::telemetry::audit::{self, Kind, Record};

/// No request is worked on longer: everything on the way has a bound of its own, so only a fault gets here.
pub const WORK_TIME: Duration = Duration::from_secs(60);

/// Answers a request of a route, whatever happens on the way.
pub async fn serve(route: Arc<Route>, api: Arc<Api>, request: Request) -> Response {
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
    match status {
        401 | 403 => tracing::info!(api.route = route.name, http.status = status, "an API request was not permitted"),
        _ => tracing::debug!(api.route = route.name, http.status = status, elapsed_ms, "an API request was answered"),
    }
    let metrics = &api.metrics;
    metrics.api_requests_total.with_label_values(&[route.name, response.status().as_str()]).inc();
    metrics.api_request_seconds.with_label_values(&[route.name]).observe(started.elapsed().as_secs_f64());
    response
}

/// What changes something, and what was not permitted, is in the audit log.
fn audit(route: &Route, key: Option<&str>, status: u16) {
    let kind = match status {
        401 | 403 => Kind::ApiDenied,
        _ if route.method == http::Method::GET => return,
        // Many: they have a rate of their own.
        _ if matches!(route.name, "publishEvents" | "emit") => Kind::ApiPublish,
        _ => Kind::ApiCall,
    };
    let about = Record { key, route: Some(route.name), status: Some(status), ..Record::default() };
    audit::record(kind, about);
}

async fn handle(
    route: &Route,
    api: Arc<Api>,
    head: &mut Parts,
    body: &mut Body,
    key: &mut Option<String>,
) -> Result<Answer, ApiError> {
    let caller = access::check(&api, route.access, &head.headers)?;
    *key = Some(caller.name.clone());
    let turn = api.turn().ok_or_else(|| {
        ApiError::new(Code::Overloaded, format!("{MAX_REQUESTS} requests are worked on already; try again"))
    })?;
    let path = path_params(head).await?;
    let params = Params::read(route.params, path, head.uri.query().unwrap_or_default())?;
    let body = match route.request {
        None => Bytes::new(),
        Some(_) => body::read(&head.headers, body, api.limits.max_body).await?,
    };
    let work = (route.call)(Call { api, caller, params, body });
    // A task of its own: what was begun is ended, even if whoever asked hangs up.
    let task = tokio::spawn(async move {
        let _turn = turn;
        tokio::time::timeout(WORK_TIME, work).await.unwrap_or_else(|_| Err(too_slow()))
    });
    task.await.unwrap_or_else(|_| {
        tracing::error!(api.route = route.name, "a request of the API panicked; this is a fault of roomcast");
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
