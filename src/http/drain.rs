//! `/api/v1/drain`: has this node hand its clients over and stay, or serve again.

use super::answer::{Answer, ApiError};
use super::route::Call;
use crate::drain::course::ForGood;
use crate::error::Code;

/// Begins to leave, or goes on.
pub async fn begin(call: Call) -> Result<Answer, ApiError> {
    tracing::info!(api.key = call.caller.name, "told to drain");
    call.api.drain.begin(false);
    Answer::accepted(&call.api.drain.status())
}

/// Tells how far the node is.
pub async fn status(call: Call) -> Result<Answer, ApiError> {
    Answer::ok(&call.api.drain.status())
}

/// Serves again.
pub async fn undo(call: Call) -> Result<Answer, ApiError> {
    let undone = call.api.drain.undo();
    undone.map_err(|ForGood| {
        ApiError::new(Code::Unavailable, "the process has been told to end: it will not serve again")
    })?;
    tracing::info!(api.key = call.caller.name, "told to serve again");
    Answer::ok(&call.api.drain.status())
}
