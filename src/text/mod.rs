//! Reading documents, splitting them, and finding words and phrases in them.

pub mod keyword;
pub mod phrase;
pub mod quiet;
pub mod read;
pub mod split;
pub mod table;

/// The first three of `names`, for a message, and how many more there are.
pub fn first_few(names: &[String]) -> String {
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether Python's `str.isspace` and `re`'s `\s` hold for `c`: Unicode's white space and the four ASCII separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
