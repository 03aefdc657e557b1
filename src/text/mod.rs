//! Reading documents, splitting them, and finding words and phrases in them.

pub mod keyword;
pub mod phrase;
pub mod quiet;
pub mod read;
pub mod split;

/// Whether Python's `str.isspace` and `re`'s `\s` hold for `c`: Unicode's white space and the four ASCII separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
