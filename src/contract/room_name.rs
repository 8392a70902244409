//! Templates of room names.

use serde_json::Value;
use serde_json::value::RawValue;

use super::digits::is_whole;
use super::path::Path;
use super::scope::Scope;
use super::template::{Piece, split};

/// Maximum length of a variable in a room's name, in bytes. Identity providers issue ids of at most this length
/// (OpenID Connect Core 1.0, 2, `sub`).
pub const MAX_VARIABLE_BYTES: usize = 255;
/// Maximum length of a room's name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The characters besides letters and digits that a variable may contain if another variable follows it. The last
/// variable may hold every visible character, because the end of the template shows where it ends. User ids need this:
/// `auth0|1234`, `urn:uuid:…`, `https://idp.example/users/7`.
pub const ALPHABET: &str = "_-.@+=~";

/// The variables of a room's name with their values, in the order of the template.
pub type Variables = Vec<(String, String)>;

/// A template of room names, such as `job:{jobId}`: fixed text and variables.
///
/// Two different sets of values never make the same name: [`RoomTemplate::compile`] refuses templates in which they
/// could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomTemplate {
    text: String,
    /// The fixed text before the first variable.
    prefix: String,
    variables: Vec<NameVariable>,
    /// Characters that the variables may contain besides letters, digits and [`ALPHABET`].
    chars: String,
    /// The template's text without the names of its variables.
    shape: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NameVariable {
    name: String,
    /// The path of the variable's value, unless the contract gives another path.
    path: Path,
    /// The text between this variable and the next one, or the end.
    after: String,
}

/// Why a room's name cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// A variable of the room's name has no value.
    #[error("{0} is missing")]
    Missing(String),
    /// A variable of the room's name is not a string, a whole number or a boolean.
    #[error("{0} must be a string, a boolean, or a whole number without fraction and exponent")]
    NotScalar(String),
    /// The room's name or one of its variables is too long.
    #[error("{0} is longer than {1} bytes")]
    TooLong(String, usize),
    /// A variable of the room's name holds a character that it may not hold.
    #[error("{0} contains a character that is not permitted in a room's name: {1:?}")]
    BadCharacter(String, char),
    /// The name belongs to another family of rooms.
    #[error("the name belongs to another family of rooms")]
    Taken,
}

/// A value of `chars` that permits every character except control characters. Spaces are permitted, too.
const ANY: &str = "*";

impl RoomTemplate {
    /// Compiles a template. `chars` lists the characters that its variables may hold besides letters, digits and
    /// [`ALPHABET`].
    ///
    /// # Errors
    /// Returns the problem, described for the author of the contract.
    pub fn compile(text: &str, chars: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a room's name must not be empty: write for example `job:{jobId}`".to_owned());
        }
        if text.starts_with('$') {
            return Err("names that start with `$` are reserved: choose another first character".to_owned());
        }
        if let Some(bad) = text.chars().chain(chars.chars()).find(|c| c.is_control()) {
            return Err(format!("{bad:?} is a control character: leave it out"));
        }
        let mut template = Self {
            text: text.to_owned(),
            prefix: String::new(),
            variables: Vec::new(),
            chars: chars.to_owned(),
            shape: String::new(),
        };
        for piece in split(text)? {
            template.add(piece)?;
        }
        template.check_unambiguous()?;
        if template.literal_bytes() > MAX_NAME_BYTES {
            return Err(format!("a room's name is at most {MAX_NAME_BYTES} bytes long"));
        }
        template.shape = template.join(template.variables.iter().map(|_| "{}"));
        Ok(template)
    }

    fn add(&mut self, piece: Piece) -> Result<(), String> {
        match piece {
            Piece::Text(text) if text.contains('*') => {
                return Err("a room's name has no wildcards: write a variable, such as `{jobId}`".to_owned());
            }
            Piece::Text(text) => match self.variables.last_mut() {
                Some(variable) => variable.after = text,
                None => self.prefix = text,
            },
            Piece::Name(name) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if name.is_empty() || !name.chars().all(plain) {
                    return Err(format!(
                        "`{{{name}}}` is not a variable: write a name of letters, digits and `_`, and say with `with` where its value is"
                    ));
                }
                if self.variables.iter().any(|variable| variable.name == name) {
                    return Err(format!(
                        "`{{{name}}}` occurs twice in `{}`: give each variable its own name",
                        self.text
                    ));
                }
                let path = Path::payload_member(&name);
                self.variables.push(NameVariable { name, path, after: String::new() });
            }
        }
        Ok(())
    }

    fn check_unambiguous(&self) -> Result<(), String> {
        for variable in self.variables.iter().rev().skip(1) {
            if variable.after.chars().next().is_none_or(|c| self.permits(c, false)) {
                return Err(format!(
                    "two sets of values could make the same name: after `{{{}}}` write a character that a variable cannot hold, such as `:`",
                    variable.name
                ));
            }
        }
        Ok(())
    }

    /// Makes a room's name, and returns it with the values of its variables. A value comes from the variable's paths in
    /// `with`, else from the payload's member with the variable's name.
    ///
    /// # Errors
    /// Returns an error if a variable is missing or not permitted.
    pub fn render(
        &self,
        with: &[(String, Vec<Path>)],
        scope: &Scope<'_>,
    ) -> Result<(String, Variables), RoomNameError> {
        let mut vars = Vec::with_capacity(self.variables.len());
        for (at, variable) in self.variables.iter().enumerate() {
            let paths = with.iter().find(|(name, _)| *name == variable.name).map(|(_, paths)| paths.as_slice());
            let paths = paths.unwrap_or(std::slice::from_ref(&variable.path));
            let value = self.value(paths, scope, self.is_last(at))?;
            vars.push((variable.name.clone(), value));
        }
        let name = self.join(vars.iter().map(|(_, value)| value.as_str()));
        if name.len() > MAX_NAME_BYTES {
            return Err(RoomNameError::TooLong("the room's name".to_owned(), MAX_NAME_BYTES));
        }
        if name.starts_with('$') {
            return Err(RoomNameError::BadCharacter("the start of the room's name".to_owned(), '$'));
        }
        Ok((name, vars))
    }

    fn value(&self, paths: &[Path], scope: &Scope<'_>, is_last: bool) -> Result<String, RoomNameError> {
        let found = paths.iter().find_map(|path| {
            let value = path.find_in(scope).filter(|value| !value.is_null() && value.as_str() != Some(""))?;
            Some((path, value))
        });
        let Some((path, value)) = found else {
            return Err(RoomNameError::Missing(paths.first().map_or_else(String::new, |path| path.text().to_owned())));
        };
        let key_path = || path.text().to_owned();
        let text = match value.as_ref() {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) if !number.is_f64() => number.to_string(),
            value => match path.sent(scope, value).map(RawValue::get) {
                Some(digits) if is_whole(digits) => digits.to_owned(),
                _ => return Err(RoomNameError::NotScalar(key_path())),
            },
        };
        if text.len() > MAX_VARIABLE_BYTES {
            return Err(RoomNameError::TooLong(key_path(), MAX_VARIABLE_BYTES));
        }
        match text.chars().find(|c| !self.permits(*c, is_last)) {
            Some(bad) => Err(RoomNameError::BadCharacter(key_path(), bad)),
            None => Ok(text),
        }
    }

    /// Makes the room's name from these values, if all variables are given. Use this for names that are derived from a
    /// room's name, such as Redis keys. The values are not checked.
    pub fn fill(&self, vars: &[(String, String)]) -> Option<String> {
        let values: Option<Vec<&str>> = self
            .variables
            .iter()
            .map(|variable| vars.iter().find(|(name, _)| *name == variable.name).map(|(_, value)| value.as_str()))
            .collect();
        Some(self.join(values?.into_iter()))
    }

    fn join<'v>(&self, values: impl Iterator<Item = &'v str>) -> String {
        let mut name = self.prefix.clone();
        for (variable, value) in self.variables.iter().zip(values) {
            name.push_str(value);
            name.push_str(&variable.after);
        }
        name
    }

    /// Returns the values of the variables, if this template can have made the name.
    pub fn matches(&self, name: &str) -> Option<Variables> {
        if name.len() > MAX_NAME_BYTES || name.starts_with('$') {
            return None;
        }
        let mut rest = name.strip_prefix(self.prefix.as_str())?;
        let mut vars = Vec::with_capacity(self.variables.len());
        for (at, variable) in self.variables.iter().enumerate() {
            let value;
            if self.is_last(at) {
                value = rest.strip_suffix(variable.after.as_str())?;
                rest = "";
            } else {
                // A variable cannot hold the first character of the text after it, so the first match is the only one.
                (value, rest) = rest.split_once(variable.after.as_str())?;
            }
            let fits = |c| self.permits(c, self.is_last(at));
            if value.is_empty() || value.len() > MAX_VARIABLE_BYTES || !value.chars().all(fits) {
                return None;
            }
            vars.push((variable.name.clone(), value.to_owned()));
        }
        rest.is_empty().then_some(vars)
    }

    fn is_last(&self, at: usize) -> bool {
        at + 1 == self.variables.len()
    }

    /// Whether a variable may hold the character. The last variable may hold more than the others.
    fn permits(&self, c: char, is_last: bool) -> bool {
        c.is_alphanumeric()
            || ALPHABET.contains(c)
            || (is_last && is_visible(c))
            || if self.chars == ANY { !c.is_control() } else { self.chars.contains(c) }
    }

    /// Returns the template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of the variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| variable.name.as_str())
    }

    /// The template without the names of its variables. Two templates with the same shape make the same names.
    pub fn shape(&self) -> &str {
        &self.shape
    }

    /// The characters that the template's variables may hold besides letters, digits and [`ALPHABET`].
    pub fn chars(&self) -> &str {
        &self.chars
    }

    /// The length of the template's fixed text, in bytes.
    pub fn literal_bytes(&self) -> usize {
        self.prefix.len() + self.variables.iter().map(|variable| variable.after.len()).sum::<usize>()
    }

    /// Whether this template makes every name that the template `other` makes, and further names.
    pub fn is_more_general_than(&self, other: &Self) -> bool {
        // Sample values that are unlikely to occur in a contract's fixed text.
        let holds = |a: &Self, b: &Self| {
            ["q7Zk0", "0~Wq-Xv"].iter().all(|value| a.matches(&b.join(b.variables.iter().map(|_| *value))).is_some())
        };
        holds(self, other) && !holds(other, self)
    }
}

/// Whether a reader can see the character. Spaces, control characters and formatting characters are not visible.
fn is_visible(c: char) -> bool {
    let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !c.is_whitespace() && !is_format
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::user::User;

    fn template(text: &str) -> RoomTemplate {
        RoomTemplate::compile(text, "").unwrap()
    }

    fn render(template: &RoomTemplate, payload: &Value) -> Result<String, RoomNameError> {
        let user = User::anonymous();
        template.render(&[], &Scope::new(&user, payload, SystemTime::now())).map(|(name, _)| name)
    }

    #[test]
    fn plain_values_make_a_name() {
        for (value, name) in [
            (json!("j-1"), "job:j-1"),
            (json!(42), "job:42"),
            (json!(-1), "job:-1"),
            (json!(true), "job:true"),
            (json!("é日"), "job:é日"),
        ] {
            assert_eq!(render(&template("job:{jobId}"), &json!({ "jobId": value })).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_missing_is_an_error_and_never_empty_text() {
        for payload in
            [json!(null), json!({}), json!({ "jobId": null }), json!({ "jobId": "" }), json!("x"), json!([1])]
        {
            assert_eq!(render(&template("job:{jobId}"), &payload), Err(RoomNameError::Missing("payload.jobId".into())));
        }
    }

    #[test]
    fn only_plain_values_are_taken() {
        for value in [json!([]), json!({ "a": 1 }), json!(1.5), json!(-0.0), json!(7.0)] {
            let error = render(&template("job:{jobId}"), &json!({ "jobId": value })).unwrap_err();
            assert_eq!(error, RoomNameError::NotScalar("payload.jobId".into()));
        }
    }

    #[test]
    fn whole_number_of_any_length_makes_one_name_and_its_other_spellings_make_none() {
        let user = User::anonymous();
        let name = |number: &str| {
            let sent = RawValue::from_string(format!(r#"{{"jobId":{number}}}"#)).unwrap();
            let payload = crate::json::read(sent.get()).unwrap();
            let scope = Scope { text: Some(&sent), ..Scope::new(&user, &payload, SystemTime::now()) };
            template("job:{jobId}").render(&[], &scope).map(|(name, _)| name)
        };
        for number in ["0", "7", "9007199254740993", "18446744073709551616", "-123456789012345678901234567890"] {
            assert_eq!(name(number), Ok(format!("job:{number}")));
        }
        for number in ["-0", "7.0", "7e0", "1e3", "1E3", "1.50", "1.5e1", "123456789012345678901234567890.0"] {
            assert_eq!(name(number), Err(RoomNameError::NotScalar("payload.jobId".into())), "{number}");
        }
        assert_eq!(name(&"9".repeat(256)), Err(RoomNameError::TooLong("payload.jobId".into(), MAX_VARIABLE_BYTES)));
    }

    #[test]
    fn value_cannot_reach_another_room() {
        let user_jobs = template("user:{userId}:jobs");
        for value in ["a b", "a\nb", "a\0b", "a\u{a0}b", "\u{202e}x", "a\u{200b}"] {
            let error = render(&user_jobs, &json!({ "userId": value })).unwrap_err();
            assert!(matches!(error, RoomNameError::BadCharacter(..)), "{value}: {error}");
        }
        // Checks that a name can be parsed back to exactly the value that made it.
        for value in ["x:jobs", ":jobs", "x:jobs:jobs", "a/b", "*", "a,b", "{x}", "$x"] {
            let name = render(&user_jobs, &json!({ "userId": value })).unwrap();
            assert_eq!(user_jobs.matches(&name), Some(vec![("userId".to_owned(), value.to_owned())]));
        }
        let file = template("{tenant}:{path}");
        for value in ["a:b", "a/b", "a|b"] {
            let error = render(&file, &json!({ "tenant": value, "path": "p" })).unwrap_err();
            assert!(matches!(error, RoomNameError::BadCharacter(..)), "{value}: {error}");
        }
        assert_eq!(render(&file, &json!({ "tenant": "a", "path": "b:c" })).as_deref(), Ok("a:b:c"));
    }

    #[test]
    fn ids_of_identity_providers_make_a_name() {
        for id in [
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "google-oauth2|103547991597142817347",
            "waad|B3PtG9rkEYfBUQ4T-hEjMGmHn7-5ZbPQPiLWY1rjT0w",
            "samlp|okta|jane.doe@example.com",
            "jane.doe+test@example.com",
            "urn:uuid:7d9f1c5e-4b7a-4a3e-9d53-1f2b3c4d5e6f",
            "eu-west-1:7d9f1c5e-4b7a-4a3e-9d53-1f2b3c4d5e6f",
            "https://idp.example.com/users/7?tenant=a&b#me",
            "spiffe://example.org/ns/default/sa/web",
            "system:serviceaccount:default:web",
            "EXAMPLE\\jdoe",
            "o'neil%40example.com",
            "uid=jdoe,ou=people,dc=example",
        ] {
            let name = render(&template("user:{userId}:jobs"), &json!({ "userId": id })).unwrap();
            assert_eq!(name, format!("user:{id}:jobs"));
        }
    }

    #[test]
    fn own_names_of_the_node_cannot_be_made() {
        assert!(RoomTemplate::compile("$sid:{x}", "").is_err());
        let any = RoomTemplate::compile("{room}", "$:").unwrap();
        assert!(matches!(render(&any, &json!({ "room": "$sid:abc" })), Err(RoomNameError::BadCharacter(_, '$'))));
        assert_eq!(any.matches("$sid:abc"), None);
    }

    #[test]
    fn lengths_are_bounded() {
        let job = template("{jobId}");
        assert!(render(&job, &json!({ "jobId": "x".repeat(MAX_VARIABLE_BYTES) })).is_ok());
        let error = render(&job, &json!({ "jobId": "x".repeat(MAX_VARIABLE_BYTES + 1) })).unwrap_err();
        assert_eq!(error, RoomNameError::TooLong("payload.jobId".into(), MAX_VARIABLE_BYTES));
        let three = template("{a}:{b}:{c}");
        let long = json!({ "a": "x".repeat(100), "b": "x".repeat(100), "c": "x".repeat(100) });
        assert!(matches!(render(&three, &long), Err(RoomNameError::TooLong(_, MAX_NAME_BYTES))));
    }

    #[test]
    fn variables_come_from_where_the_contract_says() {
        let user = User::named("u1");
        let payload = json!({ "userId": "mallory" });
        let scope = Scope::new(&user, &payload, SystemTime::now());
        let paths =
            |paths: &[&str]| vec![("userId".to_owned(), paths.iter().map(|p| Path::parse(p).unwrap()).collect())];
        let user_jobs = template("user:{userId}:jobs");
        assert_eq!(user_jobs.render(&paths(&["user.id"]), &scope).unwrap().0, "user:u1:jobs");
        let first = user_jobs.render(&paths(&["params.userId", "user.id"]), &scope).unwrap();
        assert_eq!(first, ("user:u1:jobs".to_owned(), vec![("userId".to_owned(), "u1".to_owned())]));
        let missing = user_jobs.render(&paths(&["params.userId"]), &scope).unwrap_err();
        assert_eq!(missing, RoomNameError::Missing("params.userId".into()));
    }

    #[test]
    fn ambiguous_template_is_refused() {
        for text in ["{a}{b}", "x-{a}-{b}", "{a}.{b}:{c}", "{a}:{a}", "", "{a b}", "{}", "{a", "a\nb"] {
            assert!(RoomTemplate::compile(text, "").is_err(), "{text}");
        }
        assert!(RoomTemplate::compile("{a}:{b}", ":").is_err());
        assert!(RoomTemplate::compile("x-{a}:{b}-y", "").is_ok());
    }

    #[test]
    fn template_that_makes_more_names_is_the_more_general() {
        let room = RoomTemplate::compile("{room}", ":/# ").unwrap();
        for specific in ["job:{jobId}", "user:{userId}:jobs", "admin:jobs", "generation-{id}"] {
            assert!(room.is_more_general_than(&template(specific)), "{specific}");
            assert!(!template(specific).is_more_general_than(&room), "{specific}");
        }
        assert!(!template("a-{x}").is_more_general_than(&template("{x}-a")));
        assert!(!template("a-{x}").is_more_general_than(&template("a-{y}")));
    }

    proptest! {
        #[test]
        fn anything_is_answered_without_a_panic(text in ".{0,40}", chars in ".{0,4}", name in ".{0,300}", value in ".{0,200}") {
            if let Ok(template) = RoomTemplate::compile(&text, &chars) {
                let _ = template.matches(&name);
                let payload = Value::Object(template.variables().map(|v| (v.to_owned(), json!(value))).collect());
                let _ = render(&template, &payload);
            }
        }

        #[test]
        fn name_leads_back_to_its_variables(
            text in "[a-z:]{0,6}(\\{a\\}:[a-z]{0,3})?(\\{b\\}[:/][a-z-]{0,3})?\\{c\\}[a-z:-]{0,5}",
            values in proptest::array::uniform3("([\\PC]|[a-z:/-]){0,12}"),
        ) {
            let template = RoomTemplate::compile(&text, "").unwrap();
            let payload = json!({ "a": values[0], "b": values[1], "c": values[2] });
            let user = User::anonymous();
            let rendered = template.render(&[], &Scope::new(&user, &payload, SystemTime::now()));
            if let Ok((name, vars)) = rendered {
                prop_assert_eq!(template.matches(&name), Some(vars.clone()));
                prop_assert_eq!(template.fill(&vars), Some(name));
            }
        }

        #[test]
        fn fit_values_always_make_a_name(a in "[a-zA-Z0-9_.@+=~-]{1,40}", b in "[a-zA-Z0-9_.@+=~-]{1,40}") {
            let template = template("x:{a}:{b}");
            let name = render(&template, &json!({ "a": a, "b": b })).unwrap();
            prop_assert_eq!(name, format!("x:{a}:{b}"));
        }
    }
}
