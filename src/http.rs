//! The HTTP routers: health on both listeners, and the API for backends and operators on its own listener.
//!
//! Every answer of the API is JSON, and every failure uses one envelope (`answer::ErrorResponse`). The router and the
//! OpenAPI document are generated from one table of routes (`route::table`). Events are published only through
//! `publish`. `docs/api.md` is the page for users.

pub mod access;
pub mod actions;
pub mod answer;
mod ask;
pub mod body;
pub mod connections;
pub mod drain;
pub mod emit;
pub mod events;
pub mod fields;
pub mod history;
pub mod openapi;
pub mod owners;
pub mod params;
pub mod publisher;
pub mod publishing;
pub mod ready;
pub mod revocations;
pub mod rooms;
pub mod route;
pub mod scrape;
pub mod serve;
pub mod state;
pub mod text;
pub mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodFilter, get, on};
use http::StatusCode;

pub use ready::{ClusterStatus, NodeState, ReadySource, RedisStatus};
pub use state::{ApiLimits, ApiParts, ApiState};

use crate::error::Code;
use answer::ApiError;

/// Makes the routes `/live` and `/ready` for the public listener. The node adds the Socket.IO path.
pub fn public_router(source: Arc<dyn ReadySource>) -> Router {
    let router = Router::new().route("/live", get(ready::live)).route("/ready", get(ready::ready)).with_state(source);
    in_envelope(router)
}

/// Makes the routes `/live`, `/ready`, `/metrics` and `/api/v1/…` for the listener of backends and operators.
pub fn api_router(api: Arc<ApiState>) -> Router {
    let metrics = Router::new().route("/metrics", get(scrape::metrics)).with_state(api.clone());
    let mut router = public_router(api.ready.clone()).merge(metrics);
    for route in route::table() {
        let (route, api) = (Arc::new(route), api.clone());
        let filter = MethodFilter::try_from(route.method.clone()).expect("the table has methods that axum knows");
        let path = route.path;
        let answer = move |request: Request| serve::serve(route.clone(), api.clone(), request);
        router = router.route(path, on(filter, answer));
    }
    in_envelope(router)
}

/// Answers requests for unknown paths and methods with the error body that all errors of the API have.
fn in_envelope(router: Router) -> Router {
    router.fallback(no_route).method_not_allowed_fallback(no_method)
}

async fn no_route(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    body::discard(&head.headers, body).await;
    ApiError::not_found("there is no such path; /api/v1/openapi.json of the API's listener lists them")
}

async fn no_method(request: Request) -> ApiError {
    let (head, body) = request.into_parts();
    body::discard(&head.headers, body).await;
    let shown = if head.method.as_str().len() <= 16 { head.method.as_str() } else { "this" };
    ApiError::new(Code::NotFound, format!("the path does not accept the method {shown}; see the header Allow"))
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
