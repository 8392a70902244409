//! Checks API keys and the contracts that they permit.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::answer::ApiError;
use super::route::{Access, ApiCall};
use super::state::ApiState;
use crate::auth::api_keys::ApiKey;
use crate::contract::model::RoomDef;
use crate::error::Code;

/// Finds the key of a request, and checks that it permits the route.
///
/// # Errors
/// Returns 401 without a valid key, and 403 if the key does not permit the route.
pub fn check(api: &ApiState, access: Access, headers: &HeaderMap) -> Result<ApiKey, ApiError> {
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

/// Checks that the node serves the namespace.
///
/// # Errors
/// Returns 404 if the node does not serve the namespace.
pub fn namespace<'a>(api: &ApiState, path: &'a str) -> Result<&'a str, ApiError> {
    if api.contracts.iter().any(|known| *known.path == *path) {
        return Ok(path);
    }
    Err(ApiError::not_found("no contract of this node has the namespace"))
}

/// Checks that one of the key's contracts has rooms of this name.
///
/// # Errors
/// Returns 403 if no contract of the key has such rooms.
pub fn room(call: &ApiCall, namespace: &str, room: &str) -> Result<(), ApiError> {
    let caller = &call.caller;
    if rooms_like(&call.api, namespace, room).any(|def| caller.permits(&def.contract)) || caller.permits_everything() {
        return Ok(());
    }
    Err(forbidden(caller, "the room"))
}

/// Returns the families of rooms in a namespace whose pattern matches the name.
pub fn rooms_like<'a>(api: &'a ApiState, namespace: &str, room: &'a str) -> impl Iterator<Item = &'a Arc<RoomDef>> {
    let namespace = api.contracts.iter().find(|known| *known.path == *namespace);
    let contracts = namespace.into_iter().flat_map(|namespace| &namespace.contracts);
    contracts.flat_map(|contract| contract.rooms.values()).filter(move |def| def.name.matches(room).is_some())
}

/// Returns the error 403: the key is for other contracts.
pub fn forbidden(caller: &ApiKey, what: &str) -> ApiError {
    let message = format!("the API key {:?} is limited to contracts that do not include {what}", caller.name);
    ApiError::new(Code::AuthorizationFailed, message)
}
