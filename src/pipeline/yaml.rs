//! YAML as a tree in which every value knows where it stands. A safe subset of YAML 1.2 with the core schema: one document, no
//! tags, no merge keys, keys that are words, no key twice; aliases, nesting and size are bounded.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, StrInput};
use serde_json::Value;

use super::problem::{Problem, Problems, Span};
use super::scalar;

/// Keys and values that all files of a pipeline may have, aliases expanded: enough for a pipeline of the most stages, written out.
pub(super) const MOST_VALUES: usize = 500_000;
/// How deep values may be nested, aliases expanded.
pub(super) const DEEPEST: usize = 100;
/// Characters of a key: the name of a stage with its combination, where a pipeline is written out.
const LONGEST_KEY: usize = 512;

/// A value and where it stands: a collection's span ends with its first line.
#[derive(Debug, Clone)]
pub(super) struct Yaml {
    pub span: Span,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Null, a boolean, a number or a text; and how it is written, without quotes.
    Scalar {
        value: Value,
        text: String,
    },
    Sequence(Vec<Yaml>),
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Yaml,
}

impl Yaml {
    pub fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar { value: Value::Null, .. })
    }

    /// Whether it is a reference and nothing else.
    pub fn is_reference(&self) -> bool {
        let reference = |text: &str| text.starts_with("${") && text.find('}') == text.len().checked_sub(1);
        matches!(&self.content, Content::Scalar { value: Value::String(text), .. } if reference(text))
    }

    /// "a list", for messages.
    pub fn describe(&self) -> String {
        match &self.content {
            Content::Scalar { value: Value::Null, .. } => "nothing".into(),
            Content::Scalar { value: Value::String(_), .. } => "a text".into(),
            Content::Scalar { text, .. } => format!("`{text}`"),
            Content::Sequence(_) => "a list".into(),
            Content::Mapping(_) => "a mapping".into(),
        }
    }

    /// The entry `key` of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The value as it is written, without looking for references.
    pub fn plain(&self) -> Value {
        match &self.content {
            Content::Scalar { value, .. } => value.clone(),
            Content::Sequence(items) => Value::Array(items.iter().map(Yaml::plain).collect()),
            Content::Mapping(entries) => Value::Object(entries.iter().map(|e| (e.key.clone(), e.value.plain())).collect()),
        }
    }

    /// Where the first text is that holds `words`.
    pub fn find(&self, words: &str) -> Option<Span> {
        match &self.content {
            Content::Scalar { value: Value::String(text), .. } => text.contains(words).then_some(self.span),
            Content::Scalar { .. } => None,
            Content::Sequence(items) => items.iter().find_map(|item| item.find(words)),
            Content::Mapping(entries) => entries.iter().find_map(|e| e.value.find(words)),
        }
    }

    /// Values in it, itself included.
    fn size(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 1,
            Content::Sequence(items) => 1 + items.iter().map(Yaml::size).sum::<usize>(),
            Content::Mapping(entries) => 1 + entries.iter().map(|e| e.value.size()).sum::<usize>(),
        }
    }

    fn depth(&self) -> usize {
        match &self.content {
            Content::Scalar { .. } => 1,
            Content::Sequence(items) => 1 + items.iter().map(Yaml::depth).max().unwrap_or(0),
            Content::Mapping(entries) => 1 + entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
        }
    }
}

/// Reads `text`, which stands at byte `offset` of source number `source`. An empty document is null. `None` when it cannot be
/// read at all; otherwise what is wrong is among the problems, and the rest of the tree is usable for finding more.
pub(super) fn parse(text: &str, source: usize, offset: usize, problems: &mut Problems) -> Option<Yaml> {
    let place = |at: usize, len: usize| Span { source, start: offset + at, end: offset + at + len };
    if let Some((at, c)) = text.char_indices().find(|(_, c)| !scalar::is_printable(*c)) {
        let code = u32::from(c);
        let message = format!("the character U+{code:04X} is not allowed in YAML");
        problems
            .push(Problem::at(place(at, c.len_utf8()), message).help(format!("write it as `\"\\u{code:04x}\"`, or remove it")));
        return None;
    }
    // A byte order mark may start a file.
    let (text, offset) = text.strip_prefix('\u{feff}').map_or((text, offset), |rest| (rest, offset + 3));
    let offsets = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i).collect());
    let mut reader =
        Reader { text, parser: Parser::new_from_str(text), offsets, source, offset, anchors: HashMap::new(), problems };
    reader.document().ok()
}

/// A problem that ends the reading was pushed.
struct Stop;

struct Reader<'a, 'p> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    /// Byte of each character; absent when they are the same.
    offsets: Option<Vec<usize>>,
    source: usize,
    offset: usize,
    /// Finished anchored values.
    anchors: HashMap<usize, Yaml>,
    problems: &'p mut Problems,
}

impl<'a> Reader<'a, '_> {
    fn document(&mut self) -> Result<Yaml, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(self.stop(
                        span,
                        "a second document starts here",
                        "a pipeline file holds one document; remove this `---`",
                    ));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.value(event, span, 1)?),
            }
        }
        Ok(root.unwrap_or_else(|| self.null(self.span(0, 0))))
    }

    fn value(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Yaml, Stop> {
        self.count(1, depth, span)?;
        let (content, anchor, tag) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(text.into_owned(), style, span), anchor, tag),
            Event::SequenceStart(anchor, tag) => (self.sequence(depth)?, anchor, tag),
            Event::MappingStart(anchor, tag) => (self.mapping(depth)?, anchor, tag),
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            _ => return Err(self.stop(span, "the YAML cannot be read here", "a value is missing")),
        };
        if let Some(tag) = tag {
            let written = if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() };
            let message = format!("the tag `{written}` is not understood");
            self.problems.push(Problem::at(span, message).help("leave the tag out; quote a value to make it a text".to_owned()));
        }
        let value = Yaml { span, content };
        if anchor > 0 {
            // What has an anchor is kept once more.
            self.count(value.size(), depth, span)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, span: Span) -> Content {
        let value = match style {
            ScalarStyle::Plain => scalar::resolve(&text).unwrap_or_else(|message| {
                self.problems.push(Problem::at(span, message).help("quote it to make it a text".to_owned()));
                Value::Null
            }),
            _ => Value::String(text.clone()),
        };
        Content::Scalar { value, text }
    }

    fn sequence(&mut self, depth: usize) -> Result<Content, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(items)),
                (event, span) => items.push(self.value(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Content, Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        loop {
            let (key, key_span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Content::Mapping(entries)),
                (event, span) => (self.key(event, span, depth)?, span),
            };
            let (event, span) = self.next()?;
            let value = self.value(event, span, depth + 1)?;
            let Some(key) = key else { continue };
            let first = known.get(&key).and_then(|&i| entries.get(i)).map(|e| e.key_span);
            if let Some(first) = first {
                let problem = Problem::at(key_span, format!("the key `{key}` is given twice")).here("again here");
                self.problems.push(problem.also(first, "first here").help("remove or rename one of them".to_owned()));
                continue;
            }
            known.insert(key.clone(), entries.len());
            entries.push(Entry { key, key_span, value });
        }
    }

    /// A key; nothing if it is none, which is a problem then.
    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Option<String>, Stop> {
        let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
        let key = match self.value(event, span, depth + 1)?.content {
            Content::Scalar { text, .. } => text,
            Content::Sequence(_) | Content::Mapping(_) => {
                let help = "quote a text that starts with `{` or `[`".to_owned();
                self.problems.push(Problem::at(span, "a list or a mapping cannot be a key").help(help));
                return Ok(None);
            }
        };
        let (message, help) = if plain && key == "<<" {
            ("merge keys (`<<`) are not part of YAML 1.2".to_owned(), "repeat the entries, or put what is shared under `params`")
        } else if key.is_empty() {
            ("the key before `:` is missing".to_owned(), "write `key: value`")
        } else if key.chars().count() > LONGEST_KEY {
            (format!("a key may have at most {LONGEST_KEY} characters"), "shorten it")
        } else {
            return Ok(Some(key));
        };
        self.problems.push(Problem::at(span, message).help(help.to_owned()));
        Ok(None)
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Yaml, Stop> {
        match self.anchors.get(&anchor) {
            Some(value) => {
                let (size, deep, value) = (value.size(), value.depth(), value.clone());
                self.count(size - 1, depth + deep - 1, span)?;
                Ok(value)
            }
            None => Err(self.stop(span, "this alias stands inside of the value that it repeats", "write the value out")),
        }
    }

    /// Counts more values, the deepest of them at `depth`.
    fn count(&mut self, values: usize, depth: usize, span: Span) -> Result<(), Stop> {
        self.problems.values += values;
        if depth > DEEPEST {
            return Err(self.stop(span, &format!("values are nested more than {DEEPEST} deep"), "flatten them"));
        }
        if self.problems.values > MOST_VALUES {
            let message = format!("there are more than {MOST_VALUES} keys and values, aliases expanded");
            return Err(self.stop(span, &message, "keep data in files of its own, and name them in the pipeline"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, self.span(0, 0))),
            Some(Ok((event, span))) => Ok((event, self.span(span.start.index(), span.end.index()))),
            Some(Err(error)) => Err(self.malformed(&error)),
        }
    }

    fn malformed(&mut self, error: &ScanError) -> Stop {
        let at = error.marker().index();
        let mut span = self.span(at, at + 1);
        if span.start == span.end {
            // At the end of a line or of the text; the caret goes below the last character.
            let before = self.text.get(..span.start - self.offset).unwrap_or_default().trim_end();
            let last = before.char_indices().next_back().map_or(0, |(i, _)| i);
            span = Span { start: self.offset + last, end: self.offset + before.len(), ..span };
        }
        let before = self.text.get(..span.end - self.offset).unwrap_or_default();
        let line = before.lines().next_back().unwrap_or_default();
        let help = if line.contains("${") {
            "inside of `{ … }` and `[ … ]` quote it: `\"${params.x}\"`"
        } else if line.starts_with('\t') {
            "indent with spaces; YAML does not allow tabs there"
        } else {
            "check the indentation, the colons and the quotes here and in the line above"
        };
        self.stop(span, &format!("this is not YAML: {}", error.info()), help)
    }

    fn stop(&mut self, span: Span, message: &str, help: &str) -> Stop {
        self.problems.push(Problem::at(span, message).help(help.to_owned()));
        Stop
    }

    fn null(&self, span: Span) -> Yaml {
        Yaml { span, content: Content::Scalar { value: Value::Null, text: String::new() } }
    }

    /// From positions in characters; ends with the first line.
    fn span(&self, start: usize, end: usize) -> Span {
        let byte = |index: usize| match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.text.len()),
            None => index.min(self.text.len()),
        };
        let start = byte(start);
        let words = self.text.get(start..byte(end).max(start)).unwrap_or_default();
        let first_line = words.split(['\n', '\r']).next().unwrap_or_default().trim_end();
        Span { source: self.source, start: self.offset + start, end: self.offset + start + first_line.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::Source;
    use super::*;

    fn read(text: &str) -> (Option<Yaml>, String) {
        let mut problems = Problems::new(vec![Source::new("a.yaml", text)]);
        let yaml = parse(text, 0, 0, &mut problems);
        (yaml, problems.into_error().to_string())
    }

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = "\u{feff}é: [ü, 'ö ', {ä: 5e-5}]\n\"b\": |\n  x\n  y\n";
        let (yaml, problems) = read(text);
        assert_eq!(problems, "");
        let yaml = yaml.unwrap();
        let part = |span: Span| &text[span.start..span.end];
        let Content::Sequence(items) = &yaml.entry("é").unwrap().value.content else { panic!("{yaml:?}") };
        assert_eq!([part(items[0].span), part(items[1].span)], ["ü", "'ö '"]);
        let number = items[2].entry("ä").unwrap();
        assert_eq!((part(number.key_span), part(number.value.span)), ("ä", "5e-5"));
        let block = yaml.entry("b").unwrap();
        assert_eq!(part(block.key_span), "\"b\"");
        assert!(matches!(&block.value.content, Content::Scalar { text, .. } if text == "x\ny\n"));
    }

    #[test]
    fn what_is_no_safe_yaml_is_refused() {
        let bomb: String = (1..12).fold("a0: &a0 [x]\n".into(), |text, i| {
            let item = format!("*a{}, ", i - 1).repeat(9);
            format!("{text}a{i}: &a{i} [{item}]\n")
        });
        let deep_alias = format!("a: &a {}{}\nb: {}*a{}", "[".repeat(60), "]".repeat(60), "[".repeat(60), "]".repeat(60));
        let cases = [
            "a: 1\nb: 2\na: 3\n",
            "<<: {a: 1}\n",
            "a: &x [*x]\n",
            "a: *nowhere\n",
            &bomb,
            &deep_alias,
            &"[".repeat(200),
            "a: !!str 1\n",
            "a: 1\n---\nb: 2\n",
            "{[a]: 1}\n",
            ": 1\n",
            "a: .inf\n",
            "a: 18446744073709551616\n",
            "a: \u{1b}[31m\n",
            "a: ${b}\nc: {d: ${e}}\n",
            "a:\n\tb: 1\n",
            "a: 'b\n",
        ];
        let messages: Vec<String> = cases.iter().map(|text| read(text).1).collect();
        insta::assert_snapshot!(messages.join("\n"), @"
        a.yaml:3:1: the key `a` is given twice
        a.yaml:1:1: merge keys (`<<`) are not part of YAML 1.2
        a.yaml:1:8: this alias stands inside of the value that it repeats
        a.yaml:1:4: this is not YAML: while parsing node, found unknown anchor
        a.yaml:7:15: there are more than 500000 keys and values, aliases expanded
        a.yaml:2:64: values are nested more than 100 deep
        a.yaml:1:101: values are nested more than 100 deep
        a.yaml:1:4: the tag `!!str` is not understood
        a.yaml:2:1: a second document starts here
        a.yaml:1:2: a list or a mapping cannot be a key
        a.yaml:1:1: the key before `:` is missing
        a.yaml:1:4: `.inf` is no number that can be used
        a.yaml:1:4: the number `18446744073709551616` is too large
        a.yaml:1:4: the character U+001B is not allowed in YAML
        a.yaml:2:9: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
        a.yaml:2:2: this is not YAML: tabs disallowed within this context (block indentation)
        a.yaml:1:4: this is not YAML: while scanning a quoted scalar, found unexpected end of stream
        ");
    }
}
