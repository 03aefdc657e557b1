//! The nearest right word.

/// Longer words are not compared.
const LONGEST_WORD: usize = 64;
/// More words are neither compared nor listed.
const MOST_WORDS: usize = 1000;
/// So many are listed when none is near.
const MOST_LISTED: usize = 20;

/// The word that `wrong` was meant to be, if one is near enough: at most a third of its characters (and at least one)
/// mistyped, left out, added or swapped with their neighbour; or the same but for case, `-` and `_`.
pub(crate) fn nearest<'a>(wrong: &str, right: &[&'a str]) -> Option<&'a str> {
    if wrong.len() > LONGEST_WORD {
        return None;
    }
    let wrong = plain(wrong);
    let most = (wrong.chars().count() / 3).max(1);
    let near = right.iter().copied().take(MOST_WORDS).filter(|word| word.len() <= LONGEST_WORD);
    let (distance, word) =
        near.map(|word| (strsim::osa_distance(&wrong, &plain(word)), word)).min_by_key(|(distance, _)| *distance)?;
    // A word of which every character was changed is another word.
    (distance <= most && distance < wrong.chars().count().max(1)).then_some(word)
}

fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

/// "did you mean `chunk_size`?", or else the words there are.
pub fn did_you_mean(wrong: &str, what: &str, right: &[&str]) -> String {
    match nearest(wrong, right) {
        Some(word) => format!("did you mean `{word}`?"),
        None if right.is_empty() => format!("there are no {what}"),
        None => format!("the {what} are {}", list(right)),
    }
}

/// "`a`, `b` and `c`".
pub(crate) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().take(MOST_LISTED).map(|word| format!("`{word}`")).collect();
    match (quoted.split_last(), words.len().saturating_sub(MOST_LISTED)) {
        (None, _) => String::new(),
        (Some((only, [])), 0) => only.clone(),
        (Some((last, before)), 0) => format!("{} and {last}", before.join(", ")),
        (Some(_), more) => format!("{} and {more} more", quoted.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let words = ["chunk_size", "chunk_overlap", "lr", "seed"];
        for (wrong, right) in [
            ("chunksize", Some("chunk_size")),
            ("chunk-size", Some("chunk_size")),
            ("Chunk_Overlap", Some("chunk_overlap")),
            ("sede", Some("seed")),
            ("l", None),
            ("rl", Some("lr")),
            ("margin", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, &words), right, "{wrong}");
        }
        insta::assert_snapshot!(did_you_mean("margin", "parameters", &words), @"the parameters are `chunk_size`, `chunk_overlap`, `lr` and `seed`");
    }
}
