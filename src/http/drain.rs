//! `/api/v1/drain`: starts, shows and undoes the drain of this node.

use super::answer::{ApiError, ApiResponse};
use super::route::ApiCall;
use crate::drain::schedule::EndIsFinal;
use crate::error::Code;

/// Starts a drain, or continues one.
pub async fn begin(call: ApiCall) -> Result<ApiResponse, ApiError> {
    tracing::info!(api.key = call.caller.name, "the API started a drain");
    call.api.drain.begin(false);
    ApiResponse::accepted(&call.api.drain.status())
}

/// Shows the progress of the drain.
pub async fn status(call: ApiCall) -> Result<ApiResponse, ApiError> {
    ApiResponse::ok(&call.api.drain.status())
}

/// Undoes the drain: the node serves again.
pub async fn undo(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let undone = call.api.drain.undo();
    undone.map_err(|EndIsFinal| {
        ApiError::new(Code::Unavailable, "the process is ending, so the drain cannot be undone")
    })?;
    tracing::info!(api.key = call.caller.name, "the API undid the drain");
    ApiResponse::ok(&call.api.drain.status())
}
