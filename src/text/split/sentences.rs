//! Sentence boundaries: NLTK's Punkt (3.10) without training, as LlamaIndex uses it. No abbreviations are known, so a full
//! stop ends a sentence unless it follows a number or a single letter and what comes next speaks against it.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use crate::text::is_space;

/// The sentences of `text`, one after the other without a gap: white space belongs to the sentence before it. A blank text
/// has none.
pub fn sentences(text: &str) -> Vec<&str> {
    let starts: Vec<usize> = realigned(text, &slices(text)).into_iter().map(|sentence| sentence.start).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &text[start..end]).collect()
}

/// A mark that may end a sentence.
#[derive(Clone, Copy)]
struct Candidate {
    /// Where the word starts that the mark ends.
    word: usize,
    mark: usize,
    /// Where the token after the mark ends.
    context_end: usize,
    /// Where the next sentence starts, if the mark ends one.
    next: usize,
}

/// Sentences before closing quotes and brackets find their place.
fn slices(text: &str) -> Vec<Range<usize>> {
    let mut slices = Vec::new();
    let mut start = 0;
    for candidate in candidates(text) {
        if has_break(&text[candidate.word..candidate.context_end]) {
            slices.push(start..candidate.mark + 1);
            start = candidate.next;
        }
    }
    let end = text.trim_end_matches(is_space).len();
    slices.push(start..end.max(start));
    slices
}

/// Full stops, question and exclamation marks before white space or punctuation; of several in one word only the last.
fn candidates(text: &str) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let (mut word, mut scanned) = (0, 0);
    for (mark, _) in text.match_indices(['.', '?', '!']) {
        let after = &text[mark + 1..];
        let Some(first) = after.chars().next() else { break };
        let (context_end, next) = if is_punctuation(first) {
            (mark + 1 + first.len_utf8(), mark + 1)
        } else if first.is_whitespace() {
            let Some(blank) = after.find(|c: char| !c.is_whitespace()) else { break };
            let token = after[blank..].find(char::is_whitespace).unwrap_or(after.len() - blank);
            (mark + 1 + blank + token, mark + 1 + blank)
        } else {
            continue;
        };
        let before = &text[scanned..mark];
        // White space right at the start does not count (Punkt takes its index 0 for "none").
        let blank = before.rfind([' ', '\t', '\n', '\r', '\x0b', '\x0c']).filter(|&at| at > 0);
        word = blank.map_or(word, |at| scanned + at + 1);
        if word < scanned {
            candidates.pop();
        }
        candidates.push(Candidate { word, mark, context_end, next });
        scanned = mark;
    }
    candidates
}

/// Moves closing quotes and brackets at the start of a sentence to the end of the one before.
fn realigned(text: &str, slices: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut moved = 0;
    for (i, slice) in slices.iter().enumerate() {
        let start = slice.start + moved;
        let closing = slices.get(i + 1).and_then(|next| Some((next.start, closing(&text[next.clone()])?)));
        let (end, taken) = match closing {
            Some((next, (marks, with_blanks))) => (next + marks, with_blanks),
            None => (slice.end, 0),
        };
        if start < end {
            sentences.push(start..end);
        }
        moved = taken;
    }
    sentences
}

/// How many bytes of closing marks a sentence starts with, without and with the white space after them.
fn closing(sentence: &str) -> Option<(usize, usize)> {
    let marks = ['"', '\'', ')', ']', '}', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '«', '»'];
    let rest = sentence.trim_start_matches(marks);
    let length = sentence.len() - rest.len();
    let blank = rest.len() - rest.trim_start().len();
    let ends = rest.is_empty() || blank > 0 || rest.starts_with("--");
    (length > 0 && ends).then_some((length, length + blank))
}

/// Whether a sentence ends within `context`, before its last token.
fn has_break(context: &str) -> bool {
    let tokens: Vec<String> = context.split('\n').filter(|line| !line.chars().all(is_space)).flat_map(tokens).collect();
    tokens.windows(2).any(|pair| matches!(pair, [token, next] if ends_sentence(token, next)))
}

fn ends_sentence(token: &str, next: &str) -> bool {
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^-?[.,]?\d[\d,.\-]*$").expect("the pattern is a constant"));
    static INITIAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[\w--\d]\.$").expect("the pattern is a constant"));
    if matches!(token, "." | "?" | "!") {
        return true;
    }
    if !token.ends_with('.') || token.ends_with("..") {
        return false;
    }
    let first = next.chars().next();
    let goes_on = matches!(next, ";" | ":" | "," | "." | "!" | "?") || first.is_some_and(char::is_lowercase);
    let initial = INITIAL.is_match(token);
    !((initial || NUMBER.is_match(token)) && goes_on || initial && first.is_some_and(char::is_uppercase))
}

/// Punctuation that ends a word.
fn is_punctuation(c: char) -> bool {
    ")\";}]*:@'({[\u{2018}\u{2019}\u{201c}\u{201d}«»?!".contains(c)
}

/// Words and punctuation of one line.
fn tokens(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&first) = chars.get(at) {
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let length = match run(&chars[at..]) {
            Some(length) => length,
            None if "(\"`{[:;&#*@)}]-,".contains(first) => 1,
            None => word(&chars[at..]),
        };
        tokens.push(chars[at..at + length].iter().collect());
        at += length;
    }
    tokens
}

/// The length of the word that `chars` start with.
fn word(chars: &[char]) -> usize {
    let ends = |at: usize| match chars.get(at) {
        None => true,
        Some(&c) => c.is_whitespace() || is_punctuation(c) || run(&chars[at..]).is_some(),
    };
    (1..chars.len()).find(|&at| ends(at) || chars.get(at) == Some(&',') && ends(at + 1)).unwrap_or(chars.len())
}

/// The length of a dash (`--`) or an ellipsis (`...`, `. . .`) at the start.
fn run(chars: &[char]) -> Option<usize> {
    let repeated = |mark: char| Some(chars.iter().take_while(|&&c| c == mark).count()).filter(|&n| n > 1);
    let spaced = || {
        let pairs = chars.chunks_exact(2).take_while(|pair| matches!(pair, ['.', c] if c.is_whitespace())).count();
        let full = if chars.get(2 * pairs) == Some(&'.') { pairs } else { pairs.saturating_sub(1) };
        (full > 1).then_some(2 * full + 1)
    };
    match chars.first() {
        Some('-') => repeated('-'),
        Some('.') => repeated('.').or_else(spaced),
        _ => None,
    }
}
