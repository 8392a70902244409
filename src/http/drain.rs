//! `/api/v1/drain`: starts, shows and undoes the drain of this node.

use super::answer::{Answer, ApiError};
use super::route::Call;
use crate::drain::course::ForGood;
use crate::error::Code;

/// Starts a drain, or continues one.
pub async fn begin(call: Call) -> Result<Answer, ApiError> {
    tracing::info!(api.key = call.caller.name, "the API started a drain");
    call.api.drain.begin(false);
    Answer::accepted(&call.api.drain.status())
}

/// Shows the progress of the drain.
pub async fn status(call: Call) -> Result<Answer, ApiError> {
    Answer::ok(&call.api.drain.status())
}

/// Undoes the drain: the node serves again.
pub async fn undo(call: Call) -> Result<Answer, ApiError> {
    let undone = call.api.drain.undo();
    undone
        .map_err(|ForGood| ApiError::new(Code::Unavailable, "the process is ending, so the drain cannot be undone"))?;
    tracing::info!(api.key = call.caller.name, "the API undid the drain");
    Answer::ok(&call.api.drain.status())
}
