//! `PUT` and `DELETE /api/v1/owners`: records the owner of a room.

use super::access;
use super::answer::{ApiError, ApiResponse};
use super::fields::body;
use super::route::ApiCall;
use super::text::{NameText, NamespaceText, PeriodText, RoomText};
use crate::error::Code;
use crate::owners::{DEFAULT_TTL, MAX_TTL, OwnersError};

body! {
    /// The owner of a room. Join rules read it as `owner(room)`.
    pub struct SetOwner {
        /// The namespace's path.
        namespace: NamespaceText,
        /// The room.
        room: RoomText,
        /// The user's id.
        owner: NameText,
        /// How long the owner is recorded, such as `90s`, `15m`, `24h`, `7d`: at most 30 days, 24 hours by default.
        ttl: Option<PeriodText<{ MAX_TTL.as_secs() }>>,
    }
}

body! {
    /// The room whose owner is deleted.
    pub struct RemoveOwner {
        /// The namespace's path.
        namespace: NamespaceText,
        /// The room.
        room: RoomText,
    }
}

/// Records an owner.
pub async fn set(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let SetOwner { namespace: NamespaceText(namespace), room: RoomText(room), owner: NameText(owner), ttl } =
        call.read()?;
    access::namespace(&call.api, &namespace)?;
    access::room(&call, &namespace, &room)?;
    let ttl = ttl.map_or(DEFAULT_TTL, |PeriodText(ttl)| ttl);
    call.api.owners.set(&namespace, &room, &owner, ttl).await?;
    Ok(ApiResponse::nothing())
}

/// Deletes an owner. It is no error if there is none.
pub async fn remove(call: ApiCall) -> Result<ApiResponse, ApiError> {
    let RemoveOwner { namespace: NamespaceText(namespace), room: RoomText(room) } = call.read()?;
    access::namespace(&call.api, &namespace)?;
    access::room(&call, &namespace, &room)?;
    call.api.owners.remove(&namespace, &room).await?;
    Ok(ApiResponse::nothing())
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
