//! Converts the scope to the form that CEL reads. A value is converted only when a rule asks for it.

use std::sync::OnceLock;
use std::time::SystemTime;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelNull, CelOptional, CelString, CelTimestamp, CelUInt, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::context::VariableResolver;
use serde_json::{Map, Value};

use crate::contract::scope::{Capabilities, RoomMembersScope, Scope, SocketScope};
use crate::time::unix_millis;
use crate::user::User;

/// The variable with the room's owner.
pub(super) const OWNER: &str = "@owner";
/// The variable that says whether the room has an owner.
pub(super) const OWNED: &str = "@owned";
/// The table that answers the function `permitted`: `@permitted[room][patterns]`.
pub(super) const PERMITTED: &str = "@permitted";
/// The table that answers the function `capability`: `@capability[room][token]`.
pub(super) const CAPABILITY: &str = "@capability";

/// All values that a rule can read.
pub(super) struct RuleFacts<'a> {
    user: &'a User,
    /// The token's claims. Decoded when a rule first asks for them.
    claims: OnceLock<Map<String, Value>>,
    /// The socket's metadata. Read when a rule first asks for it.
    metadata: OnceLock<Map<String, Value>>,
    payload: &'a Value,
    params: &'a Value,
    socket: Option<SocketScope<'a>>,
    now: SystemTime,
    room: Option<&'a str>,
    vars: &'a [(String, String)],
    members: Option<&'a RoomMembersScope>,
    owner: Option<&'a str>,
    capabilities: Option<&'a dyn Capabilities>,
}

impl<'a> RuleFacts<'a> {
    pub(super) fn new(scope: &Scope<'a>) -> Self {
        Self {
            user: scope.user,
            claims: OnceLock::new(),
            metadata: OnceLock::new(),
            payload: scope.payload,
            params: scope.params,
            socket: scope.socket,
            now: scope.now,
            room: scope.room,
            vars: scope.vars,
            members: scope.members,
            // An owner with an empty name is ignored: it must not equal an anonymous user's empty id.
            owner: scope.owner.filter(|owner| !owner.is_empty()),
            capabilities: scope.capabilities,
        }
    }
}

impl VariableResolver for RuleFacts<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        Some(match variable {
            "user" => CowVal::owned(Object::User(self.user, &self.claims)),
            "payload" => or_empty(self.payload),
            "params" => or_empty(self.params),
            "socket" => CowVal::owned(Object::Socket(self.socket?)),
            "metadata" => {
                let state = self.socket?.state;
                let read = || state.map(|state| state.metadata()).unwrap_or_default();
                CowVal::owned(Object::Json(self.metadata.get_or_init(read)))
            }
            "now" => CowVal::owned(timestamp(self.now)),
            "room" => CowVal::owned(CelString::from(self.room?)),
            "vars" => CowVal::owned(Object::Vars(self.vars)),
            "members" => CowVal::Owned(convert(&self.members?.shown)),
            "count" => CowVal::owned(CelInt::from(i64::try_from(self.members?.count).unwrap_or(i64::MAX))),
            OWNER => match self.owner {
                Some(owner) => CowVal::owned(CelString::from(owner)),
                None => CowVal::owned(UnknownOwner),
            },
            OWNED => CowVal::owned(CelBool::from(self.owner.is_some())),
            PERMITTED => CowVal::owned(Object::Permitted),
            CAPABILITY => CowVal::owned(Object::Capability(self.capabilities, &self.user.id)),
            _ => return None,
        })
    }
}

/// Converts JSON to a CEL value. A missing payload becomes an object without members.
fn or_empty(value: &Value) -> CowVal<'_, '_> {
    match value {
        Value::Null => CowVal::owned(Object::Empty),
        value => CowVal::Owned(convert(value)),
    }
}

fn convert<'a>(value: &'a Value) -> Box<dyn Val + 'a> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(convert).collect::<Vec<_>>())),
        Value::Object(members) => Box::new(Object::Json(members)),
    }
}

fn timestamp(time: SystemTime) -> CelTimestamp {
    let millis = i64::try_from(unix_millis(time)).unwrap_or(i64::MAX);
    CelTimestamp::from(chrono::DateTime::from_timestamp_millis(millis).unwrap_or_default().fixed_offset())
}

/// The owner of a room whose owner is not known. It equals nothing, not even itself.
#[derive(Debug, Clone, Copy)]
struct UnknownOwner;

static NOBODY: Type = Type::new_unspecified_type("roomcast.Nobody");

impl Val for UnknownOwner {
    fn get_type(&self) -> &Type {
        &NOBODY
    }

    fn cel_type() -> &'static Type {
        &NOBODY
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self)
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

impl StaticVal for UnknownOwner {}

/// An object with members, borrowed from the scope.
#[derive(Clone)]
enum Object<'a> {
    Empty,
    Json(&'a Map<String, Value>),
    User(&'a User, &'a OnceLock<Map<String, Value>>),
    Socket(SocketScope<'a>),
    Vars(&'a [(String, String)]),
    Permitted,
    PermittedIn(String),
    Capability(Option<&'a dyn Capabilities>, &'a str),
    CapabilityIn(Option<&'a dyn Capabilities>, &'a str, String),
}

// The debug output shows no payloads or claims.
impl std::fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Object")
    }
}

impl<'a> Object<'a> {
    fn member(&self, key: &str) -> Option<Box<dyn Val + 'a>> {
        Some(match self {
            Object::Json(members) => convert(members.get(key)?),
            Object::Vars(vars) => Box::new(CelString::from(vars.iter().find(|(name, _)| name == key)?.1.as_str())),
            Object::User(user, claims) => match key {
                "id" => Box::new(CelString::from(&*user.id)),
                "roles" => Box::new(CelList::from(
                    user.roles
                        .iter()
                        .map(|role| Box::new(CelString::from(role.as_str())) as Box<dyn Val + 'a>)
                        .collect::<Vec<_>>(),
                )),
                "claims" => Box::new(Object::Json(claims.get_or_init(|| user.claims.to_map()))),
                "anonymous" => Box::new(CelBool::from(user.anonymous)),
                "authenticated" => Box::new(CelBool::from(!user.anonymous)),
                _ => return None,
            },
            Object::Socket(socket) => match key {
                "id" => Box::new(CelString::from(socket.id)),
                "connectedAt" => Box::new(timestamp(socket.connected_at)),
                "rooms" => Box::new(CelList::from(
                    socket
                        .state
                        .map(|state| state.rooms())
                        .unwrap_or_default()
                        .into_iter()
                        .map(|room| Box::new(CelString::from(room)) as Box<dyn Val + 'a>)
                        .collect::<Vec<_>>(),
                )),
                _ => return None,
            },
            Object::Permitted => Box::new(Object::PermittedIn(key.to_owned())),
            Object::Capability(capabilities, user_id) => {
                Box::new(Object::CapabilityIn(*capabilities, user_id, key.to_owned()))
            }
            Object::Empty | Object::PermittedIn(_) | Object::CapabilityIn(..) => return None,
        })
    }

    /// The answer of one of roomcast's own functions for this argument; `None` for other objects.
    fn answer(&self, index: &dyn Val) -> Option<bool> {
        let given = match index.downcast_ref::<CelOptional>() {
            Some(optional) => optional.option(),
            None => Some(index),
        };
        match self {
            Object::PermittedIn(room) => Some(given.is_some_and(|patterns| permits(patterns, room))),
            Object::CapabilityIn(capabilities, user_id, room) => Some(given.is_some_and(|token| {
                let token = token.downcast_ref::<CelString>();
                capabilities.zip(token).is_some_and(|(all, token)| all.grants(token.inner(), room, user_id))
            })),
            _ => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Object::Json(members) => members.len(),
            Object::Vars(vars) => vars.len(),
            _ => 0,
        }
    }
}

impl Val for Object<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    /// Compares member by member, so that the object can be compared with a map written in a rule.
    fn equals(&self, other: &dyn Val) -> bool {
        let (Object::Json(members), Some(size), Some(indexer)) = (self, other.as_sizer(), other.as_indexer()) else {
            return false;
        };
        usize::try_from(*size.size().inner()).is_ok_and(|size| size == members.len())
            && members.iter().all(|(key, value)| {
                let key = CelString::from(key.as_str());
                indexer.get(&key).is_ok_and(|theirs| convert(value).equals(theirs.as_ref()))
            })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl Indexer for Object<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(answer) = self.answer(index) {
            return Ok(CowVal::owned(CelBool::from(answer)));
        }
        let key = index.downcast_ref::<CelString>().map(CelString::inner);
        let member = key.and_then(|key| self.member(key));
        member.map(CowVal::Owned).ok_or_else(|| ExecutionError::no_such_key(key.unwrap_or_default()))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}

impl Container for Object<'_> {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(value.downcast_ref::<CelString>().is_some_and(|key| self.member(key.inner()).is_some()))
    }
}

impl Sizer for Object<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.len()).unwrap_or(i64::MAX))
    }
}

/// Whether a string, or a string in a list, equals the room's name or is a pattern that matches it.
fn permits(patterns: &dyn Val, room: &str) -> bool {
    if let Some(pattern) = patterns.downcast_ref::<CelString>() {
        return glob(pattern.inner(), room);
    }
    let list = patterns.downcast_ref::<CelList>().map_or(&[][..], CelList::inner);
    list.iter().any(|item| item.downcast_ref::<CelString>().is_some_and(|pattern| glob(pattern.inner(), room)))
}

/// Whether a text matches a pattern in which each `*` stands for any characters, or none.
fn glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else {
        return rest.is_empty();
    };
    // Taking the leftmost match is enough: it leaves the longest rest for the remaining pieces.
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn star_stands_for_anything() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "x:y"),
            ("a*", "a"),
            ("a*", "abc"),
            ("*c", "abc"),
            ("a*c", "abbc"),
            ("a*b*c", "aXbYc"),
            ("job:*", "job:1"),
            ("**", "x"),
            ("a*a", "aa"),
            ("", ""),
        ] {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("a", "b"),
            ("a", "ab"),
            ("a", ""),
            ("", "a"),
            ("a*", "ba"),
            ("a*a", "a"),
            ("a*b*b", "ab"),
            ("job:*", "jobs:1"),
            ("A", "a"),
            ("a?c", "abc"),
        ] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
    }
}
