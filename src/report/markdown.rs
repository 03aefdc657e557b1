//! Text that goes into Markdown, whatever it holds.

/// The first `characters` characters of `text`, with `…` where something is left out.
pub fn shorten(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// `text` on one line, every run of white space and control characters a blank.
pub fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// `text` on one line, so that it neither ends a cell of a table nor is taken for HTML.
pub fn inline(text: &str) -> String {
    // A backslash before a bar would undo the bar's escape.
    one_line(text).replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
}

/// `text` as a block quote, so that headings and rules in it stay inside.
pub fn quote(text: &str) -> String {
    text.trim().replace('<', "&lt;").lines().map(|line| format!("> {line}").trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(inline("a | b\r\n\tc \\| <b>d</b>\u{0}"), "a \\| b c \\\\\\| &lt;b>d&lt;/b>");
        assert_eq!(shorten("héllo wörld", 6), "héllo…");
        assert_eq!(shorten("héllo", 5), "héllo");
        assert_eq!(quote("# a\n\nb\n"), "> # a\n>\n> b\n");
    }
}
