//! Near misses.

/// The known word that is nearest to a misspelt one, if any is near.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let bound = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    let scored = known.into_iter().map(|candidate| {
        // What is left of the other, such as `timeout` of `ping_timeout`, is near too.
        let part = word.len() > 3 && (candidate.contains(&word) || word.contains(candidate));
        (if part { bound } else { distance(&word, candidate) }, candidate)
    });
    scored.filter(|(distance, _)| *distance <= bound).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// "a, b or c"
pub(super) fn one_of<'w>(known: impl IntoIterator<Item = &'w str>) -> String {
    joined(known, "or")
}

/// "a, b and c"
pub(super) fn list<'w>(known: impl IntoIterator<Item = &'w str>) -> String {
    joined(known, "and")
}

fn joined<'w>(known: impl IntoIterator<Item = &'w str>, last: &str) -> String {
    let words: Vec<&str> = known.into_iter().collect();
    match words.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let cost = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_miss_is_found_and_a_far_one_is_not() {
        let known = ["listen", "ping_interval", "ping_timeout", "queue"];
        assert_eq!(nearest("ping_intervall", known), Some("ping_interval"));
        assert_eq!(nearest("Listen", known), Some("listen"));
        assert_eq!(nearest("timeout", known), Some("ping_timeout"));
        assert_eq!(nearest("colour", known), None);
    }

    #[test]
    fn words_read_as_a_sentence() {
        assert_eq!(one_of(["a", "b", "c"]), "a, b or c");
        assert_eq!(list(["a"]), "a");
    }
}
