/// Longest name for which a near one is searched, in characters: the search takes time with its square.
const NAME_CHARS_MAX: usize = 40;

/// The known name nearest to a misspelt one, if one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    if length > NAME_CHARS_MAX {
        return None;
    }
    let allowed = (length / 3).max(1);
    known
        .into_iter()
        .map(|known| (distance(&name, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= allowed && *distance < known.chars().count())
        .min()
        .map(|(_, known)| known)
}

/// `did you mean …?`, or else the names that there are.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    /// More names than this are not listed.
    const LISTED_MAX: usize = 12;
    if let Some(near) = nearest(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let names: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).take(LISTED_MAX + 1).collect();
    match names.split_at_checked(LISTED_MAX) {
        Some((listed, [_, ..])) => format!("there are {}, …", listed.join(", ")),
        _ if names.is_empty() => "there are none".to_owned(),
        _ if names.len() == 1 => format!("there is only {}", names.join("")),
        _ => format!("there are {}", names.join(", ")),
    }
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(NAME_CHARS_MAX * 2).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, from) in a.chars().enumerate() {
        let mut now = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let replaced = last[column] + usize::from(from != *to);
            let mut best = replaced.min(last[column + 1] + 1).min(now[column] + 1);
            if column > 0 && previous == Some(*to) && b[column - 1] == from {
                best = best.min(before[column - 1] + 1);
            }
            now.push(best);
        }
        before = std::mem::replace(&mut last, now);
        previous = Some(from);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["replicas", "resources", "restart"];
        assert_eq!(nearest("replica", known), Some("replicas"));
        assert_eq!(nearest("Replicsa", known), Some("replicas"));
        assert_eq!(nearest("get", ["GET", "HEAD"]), Some("GET"));
        assert_eq!(nearest("restrat", known), Some("restart"));
        assert_eq!(nearest("volume", known), None);
        assert_eq!(nearest("x", ["a", "b"]), None);
        assert_eq!(nearest(&"r".repeat(10_000), known), None);
        assert_eq!(hint("zz", ["a1", "b1"]), "there are `a1`, `b1`");
    }
}
