//! `PUT` and `DELETE /api/v1/owners`: records the owner of a room.

use schemars::JsonSchema;

use super::answer::{Answer, ApiError};
use super::route::Call;
use super::{access, text};
use crate::error::Code;
use crate::owners::{DEFAULT_TTL, MAX_TTL, OwnersError};

/// The owner of a room. Join rules read it as `owner(room)`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `set` takes")]
pub struct SetOwner {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// The room.
    #[schemars(length(min = 1, max = text::MAX_NAME), regex(pattern = r"^[^$]"))]
    room: String,
    /// The user's id.
    #[schemars(length(min = 1, max = text::MAX_NAME))]
    owner: String,
    /// How long the owner is recorded, such as `90s`, `15m`, `24h`, `7d`: at most 30 days, 24 hours by default.
    #[schemars(regex(pattern = text::PERIOD_PATTERN))]
    ttl: Option<String>,
}

/// The room whose owner is deleted.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what `remove` takes")]
pub struct RemoveOwner {
    /// The namespace's path.
    #[schemars(length(max = text::MAX_NAME), regex(pattern = r"^/"))]
    namespace: String,
    /// The room.
    #[schemars(length(min = 1, max = text::MAX_NAME), regex(pattern = r"^[^$]"))]
    room: String,
}

/// Records an owner.
pub async fn set(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let (namespace, room) = (object.namespace(), object.room("room"));
    let owner = object.string("owner", text::MAX_NAME);
    let ttl = object.period("ttl", DEFAULT_TTL, MAX_TTL);
    object.finish()?;
    access::namespace(&call.api, &namespace)?;
    access::room(&call, &namespace, &room)?;
    call.api.owners.set(&namespace, &room, &owner, ttl).await?;
    Ok(Answer::nothing())
}

/// Deletes an owner. It is no error if there is none.
pub async fn remove(call: Call) -> Result<Answer, ApiError> {
    let mut object = call.object()?;
    let (namespace, room) = (object.namespace(), object.room("room"));
    object.finish()?;
    access::namespace(&call.api, &namespace)?;
    access::room(&call, &namespace, &room)?;
    call.api.owners.remove(&namespace, &room).await?;
    Ok(Answer::nothing())
}

impl From<OwnersError> for ApiError {
    fn from(error: OwnersError) -> Self {
        let code = match error {
            OwnersError::Unavailable => Code::Unavailable,
            OwnersError::Full => Code::Overloaded,
        };
        Self::new(code, error.to_string())
    }
}
