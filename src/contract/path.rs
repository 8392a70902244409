//! A dotted path to a value of a [`Scope`].

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::digits::{self, is_exact};
use super::handshake::HandshakePart;
use super::scope::{MembersNeed, Scope};
use crate::time::{iso8601, unix_millis};

/// A dotted path, such as `payload.job.id`. The roots are `payload`, `params`, `user.id`, `user.roles`, `user.claims`,
/// `user.authenticated`, `user.anonymous`, `socket.id`, `metadata`, `handshake`, `vars`, `room`, `rooms`, `members`,
/// `others`, `count`, `member`, `now`, `now_ms`, `event.id`, `event.name`, `error.code`, `error.message` and
/// `error.retryAfterMs`.
///
/// A number in a path selects an element of an array: `payload.items.0.id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: Box<str>,
    root: Root,
    rest: Box<[Box<str>]>,
}

/// The first part of a path. The rest of the path is looked up in the JSON value found there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The payload.
    Payload,
    /// The routing data that a backend sends with an event.
    Params,
    /// The user's id. Anonymous users have none.
    UserId,
    /// The user's roles.
    UserRoles,
    /// The token's claims.
    UserClaims,
    /// Whether the user has a verified token.
    UserAuthenticated,
    /// Whether the user has no token.
    UserAnonymous,
    /// The socket's id.
    SocketId,
    /// The metadata of the socket.
    Metadata,
    /// What the client sent when it connected: `query`, `headers` and `auth`.
    Handshake,
    /// The variables of the room's template.
    Vars,
    /// The room that the rule or template is about.
    Room,
    /// All rooms that the event joins, leaves or is sent to.
    Rooms,
    /// The members of the room, as the contract shows them.
    Members,
    /// The members of the room without the sender.
    Others,
    /// The number of the room's members.
    Count,
    /// The member that a presence event is about.
    Member,
    /// The current time, in ISO 8601 in UTC with milliseconds.
    Now,
    /// The current time in milliseconds of Unix time.
    NowMs,
    /// The event's id.
    EventId,
    /// The name of the client's event.
    EventName,
    /// How many milliseconds to wait before trying again, if the time is known.
    ErrorRetryAfterMs,
    /// The code of the error.
    ErrorCode,
    /// The message of the error.
    ErrorMessage,
}

/// The text of each root, and whether a path may continue after it.
const ROOTS: &[(&str, Root, bool)] = &[
    ("payload", Root::Payload, true),
    ("params", Root::Params, true),
    ("user.id", Root::UserId, false),
    ("user.roles", Root::UserRoles, true),
    ("user.claims", Root::UserClaims, true),
    ("user.authenticated", Root::UserAuthenticated, false),
    ("user.anonymous", Root::UserAnonymous, false),
    ("socket.id", Root::SocketId, false),
    ("metadata", Root::Metadata, true),
    ("handshake", Root::Handshake, true),
    ("vars", Root::Vars, true),
    ("room", Root::Room, false),
    ("rooms", Root::Rooms, true),
    ("members", Root::Members, true),
    ("others", Root::Others, true),
    ("count", Root::Count, false),
    ("member", Root::Member, true),
    ("now", Root::Now, false),
    ("now_ms", Root::NowMs, false),
    ("event.id", Root::EventId, false),
    ("event.name", Root::EventName, false),
    ("error.code", Root::ErrorCode, false),
    ("error.message", Root::ErrorMessage, false),
    ("error.retryAfterMs", Root::ErrorRetryAfterMs, false),
];

impl Path {
    /// Parses a path.
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments: Vec<&str> = text.split('.').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return Err(format!("`{text}` is not a path: write words with dots between them, such as `payload.id`"));
        }
        let found = ROOTS.iter().find(|(name, _, open)| {
            text == *name || (*open && text.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        });
        let Some((name, root, _)) = found else {
            return Err(unknown_root(text));
        };
        let rest: Box<[Box<str>]> = segments[name.split('.').count()..].iter().map(|s| Box::from(*s)).collect();
        if *root == Root::Vars && rest.len() != 1 {
            return Err(format!("`{text}` has no variable: write `vars.<variable of the room's name>`"));
        }
        let path = Self { text: text.into(), root: *root, rest };
        if *root == Root::Handshake && path.handshake_part().is_none() {
            return Err(format!(
                "`{text}` is no part of a handshake: write `handshake.query.<name>`, `handshake.headers.<name>` or \
                 `handshake.auth`"
            ));
        }
        Ok(path)
    }

    /// Returns the path of the payload's member with this name.
    pub(super) fn payload_member(name: &str) -> Self {
        Self { text: format!("payload.{name}").into(), root: Root::Payload, rest: Box::new([name.into()]) }
    }

    /// Returns the path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The root of the path.
    pub fn root(&self) -> Root {
        self.root
    }

    /// Returns the variable that a path `vars.…` names.
    pub fn variable(&self) -> Option<&str> {
        (self.root == Root::Vars).then(|| self.rest.first().map(AsRef::as_ref)).flatten()
    }

    /// Whether the path leads into the payload.
    pub fn reads_payload(&self) -> bool {
        self.root == Root::Payload
    }

    /// Whether a client chooses the value at the path. Metadata counts, because clients may have chosen its members.
    pub(super) fn is_chosen_by_client(&self) -> bool {
        matches!(
            self.root,
            Root::Payload | Root::Handshake | Root::EventName | Root::Metadata | Root::Vars | Root::Room | Root::Rooms
        )
    }

    /// The part of the handshake that the path uses.
    pub(super) fn handshake_part(&self) -> Option<HandshakePart> {
        if self.root != Root::Handshake {
            return None;
        }
        match &*self.rest {
            [kind] if &**kind == "auth" => Some(HandshakePart::Auth(None)),
            [kind, name, ..] if &**kind == "auth" => Some(HandshakePart::Auth(Some(name.to_string()))),
            [kind, name] if &**kind == "query" => Some(HandshakePart::Query(name.to_string())),
            [kind, name] if &**kind == "headers" && is_header_name(name) => {
                Some(HandshakePart::Header(name.to_string()))
            }
            _ => None,
        }
    }

    /// Returns the names of the members that lead from the payload to the value. `None` if the path does not begin
    /// there.
    pub(super) fn payload_keys(&self) -> Option<impl Iterator<Item = &str>> {
        self.reads_payload().then(|| self.rest.iter().map(AsRef::as_ref))
    }

    /// How much of the members of a room the path needs.
    pub fn members_need(&self) -> MembersNeed {
        match self.root {
            Root::Members | Root::Others => MembersNeed::List,
            Root::Count => MembersNeed::Count,
            _ => MembersNeed::None,
        }
    }

    /// Looks up the value of the path; `None` when there is no value. An anonymous user has no id.
    pub fn find(&self, scope: &Scope<'_>) -> Option<Value> {
        self.find_in(scope).map(Cow::into_owned)
    }

    /// Looks up the value of the path, and borrows the value if the scope has it as JSON.
    pub(super) fn find_in<'s>(&self, scope: &Scope<'s>) -> Option<Cow<'s, Value>> {
        let text = |text: &str| Some(Cow::Owned(Value::String(text.to_owned())));
        match self.root {
            Root::Payload => self.descend(scope.payload),
            Root::Params => self.descend(scope.params),
            Root::UserClaims => self.descend_claims(scope),
            Root::UserId if scope.user.id.is_empty() => None,
            Root::UserId => text(&scope.user.id),
            Root::UserRoles => self.select(strings(&scope.user.roles)),
            Root::UserAuthenticated => Some(Cow::Owned(Value::Bool(!scope.user.anonymous))),
            Root::UserAnonymous => Some(Cow::Owned(Value::Bool(scope.user.anonymous))),
            Root::SocketId => text(scope.socket?.id),
            Root::Metadata => self.find_metadata(scope),
            Root::Handshake => self.descend(scope.socket?.state?.handshake()?),
            Root::Vars => text(&scope.vars.iter().find(|(name, _)| self.variable() == Some(name))?.1),
            Root::Room => text(scope.room?),
            Root::Rooms => self.select(strings(scope.rooms)),
            Root::Members => self.descend(&scope.members?.shown),
            Root::Others => self.select(scope.members?.others()),
            Root::Count => Some(Cow::Owned(Value::from(scope.members?.count))),
            Root::Member => self.descend(scope.member?),
            Root::Now => text(&iso8601(scope.now)),
            Root::NowMs => Some(Cow::Owned(Value::from(unix_millis(scope.now)))),
            Root::EventId => text(scope.event_id()),
            Root::EventName => text(scope.event_name?),
            Root::ErrorCode => text(scope.error?.code),
            Root::ErrorMessage => text(scope.error?.message),
            Root::ErrorRetryAfterMs => {
                let wait = scope.error?.retry_after?.as_millis();
                Some(Cow::Owned(Value::from(u64::try_from(wait).unwrap_or(u64::MAX))))
            }
        }
    }

    /// The text of a value that [`Path::find_in`] found, as its sender wrote it. `None` if the value itself has all
    /// digits of its numbers, or the scope does not have the text.
    pub(super) fn sent<'s>(&self, scope: &Scope<'s>, value: &Value) -> Option<&'s RawValue> {
        let text = scope.text.filter(|_| self.root == Root::Payload && !is_exact(value))?;
        digits::at(text, &self.rest)
    }

    fn descend<'s>(&self, from: &'s Value) -> Option<Cow<'s, Value>> {
        if self.rest.is_empty() && from.is_null() {
            return None;
        }
        self.rest.iter().try_fold(from, |value, key| member(value, key)).map(Cow::Borrowed)
    }

    fn descend_claims(&self, scope: &Scope<'_>) -> Option<Cow<'static, Value>> {
        let claims = &scope.user.claims;
        let Some((first, rest)) = self.rest.split_first() else {
            return Some(Cow::Owned(Value::Object(claims.to_map())));
        };
        let first = claims.get(first)?;
        match rest {
            [] => Some(Cow::Owned(first)),
            rest => rest.iter().try_fold(&first, |value, key| member(value, key)).cloned().map(Cow::Owned),
        }
    }

    fn find_metadata(&self, scope: &Scope<'_>) -> Option<Cow<'static, Value>> {
        let state = scope.socket?.state?;
        let Some((first, rest)) = self.rest.split_first() else {
            return Some(Cow::Owned(Value::Object(state.metadata())));
        };
        let first = state.metadata_member(first)?;
        match rest {
            [] => Some(Cow::Owned(first)),
            rest => rest.iter().try_fold(&first, |value, key| member(value, key)).cloned().map(Cow::Owned),
        }
    }

    fn select(&self, from: Value) -> Option<Cow<'static, Value>> {
        self.rest.iter().try_fold(&from, |value, key| member(value, key)).map(|value| Cow::Owned(value.clone()))
    }
}

/// Whether a text is the name of a header, in lower case. A name with dots would be several parts of a path.
fn is_header_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}

fn member<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

fn strings(list: &[String]) -> Value {
    Value::Array(list.iter().cloned().map(Value::String).collect())
}

fn unknown_root(text: &str) -> String {
    let names: Vec<&str> = ROOTS.iter().map(|(name, ..)| *name).collect();
    match crate::suggest::nearest(text, names.iter().copied()) {
        Some(near) => format!("`{text}` is an unknown path: did you mean `{near}`?"),
        None => format!("`{text}` is an unknown path: a path starts with one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::user::{Claims, User};

    fn find(path: &str, scope: &Scope<'_>) -> Option<Value> {
        Path::parse(path).unwrap().find(scope)
    }

    #[test]
    fn path_finds_what_it_names() {
        let claims = json!({ "tenant": { "id": 7 } }).as_object().unwrap().clone();
        let user = User { roles: Arc::new(["admin".into()]), claims: Claims::of(&claims), ..User::named("u1") };
        let payload = json!({ "job": { "id": "j1" }, "list": [{ "n": 1 }], "nothing": null });
        let vars = [("jobId".to_owned(), "j1".to_owned())];
        let rooms = ["a".to_owned(), "b".to_owned()];
        let mut scope = Scope::new(&user, &payload, SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        scope.vars = &vars;
        scope.rooms = &rooms;
        for (path, value) in [
            ("payload.job.id", json!("j1")),
            ("payload.list.0.n", json!(1)),
            ("payload.nothing", json!(null)),
            ("user.id", json!("u1")),
            ("user.roles", json!(["admin"])),
            ("user.claims.tenant.id", json!(7)),
            ("user.authenticated", json!(true)),
            ("vars.jobId", json!("j1")),
            ("rooms", json!(["a", "b"])),
            ("rooms.1", json!("b")),
            ("now", json!("1970-01-01T00:00:01.500Z")),
            ("now_ms", json!(1500)),
        ] {
            assert_eq!(find(path, &scope), Some(value), "{path}");
        }
        for path in ["payload.job.x", "payload.job.id.x", "payload.list.9", "params", "params.x", "socket.id", "room"] {
            assert_eq!(find(path, &scope), None, "{path}");
        }
        assert_eq!(find("event.id", &scope), Some(json!(scope.event_id())));
    }

    #[test]
    fn anonymous_user_has_no_id() {
        let user = User::anonymous();
        let scope = Scope::new(&user, &Value::Null, SystemTime::now());
        assert_eq!(find("user.id", &scope), None);
        assert_eq!(find("user.anonymous", &scope), Some(json!(true)));
    }

    #[test]
    fn path_that_leads_nowhere_is_refused() {
        for path in
            ["", "payload.", ".x", "user", "user.name", "socket", "error", "vars", "vars.a.b", "now.x", "claims.x"]
        {
            assert!(Path::parse(path).is_err(), "{path}");
        }
        assert!(Path::parse("user.idd").unwrap_err().contains("`user.id`"));
    }
}
