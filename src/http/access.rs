//! Who may do what: keys, and the contracts that they are for.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::answer::ApiError;
use super::route::{Access, Call};
use super::state::Api;
use crate::auth::api_keys::ApiKey;
use crate::contract::model::RoomDef;
use crate::error::Code;

/// Finds the key of a request, and whether it is for the route.
///
/// # Errors
/// 401 and 403.
pub fn check(api: &Api, access: Access, headers: &HeaderMap) -> Result<ApiKey, ApiError> {
    if access == Access::Open {
        return Ok(ApiKey { name: String::new(), contracts: Vec::new() });
    }
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let caller = match (given.next(), given.next()) {
        (Some(value), None) => value.to_str().ok().and_then(|value| api.keys.check(value)).cloned(),
        _ => None,
    };
    let Some(caller) = caller else {
        return Err(ApiError::new(Code::AuthenticationFailed, "send a valid API key as Authorization: Bearer <key>"));
    };
    if access == Access::Admin && !caller.permits_everything() {
        return Err(forbidden(&caller, "this request"));
    }
    Ok(caller)
}

/// A namespace that is served.
///
/// # Errors
/// 404 when it is not.
pub fn namespace<'a>(api: &Api, path: &'a str) -> Result<&'a str, ApiError> {
    if api.contracts.iter().any(|known| *known.path == *path) {
        return Ok(path);
    }
    Err(ApiError::not_found("no contract of this node has the namespace"))
}

/// Whether the key is for a room: one of its contracts has such rooms.
///
/// # Errors
/// 403 when none has.
pub fn room(call: &Call, namespace: &str, room: &str) -> Result<(), ApiError> {
    let caller = &call.caller;
    if rooms_like(&call.api, namespace, room).any(|def| caller.permits(&def.contract)) || caller.permits_everything() {
        return Ok(());
    }
    Err(forbidden(caller, "the room"))
}

/// The families of rooms of a namespace that can have made a name.
pub fn rooms_like<'a>(api: &'a Api, namespace: &str, room: &'a str) -> impl Iterator<Item = &'a Arc<RoomDef>> {
    let namespace = api.contracts.iter().find(|known| *known.path == *namespace);
    let contracts = namespace.into_iter().flat_map(|namespace| &namespace.contracts);
    contracts.flat_map(|contract| contract.rooms.values()).filter(move |def| def.name.matches(room).is_some())
}

/// 403 for a key that is for other contracts.
pub fn forbidden(caller: &ApiKey, what: &str) -> ApiError {
    let message = format!("the API key {:?} is limited to contracts that do not include {what}", caller.name);
    ApiError::new(Code::AuthorizationFailed, message)
}
