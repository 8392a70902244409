//! Suggestions in messages about mistakes: the word that was probably meant, and the words that there are.

use strsim::osa_distance;

/// The known word that is most similar to a misspelt one, if any is similar enough. Upper and lower case are equal.
pub fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let bound = (word.chars().count() / 3).max(1);
    let lower = word.to_lowercase();
    let others = known.into_iter().filter(|candidate| *candidate != word);
    let scored = others.map(|candidate| (osa_distance(&lower, &candidate.to_lowercase()), candidate));
    scored.filter(|(distance, _)| *distance <= bound).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// The first known word that contains the given one or is contained in it, as `ping_timeout` contains `timeout`.
pub fn longer_or_shorter<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let lower = word.to_lowercase();
    let is_part = |other: &str| lower.len() > 3 && (other.contains(&lower) || lower.contains(other));
    known.into_iter().find(|candidate| is_part(&candidate.to_lowercase()))
}

/// The words as a phrase: "a, b or c".
pub fn one_of<'w>(known: impl IntoIterator<Item = &'w str>) -> String {
    joined(known.into_iter().map(str::to_owned), "or")
}

/// The words as a phrase, each in backticks: "`a`, `b` or `c`". Without words: "nothing".
pub fn one_of_quoted<'w>(known: impl IntoIterator<Item = &'w str>) -> String {
    let words = joined(known.into_iter().map(|word| format!("`{word}`")), "or");
    if words.is_empty() { "nothing".to_owned() } else { words }
}

/// The words as a phrase: "a, b and c".
pub fn list<'w>(known: impl IntoIterator<Item = &'w str>) -> String {
    joined(known.into_iter().map(str::to_owned), "and")
}

fn joined(words: impl Iterator<Item = String>, last: &str) -> String {
    let words: Vec<String> = words.collect();
    match words.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_miss_is_found_and_a_far_one_is_not() {
        let known = ["namespace", "name", "summary"];
        assert_eq!(nearest("namepsace", known), Some("namespace"));
        assert_eq!(nearest("Summary", known), Some("summary"));
        assert_eq!(nearest("nam", known), Some("name"));
        assert_eq!(nearest("color", known), None);
        let known = ["listen", "ping_interval", "ping_timeout", "queue"];
        assert_eq!(nearest("ping_intervall", known), Some("ping_interval"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("timeout", known), None);
        assert_eq!(longer_or_shorter("timeout", known), Some("ping_timeout"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn words_read_as_a_sentence() {
        assert_eq!(one_of(["a", "b", "c"]), "a, b or c");
        assert_eq!(one_of_quoted(["a", "b"]), "`a` or `b`");
        assert_eq!(one_of_quoted([]), "nothing");
        assert_eq!(list(["a"]), "a");
    }
}
