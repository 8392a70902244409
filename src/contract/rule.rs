//! CEL rules.

mod check;
mod facts;

use std::sync::{Arc, LazyLock};

use cel::common::types::CelBool;
use cel::{Context, Env, IdedExpr, Program, Value};

use super::scope::{MembersNeed, Scope};

/// A compiled CEL expression that answers yes or no.
///
/// Variables are `user`, `payload`, `params`, `socket`, `metadata`, `now`, `room`, `vars`, `members` and `count`;
/// beside CEL's own functions there are `owner(room)`, `owned(room)`, `permitted(room, patterns)` and
/// `capability(room, token)`. A member that is missing makes the comparison around it fail, not the whole rule:
/// `a.missing == x || other` still asks `other`.
#[derive(Debug, Clone)]
pub struct Rule(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    text: String,
    expression: IdedExpr,
    uses: check::RuleInputs,
}

/// Maximum length of a rule, in bytes.
pub const MAX_RULE_BYTES: usize = 4096;
/// The stack of the parser's thread, in bytes. The parser takes about 10 kB for each bracket. The system allocates
/// only the part that is used.
const PARSER_STACK_BYTES: usize = 128 * 1024 * 1024;

/// CEL's standard library, shared by all rules.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

impl Rule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn compile(text: &str) -> Result<Self, String> {
        check_size(text)?;
        // The parser runs in a thread of its own, because it recurses deeper than the stack of other threads permits.
        // `check` bounds the depth of its result.
        let thread = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        std::thread::scope(|scope| {
            let parser = thread.spawn_scoped(scope, || Self::parse(text)).map_err(|error| error.to_string())?;
            parser.join().map_err(|_| "this is not valid CEL".to_owned())?
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let program = Program::compile(text).map_err(|errors| syntax(&errors))?;
        let mut expression = program.expression().clone();
        let uses = check::check(&mut expression)?;
        Ok(Self(Arc::new(Compiled { text: text.to_owned(), expression, uses })))
    }

    /// Whether the rule is true. A rule that cannot be evaluated does not hold.
    pub fn holds(&self, scope: &Scope<'_>) -> bool {
        let facts = facts::RuleFacts::new(scope);
        let mut context = Context::with_env(ENV.clone());
        context.set_variable_resolver(&facts);
        Value::resolve_val(&self.0.expression, &context)
            .is_ok_and(|value| value.downcast_ref::<CelBool>().is_some_and(|answer| *answer.inner()))
    }

    /// Whether the rule uses `owner(room)` or `owned(room)`, so that the owner must be looked up first.
    pub fn needs_owner(&self) -> bool {
        self.0.uses.owner
    }

    /// How much of the members of the room must be looked up before the rule is evaluated.
    pub fn members_need(&self) -> MembersNeed {
        self.0.uses.members
    }

    /// Whether the rule reads the payload.
    pub fn reads_payload(&self) -> bool {
        self.0.uses.variables.contains("payload")
    }

    /// Whether the rule uses this variable (`payload`, `params`, `room` …).
    pub fn uses(&self, variable: &str) -> bool {
        self.0.uses.variables.contains(variable)
    }

    /// The members of the metadata that the rule uses as `metadata.<name>`.
    pub fn metadata(&self) -> impl Iterator<Item = &str> {
        self.0.uses.metadata.iter().map(String::as_str)
    }

    /// The variables of the room's template that the rule uses as `vars.<name>`.
    pub fn room_variables(&self) -> impl Iterator<Item = &str> {
        self.0.uses.room_variables.iter().map(String::as_str)
    }

    /// The rule as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

// Two rules are equal when their texts are equal, apart from spaces.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text().split_whitespace().eq(other.text().split_whitespace())
    }
}

impl Eq for Rule {}

fn check_size(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("the rule is empty".to_owned());
    }
    if text.len() > MAX_RULE_BYTES {
        return Err(format!("a rule may have at most {MAX_RULE_BYTES} bytes"));
    }
    Ok(())
}

fn syntax(errors: &cel::ParseErrors) -> String {
    let problems: Vec<String> = errors
        .errors
        .iter()
        .map(|error| {
            // The message of the CEL parser also lists all tokens that the parser expected. That list does not help, so
            // it is cut off.
            let message = error.msg.split(" expecting {").next().unwrap_or_default();
            format!("line {}, column {} of the rule: {message}", error.pos.0, error.pos.1)
        })
        .collect();
    format!("this is not CEL: {}", problems.join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::{Value as Json, json};

    use super::*;
    use crate::contract::scope::{Capabilities, SocketScope, SocketState};
    use crate::user::{Claims, User};

    /// A capability check that accepts every token for `job:1`.
    struct OneToken;

    impl Capabilities for OneToken {
        fn grants(&self, token: &str, room: &str, _user_id: &str) -> bool {
            token == "token" && room == "job:1"
        }
    }

    fn user(id: &str, claims: Json, roles: &[&str]) -> User {
        User {
            claims: Claims::of(claims.as_object().unwrap()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..User::named(id)
        }
    }

    fn asked(rule: &str, user: &User, payload: &Json, owner: Option<&str>) -> bool {
        let vars = [("jobId".to_owned(), "1".to_owned())];
        let mut scope = Scope::new(user, payload, SystemTime::UNIX_EPOCH + Duration::from_secs(60));
        scope.room = Some("job:1");
        scope.vars = &vars;
        scope.owner = owner;
        scope.capabilities = Some(&OneToken);
        scope.socket = Some(SocketScope { id: "s1", connected_at: SystemTime::UNIX_EPOCH, state: Some(&OneName) });
        Rule::compile(rule).unwrap().holds(&scope)
    }

    /// A socket whose metadata has a name, and which is in one room.
    struct OneName;

    impl SocketState for OneName {
        fn metadata_member(&self, name: &str) -> Option<Json> {
            self.metadata().remove(name)
        }

        fn metadata(&self) -> serde_json::Map<String, Json> {
            serde_json::Map::from_iter([("name".to_owned(), "Ann".into())])
        }

        fn handshake(&self) -> Option<&Json> {
            None
        }

        fn rooms(&self) -> Vec<String> {
            vec!["job:1".to_owned()]
        }
    }

    #[test]
    fn rules_read_the_sockets_metadata_and_rooms() {
        for (rule, answer) in [
            ("metadata.name == 'Ann'", true),
            ("metadata.role == 'x'", false),
            ("has(metadata.name) && !has(metadata.role)", true),
            ("'job:1' in socket.rooms", true),
            ("socket.rooms.exists(room, room.startsWith('user:'))", false),
        ] {
            assert_eq!(asked(rule, &User::named("u"), &json!({}), None), answer, "{rule}");
        }
        assert!(Rule::compile("size(metadata) > 0").unwrap_err().contains("metadata.<member>"));
    }

    const JOIN: &str = "owner(room) == user.id
        || permitted(room, user.claims.rooms)
        || capability(room, payload.capability)
        || 'admin' in user.roles";

    #[test]
    fn each_way_to_own_a_room_is_enough_and_none_is_not() {
        let nobody = user("u1", json!({}), &[]);
        assert!(!asked(JOIN, &nobody, &Json::Null, None));
        assert!(asked(JOIN, &nobody, &Json::Null, Some("u1")));
        assert!(!asked(JOIN, &nobody, &Json::Null, Some("u2")));
        assert!(asked(JOIN, &user("u1", json!({ "rooms": ["x", "job:*"] }), &[]), &Json::Null, None));
        assert!(asked(JOIN, &user("u1", json!({ "rooms": "job:1" }), &[]), &Json::Null, None));
        assert!(!asked(JOIN, &user("u1", json!({ "rooms": ["job:2", 1, null] }), &[]), &Json::Null, None));
        assert!(asked(JOIN, &nobody, &json!({ "capability": "token" }), None));
        assert!(!asked(JOIN, &nobody, &json!({ "capability": "other" }), None));
        assert!(!asked(JOIN, &nobody, &json!({ "capability": ["token"] }), None));
        assert!(asked(JOIN, &user("u1", json!({}), &["admin"]), &Json::Null, None));
    }

    #[test]
    fn unknown_owner_equals_nobody_not_even_the_anonymous_user() {
        let anonymous = User::anonymous();
        for owner in [None, Some("")] {
            for rule in [
                "owner(room) == user.id",
                "user.id == owner(room)",
                "owner(room) == ''",
                "owner(room) in [user.id]",
                "owner(room) == owner(room)",
                "owner(room) == null",
                "owner(room) == payload.owner",
                "owned(room)",
            ] {
                assert!(!asked(rule, &anonymous, &json!({ "owner": null }), owner), "{rule}");
            }
            assert!(asked("owner(room) != user.id && !owned(room)", &anonymous, &Json::Null, owner));
        }
        assert!(asked("owned(room)", &anonymous, &Json::Null, Some("u1")));
    }

    #[test]
    fn missing_member_fails_its_comparison_and_not_the_rule() {
        let user = user("u1", json!({ "a": { "b": 1 } }), &[]);
        for rule in [
            "payload.x == 1 || user.id == 'u1'",
            "user.id == 'u1' || payload.x == 1",
            "payload.x.y.z == 1 || user.claims.no.no == 1 || user.id == 'u1'",
            "!has(payload.x) && !has(payload.x.y) && has(user.claims.a.b)",
            "!permitted(room, user.claims.rooms) && !permitted(room, user.claims.no.no)",
            "!capability(room, payload.capability) && !capability(room, payload.a.b)",
            "!(payload.x == 1 && user.id == 'u2')",
            "size(payload) == 0",
        ] {
            for payload in [Json::Null, json!({})] {
                assert!(asked(rule, &user, &payload, None), "{rule} with {payload}");
            }
        }
        for rule in [
            "payload.x == 1",
            "payload.x != 1",
            "payload.x == payload.y",
            "!(payload.x == 1)",
            "user.claims.no == null",
        ] {
            assert!(!asked(rule, &user, &json!({}), None), "{rule}");
        }
    }

    #[test]
    fn rule_that_does_not_answer_yes_or_no_does_not_hold() {
        let user = user("u1", json!({ "yes": "true" }), &[]);
        for rule in ["user.id", "user.claims.yes", "1 / 0 == 1", "payload.list[9] == 1", "int('x') == 1", "user.roles"]
        {
            assert!(!asked(rule, &user, &json!({ "list": [] }), None), "{rule}");
        }
    }

    #[test]
    fn all_facts_are_seen() {
        let user = user(
            "u1",
            json!({ "tenant": "t1", "n": 3, "f": 1.5, "flags": [true], "list": [{ "id": "a" }] }),
            &["x", "y"],
        );
        let payload = json!({ "a": { "b": "c" }, "tags": ["t", "u"], "big": u64::MAX, "none": null, "ok": true });
        for rule in [
            "user.id == 'u1' && user.authenticated && !user.anonymous && size(user.roles) == 2",
            "user.claims.tenant == 't1' && user.claims.n == 3 && user.claims.n > 2 && user.claims.f == 1.5",
            "user.claims['tenant'] == 't1' && 'tenant' in user.claims && !('x' in user.claims)",
            "user.claims.list.exists(x, x.id == 'a') && user.claims.flags[0]",
            "payload.a.b == 'c' && payload.tags == ['t', 'u'] && 't' in payload.tags && payload.none == null",
            "payload.a == {'b': 'c'} && payload.big == 18446744073709551615u && payload.ok",
            "payload.tags.all(t, t.size() == 1) && payload.a.b.startsWith('c') && payload.a.b.matches('^[a-c]$')",
            "vars.jobId == '1' && room == 'job:1' && room.endsWith(vars.jobId)",
            "socket.id == 's1' && now - socket.connectedAt == duration('60s')",
            "now > timestamp('1969-01-01T00:00:00Z') && now.getFullYear() == 1970",
            "has(payload.a) ? payload.a.b == 'c' : false",
        ] {
            assert!(asked(rule, &user, &payload, None), "{rule}");
        }
    }

    #[test]
    fn rule_says_what_it_needs() {
        let rule = Rule::compile(JOIN).unwrap();
        assert!(rule.needs_owner() && rule.reads_payload() && rule.uses("room") && !rule.uses("params"));
        let rule = Rule::compile("vars.userId == user.id").unwrap();
        assert!(!rule.needs_owner() && !rule.reads_payload());
        assert_eq!(rule.room_variables().collect::<Vec<_>>(), ["userId"]);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (rule, part) in [
            ("user.id ==", "not CEL"),
            ("usr.id == 'x'", "`user`"),
            ("user.name == 'x'", "`id`"),
            ("socket.ip == 'x'", "`connectedAt`"),
            ("ownr(room) == user.id", "`owner`"),
            ("owner('job:1') == user.id", "owner(room)"),
            ("owner(user.claims.job) == user.id", "compare the claim with a variable of the room's name"),
            ("owned(payload.room)", "write `owned(room)`"),
            ("owner(room, 1) == user.id", "owner(room)"),
            ("permitted(room)", "permitted(room, patterns)"),
            ("capability(room, 't', 1)", "capability(room, token)"),
            ("room.owner()", "no function"),
            ("[1].exists(x, y == 1)", "`y`"),
            ("'yes'", "true or false"),
            ("", "empty"),
        ] {
            let error = Rule::compile(rule).unwrap_err();
            assert!(error.contains(part), "{rule}: {error}");
        }
    }

    #[test]
    fn deep_or_long_rule_is_refused_and_the_deepest_permitted_one_works() {
        let user = User::anonymous();
        let sum = |terms: usize| format!("{} > 0 || true", vec!["1"; terms].join(" + "));
        assert!(asked(&sum(check::MAX_DEPTH - 4), &user, &Json::Null, None));
        assert!(Rule::compile(&sum(check::MAX_DEPTH + 4)).unwrap_err().contains("deep"));
        for piece in [
            "true || ",
            "1 + ",
            "false ? true : ",
            "payload.x == 1 && ",
            "!",
            "-",
            "(",
            "[",
            "{1:",
            "size(",
            "[1].all(x, ",
        ] {
            let _ = Rule::compile(&format!("{}1", piece.repeat(MAX_RULE_BYTES / piece.len() - 1)));
        }
        assert!(Rule::compile(&format!("payload{} == 1", ".a".repeat(2000))).is_err());
        assert!(Rule::compile(&"x".repeat(MAX_RULE_BYTES + 1)).unwrap_err().contains("4096"));
    }
}
