//! Paths into the merged values.

use figment::value::{Tag, Value};

/// Returns the value at a path.
pub(super) fn get<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, members) => members.get(segment),
        Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Returns the value at a path, to be changed.
pub(super) fn get_mut<'a>(root: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, members) => members.get_mut(segment),
        Value::Array(_, items) => items.get_mut(segment.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Removes a value, so that its default is used. Of a list, everything is taken: the places of the others must not
/// move.
pub(super) fn remove(root: &mut Value, path: &[String]) -> bool {
    let Some((last, parent)) = path.split_last() else { return false };
    match get_mut(root, parent) {
        Some(Value::Dict(_, members)) => members.remove(last).is_some(),
        Some(Value::Array(..)) => remove(root, parent),
        _ => false,
    }
}

/// Puts a value into the table at its path, which must exist.
pub(super) fn set(root: &mut Value, path: &[String], value: Value) {
    let Some((last, parent)) = path.split_last() else { return };
    if let Some(Value::Dict(_, members)) = get_mut(root, parent) {
        members.insert(last.clone(), value);
    }
}

/// Wraps a value in the tables of its path, and puts entries of lists into copies of the existing lists.
pub(super) fn nest(root: &Value, path: &[String], value: Value) -> Result<Value, String> {
    let Some((last, parent)) = path.split_last() else { return Ok(value) };
    let Ok(index) = last.parse::<usize>() else {
        let members = [(last.clone(), value)].into_iter().collect();
        return nest(root, parent, Value::Dict(Tag::Default, members));
    };
    let mut items = match get(root, parent) {
        Some(Value::Array(_, items)) => items.clone(),
        None => Vec::new(),
        Some(_) => return Err(format!("`{}` is not a list", parent.join("."))),
    };
    if index > items.len() {
        return Err(format!("`{}` has {} entries: the next is {}", parent.join("."), items.len(), items.len()));
    }
    match items.get_mut(index) {
        Some(item) => overlay(item, value),
        None => items.push(value),
    }
    nest(root, parent, Value::Array(Tag::Default, items))
}

/// Puts the members of one table over the members of another table.
fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Dict(_, below), Value::Dict(_, above)) => {
            for (name, value) in above {
                match below.get_mut(&name) {
                    Some(there) => overlay(there, value),
                    None => _ = below.insert(name, value),
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// Returns a value as the text of a mistake shows it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, truth) => truth.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(whole), ..) => whole.to_string(),
            (_, Some(whole), _) => whole.to_string(),
            (.., fraction) => fraction.unwrap_or(f64::NAN).to_string(),
        },
        Value::Empty(..) => "nothing".into(),
        Value::Dict(..) => "{…}".into(),
        Value::Array(..) => "[…]".into(),
    }
}
