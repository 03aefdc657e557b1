//! What is wrong with a pipeline: messages with the place they point at, drawn for people and as data for programs.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode, ThemeCharacters, ThemeStyles,
};
use serde::Serialize;
use serde_json::Value;

/// More problems than anybody mends at once are counted, not kept.
const MOST_PROBLEMS: usize = 100;
/// A line that is longer (in bytes) is not drawn.
const LONGEST_DRAWN_LINE: usize = 1000;
/// Columns of what is drawn.
const WIDTH: usize = 100;

/// A stretch of one of the texts that a pipeline is read from: the file, a `--set` argument, the file of a pipeline that it extends,
/// or that of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    /// 0 is the pipeline, then come the overrides, then the pipelines that it extends, then the definitions.
    pub source: usize,
    /// In bytes.
    pub start: usize,
    /// In bytes; not before `start`.
    pub end: usize,
}

/// A text and its name, without characters that steer a terminal.
#[derive(Debug)]
pub(super) struct Source {
    name: String,
    drawn: NamedSource<String>,
}

impl Source {
    pub fn new(name: &str, text: &str) -> Self {
        let name: String = name.chars().map(harmless).collect();
        let text = text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { c } else { harmless(c) }).collect();
        Source { drawn: NamedSource::new(&name, text), name }
    }

    /// The text; as long as the original, and different from it only where that has control characters.
    pub fn text(&self) -> &str {
        self.drawn.inner()
    }

    /// Line and column (in characters) of a byte, both from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text().get(..byte).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (before.matches('\n').count() + 1, column)
    }

    /// Whether the line of a byte and those around it are short enough to draw.
    fn can_draw(&self, byte: usize) -> bool {
        let (before, after) = self.text().split_at_checked(byte).unwrap_or_default();
        let (mut before, mut after) = (before.rsplit('\n'), after.split('\n'));
        let mut length = || before.next().map_or(0, str::len).max(after.next().map_or(0, str::len));
        length() <= LONGEST_DRAWN_LINE && length() <= LONGEST_DRAWN_LINE
    }
}

/// The character, or one of the same length in UTF-8 that does not control how what follows is drawn.
fn harmless(c: char) -> char {
    let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    match (c.is_control() || reorders, c.len_utf8()) {
        (false, _) => c,
        (true, 1) => '?',
        (true, 2) => '¿',
        (true, _) => '\u{fffd}',
    }
}

/// The same for messages, where length does not matter and the character should be named.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) == c || c == '\n' { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out
}

/// One thing that is wrong with a pipeline, where, and how to mend it.
#[derive(Debug, Clone)]
pub struct Problem {
    message: String,
    help: Option<String>,
    /// The first one is the place; more are drawn beside it.
    labels: Vec<(Span, String)>,
    source: Option<Arc<Source>>,
    /// The name of the file when no text can be shown.
    file: String,
    /// Other files that have a part in it.
    places: Vec<Place>,
}

impl Problem {
    /// A problem with a file as a whole; the message names it.
    pub(super) fn with_file(file: &str, message: impl AsRef<str>) -> Self {
        Problem { file: printable(file), ..Problem::new(message.as_ref(), Vec::new()) }
    }

    /// A problem at a place; goes to [`Problems::push`].
    pub(super) fn at(span: Span, message: impl AsRef<str>) -> Self {
        Problem::new(message.as_ref(), vec![(span, String::new())])
    }

    fn new(message: &str, labels: Vec<(Span, String)>) -> Self {
        Problem { message: printable(message), help: None, labels, source: None, file: String::new(), places: Vec::new() }
    }

    /// Adds how to mend it; nothing when there is nothing to say.
    pub(super) fn help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into().map(|h| printable(&h));
        self
    }

    /// Words at the place itself.
    pub(super) fn here(mut self, words: &str) -> Self {
        if let Some((_, label)) = self.labels.first_mut() {
            *label = printable(words);
        }
        self
    }

    /// Another place that belongs to the problem. In the same file it is drawn; else the words stand before its name.
    pub(super) fn also(mut self, span: Span, words: &str) -> Self {
        self.labels.push((span, printable(words)));
        self
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The place and the words as data.
    pub fn report(&self) -> Report {
        let place = self.source.as_ref().zip(self.labels.first()).map(|(source, (span, _))| source.position(span.start));
        Report {
            file: self.source.as_ref().map_or(&self.file, |s| &s.name).clone(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            message: self.message.clone(),
            help: self.help.clone(),
            places: self.places.clone(),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as Box<dyn Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| &s.drawn as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let source = self.source.as_ref()?;
        let place = self.labels.first()?.0;
        let drawn = self.labels.iter().filter(|(span, _)| span.source == place.source && source.can_draw(span.start));
        let labels: Vec<LabeledSpan> = drawn
            .map(|(span, words)| {
                let words = Some(words.clone()).filter(|w| !w.is_empty());
                LabeledSpan::new(words, span.start, span.end - span.start)
            })
            .collect();
        (!labels.is_empty()).then(|| Box::new(labels.into_iter()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

/// A [`Problem`] for programs (`--json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The pipeline file, the file of a definition or of a pipeline that is extended, or `--set`.
    pub file: String,
    /// From 1; absent when the file as a whole is meant.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    pub message: String,
    pub help: Option<String>,
    /// Other files that have a part in it: where what is asked for is declared; the `uses` that leads to a definition and the `extends`
    /// that leads to a pipeline, then the one that leads to that, up to the pipeline's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// What is there: `used`, `extended`, `declared`, …
    pub what: String,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}:{}", self.what, self.file, self.line, self.column)
    }
}

/// Collects problems while a pipeline is read.
pub(super) struct Problems {
    sources: Vec<Arc<Source>>,
    found: Vec<Problem>,
    seen: HashSet<(Span, String)>,
    /// How many were not kept.
    dropped: usize,
    /// The `uses` that lead to what is being looked at, innermost first.
    used: Vec<Span>,
    /// By the number of its text, the `extends` that leads to a pipeline.
    extended: HashMap<usize, Span>,
    /// Stages of such pipelines that are not there any more, and where that is said.
    taken_out: HashMap<String, Span>,
    /// Keys and values that were read from all texts.
    pub values: usize,
}

impl Problems {
    pub fn new(sources: Vec<Source>) -> Self {
        let sources = sources.into_iter().map(Arc::new).collect();
        Problems {
            sources,
            found: Vec::new(),
            seen: HashSet::new(),
            dropped: 0,
            used: Vec::new(),
            extended: HashMap::new(),
            taken_out: HashMap::new(),
            values: 0,
        }
    }

    /// Adds a text; its number.
    pub fn add(&mut self, source: Source) -> usize {
        self.sources.push(Arc::new(source));
        self.sources.len() - 1
    }

    /// Says which `uses` lead to what is looked at next, innermost first.
    pub fn within(&mut self, used: &[Span]) {
        used.clone_into(&mut self.used);
    }

    /// Names the combination of a matrix in the problems that were found since there were `before`, where the value comes from it.
    pub fn in_combination(&mut self, before: usize, label: &str) {
        for index in before..self.found.len() {
            let span = self.found.get(index).and_then(|problem| problem.labels.first()).map(|(span, _)| *span);
            if !label.is_empty()
                && span.is_some_and(|span| self.text(span).contains("${matrix."))
                && let Some(problem) = self.found.get_mut(index)
                && !problem.message.contains(label)
            {
                problem.message = format!("{}, where `{label}`", problem.message);
            }
        }
    }

    /// Says which `extends` leads to the text that is added next.
    pub fn extended(&mut self, extends: Span) {
        self.extended.insert(self.sources.len(), extends);
    }

    /// Says that a stage of what is extended is not there any more.
    pub fn taken_out(&mut self, stage: &str, span: Span) {
        self.taken_out.insert(stage.to_owned(), span);
    }

    /// Where a stage that might be there was taken out.
    pub fn where_taken_out(&self, stage: &str) -> Option<Span> {
        self.taken_out.get(stage).copied()
    }

    /// Keeps a problem, once.
    pub fn push(&mut self, mut problem: Problem) {
        let Some((span, _)) = problem.labels.first() else { return self.found.push(problem) };
        if self.is_full() {
            self.dropped += 1;
        } else if self.seen.insert((*span, problem.message.clone())) {
            problem.source = self.sources.get(span.source).cloned();
            problem.places = self.places(&problem, *span);
            self.found.push(problem);
        }
    }

    /// The other files that have a part in a problem at `span`.
    fn places(&self, problem: &Problem, span: Span) -> Vec<Place> {
        let elsewhere = problem.labels.iter().filter(|(label, _)| label.source != span.source);
        let mut places: Vec<(&str, Span)> = elsewhere.map(|(span, words)| (words.as_str(), *span)).collect();
        places.extend(self.used.iter().map(|span| ("used", *span)));
        let mut outermost = self.used.last().copied().unwrap_or(span);
        while let Some(extends) = self.extended.get(&outermost.source) {
            places.push(("extended", *extends));
            outermost = *extends;
        }
        places.into_iter().filter_map(|(what, span)| self.place(what, span)).collect()
    }

    fn place(&self, what: &str, span: Span) -> Option<Place> {
        let source = self.sources.get(span.source)?;
        let (line, column) = source.position(span.start);
        Some(Place { what: what.to_owned(), file: source.name.clone(), line, column })
    }

    /// More problems would not be kept.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MOST_PROBLEMS
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.found.len() + self.dropped
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The text of a span.
    pub fn text(&self, span: Span) -> &str {
        self.sources.get(span.source).and_then(|s| s.text().get(span.start..span.end)).unwrap_or_default()
    }

    /// The part of `span` where `words` stand as they are, or else all of it.
    pub fn narrow(&self, span: Span, words: &str) -> Span {
        match self.text(span).find(words) {
            Some(at) => Span { start: span.start + at, end: span.start + at + words.len(), ..span },
            None => span,
        }
    }

    /// Where `words`, which are a part of a value that begins at `span`, stand in the file; a span does not always take all lines of a
    /// value. Or else all of `span`.
    pub fn part(&self, span: Span, words: &str) -> Span {
        let rest = self.sources.get(span.source).and_then(|s| s.text().get(span.start..)).unwrap_or_default();
        match rest.find(words) {
            Some(at) => Span { start: span.start + at, end: span.start + at + words.len(), ..span },
            None => span,
        }
    }

    /// All of them, in the order of the texts.
    pub fn into_error(mut self) -> PipelineError {
        self.found.sort_by_key(|p| p.labels.first().map(|(span, _)| *span));
        PipelineError { problems: self.found, dropped: self.dropped }
    }
}

/// Why a pipeline cannot be used: every problem that was found, in the order of the file.
#[derive(Debug, Clone)]
pub struct PipelineError {
    pub(super) problems: Vec<Problem>,
    dropped: usize,
}

impl PipelineError {
    pub(super) fn one(problem: Problem) -> Self {
        PipelineError { problems: vec![problem], dropped: 0 }
    }

    /// At least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The place and the words of each problem.
    pub fn reports(&self) -> Vec<Report> {
        self.problems.iter().map(Problem::report).collect()
    }

    /// For `--json`: the [`Report`] of each problem.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self.reports()).unwrap_or_default()
    }

    /// For the terminal: each problem with the line it points at and the mend, with ANSI colours if wanted.
    pub fn render(&self, colour: bool) -> String {
        let styles = if colour { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let theme = GraphicalTheme { characters: ThemeCharacters::unicode(), styles };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            .with_links(false)
            .with_context_lines(1)
            .with_primary_span_start()
            .without_syntax_highlighting();
        let mut drawn: Vec<String> = self.problems.iter().map(|problem| draw(&handler, problem)).collect();
        if self.dropped > 0 {
            drawn.push(format!("  … and {} more problems\n", self.dropped));
        }
        drawn.join("\n")
    }
}

fn draw(handler: &GraphicalReportHandler, problem: &Problem) -> String {
    let mut drawn = String::new();
    if handler.render_report(&mut drawn, problem).is_err() {
        drawn = format!("{problem}\n");
    }
    let report = problem.report();
    if let (None, Some(line), Some(column)) = (problem.labels(), report.line, report.column) {
        // The line is too long to be shown, so the place is said.
        let _ = writeln!(drawn, "  at {}:{line}:{column}", report.file);
    }
    for place in &problem.places {
        let _ = writeln!(drawn, "  {place}");
    }
    drawn.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

impl Display for PipelineError {
    /// One line a problem: `file:line:column: message`, or the message alone when it is about the file as a whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, report) in self.reports().into_iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            match (report.line, report.column) {
                (Some(line), Some(column)) => write!(f, "{newline}{}:{line}:{column}: {}", report.file, report.message)?,
                _ => write!(f, "{newline}{}", report.message)?,
            }
            report.places.iter().try_for_each(|place| write!(f, ", {place}"))?;
        }
        Ok(())
    }
}

impl std::error::Error for PipelineError {}

impl Diagnostic for PipelineError {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|p| p as &dyn Diagnostic)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_not_drawn() {
        let text = "a: \u{1b}[31m \u{9b}x \u{202e}y\n";
        let source = Source::new("evil\u{7}.yaml", text);
        assert_eq!((source.text().len(), source.name.as_str()), (text.len(), "evil?.yaml"));
        let mut problems = Problems::new(vec![source]);
        problems.push(Problem::at(Span { source: 0, start: 3, end: 4 }, "no `\u{1b}`").help("\u{202e}".to_owned()));
        let error = problems.into_error();
        let drawn = error.render(false);
        assert!(drawn.chars().all(|c| c == '\n' || harmless(c) == c), "{drawn:?}");
        assert_eq!(error.to_string(), r"evil?.yaml:1:4: no `\u{1b}`");
    }

    #[test]
    fn columns_count_characters_and_long_lines_are_left_out() {
        let text = format!("é: x\n\n{}", "y".repeat(5000));
        let mut problems = Problems::new(vec![Source::new("a.yaml", &text)]);
        problems.push(Problem::at(Span { source: 0, start: 4, end: 5 }, "first"));
        problems.push(Problem::at(Span { source: 0, start: 101, end: 102 }, "second"));
        let error = problems.into_error();
        assert_eq!(error.to_string(), "a.yaml:1:4: first\na.yaml:3:95: second");
        let drawn = error.render(false);
        assert!(drawn.contains("1 │ é: x") && drawn.len() < 1000, "{drawn}");
    }
}
