//! Headings and paragraphs of documents, and phrases by which their passages are found again.

use crate::artifact::Document;
use crate::text::split::sentences::sentences;

/// Words of a phrase.
const PHRASE: usize = 8;
/// Words that a phrase needs to mean one place.
const LEAST_PHRASE: usize = 3;
/// Words of a sentence that may be a query.
const SENTENCE: std::ops::RangeInclusive<usize> = 4..=30;
/// Characters of a heading that may be a query.
const LONGEST_HEADING: usize = 150;

/// Something to ask, and the phrase that stands where the answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub title: String,
    pub phrase: String,
}

/// The headings of a document with the beginning of what stands below each; of a document without headings but with a title of its own,
/// the title with the beginning.
pub fn headings(document: &Document) -> Vec<Section> {
    let blocks = blocks(&document.text);
    let mut sections = Vec::new();
    let mut heading: Option<String> = None;
    for block in &blocks {
        match block {
            Block::Heading(title) => heading = Some(title.clone()),
            Block::Paragraph(text) => {
                let phrase = phrase(text);
                if let (Some(title), Some(phrase)) = (heading.take_if(|_| phrase.is_some()), phrase) {
                    sections.push(Section { title, phrase });
                }
            }
        }
    }
    let has_headings = blocks.iter().any(|block| matches!(block, Block::Heading(_)));
    let stem = document.path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map_or("", |(stem, _)| stem);
    if !has_headings && document.title != stem {
        let first = blocks.iter().find_map(|block| if let Block::Paragraph(text) = block { phrase(text) } else { None });
        sections.extend(first.map(|phrase| Section { title: document.title.clone(), phrase }));
    }
    sections.retain(|section| is_query(&section.title) && section.title.chars().count() <= LONGEST_HEADING);
    sections
}

/// The first sentence of each paragraph, with the beginning of the second.
pub fn first_sentences(document: &Document) -> Vec<Section> {
    let section = |block: Block| {
        let Block::Paragraph(text) = block else { return None };
        let sentences: Vec<&str> = sentences(&text).into_iter().map(str::trim).filter(|s| !s.is_empty()).collect();
        let [first, second, ..] = sentences.as_slice() else { return None };
        let title = plain(first).trim_end_matches(['.', ':', ';']).to_owned();
        let words = title.split_whitespace().count();
        (SENTENCE.contains(&words) && is_query(&title)).then_some(Section { title, phrase: phrase(second)? })
    };
    blocks(&document.text).into_iter().filter_map(section).collect()
}

enum Block {
    Heading(String),
    /// Lines of running text.
    Paragraph(String),
}

/// Headings (`# …`, or underlined) and paragraphs; code, tables and rules are left out.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    let mut fence: Option<&str> = None;
    let end = |lines: &mut Vec<&str>, blocks: &mut Vec<Block>| {
        if !lines.is_empty() {
            blocks.push(Block::Paragraph(lines.join("\n")));
            lines.clear();
        }
    };
    for line in text.lines() {
        let trimmed = line.trim();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        if fence.is_some() || mark.is_some() {
            end(&mut lines, &mut blocks);
            fence = if fence.is_none() || fence == mark { if fence.is_none() { mark } else { None } } else { fence };
            continue;
        }
        let title = trimmed.trim_start_matches('#');
        let level = trimmed.len() - title.len();
        let underline = trimmed.len() > 2 && ['=', '-'].iter().any(|&c| trimmed.chars().all(|x| x == c));
        if (1..=6).contains(&level) && title.starts_with([' ', '\t']) {
            end(&mut lines, &mut blocks);
            blocks.push(Block::Heading(plain(title.trim().trim_end_matches('#'))));
        } else if underline && lines.len() == 1 {
            blocks.extend(lines.pop().map(|title| Block::Heading(plain(title))));
        } else if trimmed.is_empty() || underline || trimmed.starts_with('|') {
            end(&mut lines, &mut blocks);
        } else {
            lines.push(line);
        }
    }
    end(&mut lines, &mut blocks);
    blocks
}

/// The first words of a text, as they stand: behind the mark of a list or a quotation, up to the end of the sentence.
fn phrase(text: &str) -> Option<String> {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || "-*+>".contains(c));
    let sentence = sentences(text).first().copied()?.trim();
    let words: Vec<&str> = sentence.split_whitespace().take(PHRASE).collect();
    let letters = words.iter().any(|word| word.chars().any(char::is_alphabetic));
    (words.len() >= LEAST_PHRASE && letters).then(|| words.join(" "))
}

/// Without the marks of Markdown.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    // `[words](link)` is `words`.
    while let Some((before, after)) = rest.split_once('[') {
        out += before;
        match after.split_once("](").and_then(|(words, link)| Some((words, link.split_once(')')?.1))) {
            Some((words, behind)) => {
                out += words;
                rest = behind;
            }
            None => {
                out.push('[');
                rest = after;
            }
        }
    }
    out += rest;
    let out: String = out.chars().filter(|c| !"*`".contains(*c)).collect();
    let out = out.trim_matches(|c: char| c == '_' || c.is_whitespace());
    out.trim_start_matches(|c: char| "-+>".contains(c) || c.is_whitespace()).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_query(text: &str) -> bool {
    text.chars().filter(|c| c.is_alphabetic()).count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(title: &str, text: &str) -> Document {
        Document {
            id: "a/b.md".into(),
            path: "a/b.md".into(),
            title: title.into(),
            text: text.into(),
            metadata: Default::default(),
        }
    }

    fn lines(sections: &[Section]) -> String {
        sections.iter().map(|s| format!("{} -> {}", s.title, s.phrase)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn headings_and_what_stands_below() {
        let text = "# The *guide*\n\nIt says what a [volume](x.md) is for. More.\n\n## Empty\n\n## Mounts ##\n```sh\n# no heading\n```\n\
                    - bind mounts name a folder of the host\n\nUnderlined\n----------\n| a | b |\n\nOnce upon a time there was a whale in a box.\n\n## 42\n\nnumbers are no queries\n";
        insta::assert_snapshot!(lines(&headings(&document("The guide", text))), @"
        The guide -> It says what a [volume](x.md) is for.
        Mounts -> bind mounts name a folder of the host
        Underlined -> Once upon a time there was a whale
        ");
    }

    #[test]
    fn what_has_no_headings() {
        let text = "A resource is named by its address. GET must not change it, ever.\n\nOne sentence alone says nothing.\n\n\
                    - **PUT** may be repeated without harm: Clients do so. They try again after a while.";
        insta::assert_snapshot!(lines(&first_sentences(&document("b", text))), @"
        A resource is named by its address -> GET must not change it, ever.
        PUT may be repeated without harm: Clients do so -> They try again after a while.
        ");
        assert_eq!(headings(&document("b", text)), []);
        insta::assert_snapshot!(lines(&headings(&document("REST in brief", text))), @"REST in brief -> A resource is named by its address.");
    }
}
