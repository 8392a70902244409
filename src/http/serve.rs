//! What happens to every API request: key, turn, parameters, body, route, answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::RequestExt;
use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;

use super::answer::{Answer, ApiError};
use super::params::Params;
use super::route::{Call, Route};
use super::state::{Api, MAX_REQUESTS};
use super::{access, body};
use crate::error::Code;

/// Answers a request of a route, whatever happens on the way.
pub async fn serve(route: Arc<Route>, api: Arc<Api>, request: Request) -> Response {
    let started = Instant::now();
    let answered = AssertUnwindSafe(handle(&route, api.clone(), request)).catch_unwind().await;
    let response = match answered {
        Ok(Ok(answer)) => answer.into_response(),
        Ok(Err(error)) => error.into_response(),
        Err(_) => {
            tracing::error!(api.route = route.name, "a request of the API panicked; this is a fault of roomcast");
            ApiError::new(Code::InternalError, "the node failed; its log says more").into_response()
        }
    };
    let metrics = &api.metrics;
    metrics.api_requests_total.with_label_values(&[route.name, response.status().as_str()]).inc();
    metrics.api_request_seconds.with_label_values(&[route.name]).observe(started.elapsed().as_secs_f64());
    response
}

async fn handle(route: &Route, api: Arc<Api>, mut request: Request) -> Result<Answer, ApiError> {
    let caller = access::check(&api, route.access, request.headers())?;
    let held = api.clone();
    let _turn = held.turn().ok_or_else(|| {
        ApiError::new(Code::Overloaded, format!("{MAX_REQUESTS} requests are worked on already; try again"))
    })?;
    let path = path_params(&mut request).await?;
    let params = Params::read(route.params, path, request.uri().query().unwrap_or_default())?;
    let body = match route.request {
        None => Bytes::new(),
        Some(_) => {
            let (parts, body) = request.into_parts();
            body::read(&parts.headers, body, api.limits.max_body).await?
        }
    };
    (route.call)(Call { api, caller, params, body }).await
}

async fn path_params(request: &mut Request) -> Result<Vec<(String, String)>, ApiError> {
    let params = request.extract_parts::<RawPathParams>().await.map_err(|_| {
        ApiError::new(Code::InvalidPayload, "the path is not percent-encoded UTF-8")
            .with_status(http::StatusCode::BAD_REQUEST)
    })?;
    Ok(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
