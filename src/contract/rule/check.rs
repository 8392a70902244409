//! Checks at compile time which names a rule uses, and rewrites calls of roomcast's own functions. CEL can then
//! evaluate them without functions that would need to know the scope.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::operators::{INDEX, OPT_INDEX, OPT_SELECT};
use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};

use super::facts;
use crate::contract::scope::MembersNeed;
use crate::suggest::{nearest, one_of_quoted};

/// The data that a rule uses.
#[derive(Debug, Default)]
pub(super) struct RuleInputs {
    /// Whether the rule asks who owns the room.
    pub owner: bool,
    /// How much of the members of the room the rule needs.
    pub members: MembersNeed,
    /// Top-level variables, such as `payload`.
    pub variables: BTreeSet<String>,
    /// The names of the variables that the rule reads as `vars.<name>`.
    pub room_variables: BTreeSet<String>,
    /// The names of the members that the rule reads as `metadata.<name>`.
    pub metadata: BTreeSet<String>,
}

/// Maximum nesting depth of an expression. Bounded because the evaluation recurses.
pub(super) const MAX_DEPTH: usize = 48;

/// The variables that rules can use. If a variable has a fixed set of members, they are listed with it.
const VARIABLES: &[(&str, &[&str])] = &[
    ("user", &["id", "roles", "claims", "anonymous", "authenticated"]),
    ("payload", &[]),
    ("params", &[]),
    ("socket", &["id", "connectedAt", "rooms"]),
    ("metadata", &[]),
    ("now", &[]),
    ("room", &[]),
    ("vars", &[]),
    ("members", &[]),
    ("count", &[]),
];

/// The variable with the socket's metadata. A rule uses it only with the name of a member, so that the members on which
/// a rule depends are known.
const METADATA: &str = "metadata";

/// The functions that roomcast adds to CEL, with an example of their call.
const OWN_FUNCTIONS: &[(&str, &str)] = &[
    ("owner", "owner(room)"),
    ("owned", "owned(room)"),
    ("permitted", "permitted(room, patterns)"),
    ("capability", "capability(room, token)"),
];

/// CEL's functions. Macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`) are expanded before a rule is
/// checked.
const CEL_FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "type",
    "dyn",
    "duration",
    "timestamp",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "hasValue",
    "value",
    "or",
    "orValue",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "of",
    "none",
    "ofNonZeroValue",
];

/// CEL's type names, as in `type(x) == string`.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional"];

/// Checks an expression, and rewrites the calls of roomcast's own functions.
pub(super) fn check(expression: &mut IdedExpr) -> Result<RuleInputs, String> {
    match &expression.expr {
        Expr::Unspecified => return Err("the rule is empty".to_owned()),
        Expr::Literal(literal) if !matches!(literal, LiteralValue::Boolean(_)) => {
            return Err("the result of a rule is true or false: write a comparison".to_owned());
        }
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
            return Err("the result of a rule is true or false: write a comparison".to_owned());
        }
        _ => {}
    }
    let mut checker = Checker { uses: RuleInputs::default(), bound: Vec::new(), depth: 0, selecting: false };
    checker.visit(expression)?;
    Ok(checker.uses)
}

struct Checker {
    uses: RuleInputs,
    /// The variables that enclosing comprehensions define.
    bound: Vec<String>,
    /// The current nesting depth.
    depth: usize,
    /// Whether the variable `metadata` that is visited next is followed by the name of a member.
    selecting: bool,
}

impl Checker {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("a rule is at most {MAX_DEPTH} steps deep: simplify the rule"));
        }
        self.visit_inner(node)?;
        self.depth -= 1;
        Ok(())
    }

    fn visit_inner(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        match &mut node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                let operand = match &select.operand.expr {
                    Expr::Ident(name) => Some(name.clone()),
                    _ => None,
                };
                if let Some(name) = &operand {
                    self.member(name, &select.field)?;
                }
                self.selecting = operand.as_deref() == Some(METADATA);
                self.visit(&mut select.operand)?;
                if select.test {
                    // `has(a.b.c)` is also false when `a.b` is missing.
                    make_optional(&mut select.operand);
                }
                Ok(())
            }
            Expr::Call(call) => {
                let rewritten = self.call(call)?;
                if let Some(expr) = rewritten {
                    node.expr = expr;
                }
                Ok(())
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| self.entry(&mut entry.expr)),
            Expr::Struct(_) => Err("rules cannot make structures: write a map, `{'a': 1}`".to_owned()),
            Expr::Comprehension(_) => self.comprehension(node),
        }
    }

    fn entry(&mut self, entry: &mut EntryExpr) -> Result<(), String> {
        match entry {
            EntryExpr::StructField(field) => self.visit(&mut field.value),
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key)?;
                self.visit(&mut entry.value)
            }
        }
    }

    fn comprehension(&mut self, node: &mut IdedExpr) -> Result<(), String> {
        let Expr::Comprehension(comprehension) = &mut node.expr else {
            return Ok(());
        };
        self.visit(&mut comprehension.iter_range)?;
        self.visit(&mut comprehension.accu_init)?;
        let outer = self.bound.len();
        self.bound.push(comprehension.iter_var.clone());
        self.bound.extend(comprehension.iter_var2.clone());
        self.bound.push(comprehension.accu_var.clone());
        self.visit(&mut comprehension.loop_cond)?;
        self.visit(&mut comprehension.loop_step)?;
        self.visit(&mut comprehension.result)?;
        self.bound.truncate(outer);
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        if name.starts_with('@') || TYPES.contains(&name) || self.is_bound(name) {
            return Ok(());
        }
        let known = || VARIABLES.iter().map(|(name, _)| *name);
        if known().any(|known| known == name) {
            let selecting = std::mem::take(&mut self.selecting);
            if name == METADATA && !selecting {
                return Err("the rule must name the member of `metadata`: write `metadata.<member>`".to_owned());
            }
            self.uses.variables.insert(name.to_owned());
            self.uses.members = self.uses.members.max(match name {
                "members" => MembersNeed::List,
                "count" => MembersNeed::Count,
                _ => MembersNeed::None,
            });
            return Ok(());
        }
        Err(match nearest(name, known()) {
            Some(near) => format!("there is no variable `{name}`: did you mean `{near}`?"),
            None => format!("there is no variable `{name}`: use {}", one_of_quoted(known())),
        })
    }

    fn member(&mut self, variable: &str, member: &str) -> Result<(), String> {
        if self.is_bound(variable) {
            return Ok(());
        }
        match variable {
            "vars" => drop(self.uses.room_variables.insert(member.to_owned())),
            "metadata" => drop(self.uses.metadata.insert(member.to_owned())),
            _ => {}
        }
        let members = VARIABLES.iter().find(|(name, _)| *name == variable).map_or(&[][..], |(_, members)| members);
        if members.is_empty() || members.contains(&member) {
            return Ok(());
        }
        Err(format!("`{variable}` has no member `{member}`: use {}", one_of_quoted(members.iter().copied())))
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound == name)
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<Option<Expr>, String> {
        if let Some(target) = &mut call.target {
            self.visit(target)?;
        }
        call.args.iter_mut().try_for_each(|arg| self.visit(arg))?;
        let name = call.func_name.as_str();
        let operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if operator || (CEL_FUNCTIONS.contains(&name)) {
            return Ok(None);
        }
        let own = OWN_FUNCTIONS.iter().find(|(own, _)| *own == name && call.target.is_none());
        match own {
            Some((_, usage)) => self.own_call(call, usage).map(Some),
            None => Err(unknown_function(name)),
        }
    }

    fn own_call(&mut self, call: &mut CallExpr, usage: &str) -> Result<Expr, String> {
        let wrong = || format!("write `{usage}`");
        if call.func_name == "owner" || call.func_name == "owned" {
            let [argument] = call.args.as_slice() else {
                return Err(wrong());
            };
            if argument.expr != Expr::Ident("room".to_owned()) {
                return Err(format!(
                    "`{0}` knows only the room that the rule is about: write `{0}(room)`. To let a user in by a claim, \
                     compare the claim with a variable of the room's name (`vars.jobId == user.claims.job`), or write \
                     `permitted(room, user.claims.rooms)`",
                    call.func_name
                ));
            }
            self.uses.owner = true;
            return Ok(Expr::Ident(if call.func_name == "owner" { facts::OWNER } else { facts::OWNED }.to_owned()));
        }
        let args = std::mem::take(&mut call.args);
        let Ok([room, mut second]) = <[IdedExpr; 2]>::try_from(args) else {
            return Err(wrong());
        };
        make_optional(&mut second);
        let table = if call.func_name == "permitted" { facts::PERMITTED } else { facts::CAPABILITY };
        Ok(index(index(Expr::Ident(table.to_owned()), room), second))
    }
}

fn unknown_function(name: &str) -> String {
    let known = || OWN_FUNCTIONS.iter().map(|(own, _)| *own).chain(CEL_FUNCTIONS.iter().copied());
    match nearest(name, known()) {
        Some(near) => format!("there is no function `{name}`: did you mean `{near}`?"),
        None => format!(
            "there is no function `{name}`: use those of CEL, or {}",
            one_of_quoted(OWN_FUNCTIONS.iter().map(|(_, usage)| *usage))
        ),
    }
}

/// Builds the expression `table[key]`.
fn index(table: Expr, key: IdedExpr) -> Expr {
    let table = IdedExpr { id: key.id, expr: table };
    Expr::Call(CallExpr { func_name: INDEX.to_owned(), target: None, args: vec![table, key] })
}

/// Makes each selection optional, so that a missing member gives an empty optional instead of an error.
fn make_optional(node: &mut IdedExpr) {
    match &mut node.expr {
        Expr::Select(select) if !select.test => {
            make_optional(&mut select.operand);
            let field = LiteralValue::String(std::mem::take(&mut select.field).into());
            let field = IdedExpr { id: node.id, expr: Expr::Literal(field) };
            let operand = std::mem::take(&mut *select.operand);
            node.expr =
                Expr::Call(CallExpr { func_name: OPT_SELECT.to_owned(), target: None, args: vec![operand, field] });
        }
        Expr::Call(call) if call.func_name == INDEX && call.args.len() == 2 => {
            call.func_name = OPT_INDEX.to_owned();
            make_optional(&mut call.args[0]);
        }
        _ => {}
    }
}
