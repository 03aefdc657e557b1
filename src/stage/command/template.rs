//! What `run` says, with its placeholders.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Result, bail};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::places::{Input, Places};
use crate::stage::ParameterError;

/// Characters of a program and its arguments in a message.
const MOST_SHOWN: usize = 60;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// The program and its arguments.
    Arguments(Vec<String>),
    /// For `sh -c`.
    Shell(String),
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Input(&'t str),
    Output(&'t str),
    /// It was meant to be a placeholder.
    Misspelt(&'t str),
}

/// Texts and placeholders in turn. Other braces are text, so that programs of `awk` and JSON need no escapes.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest, mut from) = (Vec::new(), text, 0);
    while let Some(at) = rest.get(from..).and_then(|r| r.find('{')).map(|at| at + from) {
        let (before, brace) = rest.split_at(at);
        let Some((piece, after)) = placeholder(brace) else {
            from = at + 1;
            continue;
        };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(piece);
        (rest, from) = (after, 0);
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The placeholder at the start of `text`, and what comes after it.
fn placeholder(text: &str) -> Option<(Piece<'_>, &str)> {
    let (inside, after) = text.strip_prefix('{')?.split_once('}')?;
    let (root, name) = inside.split_once('.')?;
    let whole = text.get(..inside.len() + 2)?;
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let piece = match root {
        "inputs" => Piece::Input(name),
        "outputs" => Piece::Output(name),
        _ if ["input", "output"].contains(&root.to_ascii_lowercase().trim_end_matches('s')) => Piece::Misspelt(whole),
        _ => return None,
    };
    Some((if inside.chars().all(is_word) { piece } else { Piece::Misspelt(whole) }, after))
}

impl Run {
    /// The name of the program, for messages.
    pub fn program(&self) -> &str {
        match self {
            Run::Arguments(words) => words.first().map_or("", String::as_str),
            Run::Shell(_) => "sh",
        }
    }

    /// It as a whole, for messages.
    pub fn shown(&self) -> String {
        match self {
            Run::Arguments(words) => {
                let whole = words.join(" ").replace(char::is_control, " ");
                let mut shown: String = whole.chars().take(MOST_SHOWN).collect();
                if shown.len() < whole.len() {
                    shown.push('…');
                }
                shown
            }
            Run::Shell(_) => "sh".into(),
        }
    }

    /// Its texts, each with its place in the parameters.
    fn texts(&self) -> Vec<(String, &str)> {
        match self {
            Run::Arguments(words) => words.iter().enumerate().map(|(i, word)| (format!("run[{i}]"), word.as_str())).collect(),
            Run::Shell(text) => vec![("run".into(), text)],
        }
    }

    pub fn check(&self) -> Result<(), ParameterError> {
        let is_empty = match self {
            Run::Arguments(words) => words.first().is_none_or(|program| program.trim().is_empty()),
            Run::Shell(text) => text.trim().is_empty(),
        };
        if is_empty {
            let message = "there is no program to run; write `run: [PROGRAM, ARGUMENT, …]`, or a text for `sh`";
            return Err(ParameterError::new("run", message));
        }
        for (field, text) in self.texts() {
            if text.contains('\0') {
                return Err(ParameterError::new(field, "an argument cannot hold the character NUL"));
            }
        }
        Ok(())
    }

    /// Every placeholder names an input or an output, and none in a text for `sh` stands in quotes of its own.
    pub fn check_placeholders(&self, inputs: &[&str], outputs: &[&str]) -> Result<(), ParameterError> {
        let known: Vec<String> = inputs.iter().map(|name| format!("`{{inputs.{name}}}`")).collect();
        let known = known.into_iter().chain(outputs.iter().map(|name| format!("`{{outputs.{name}}}`")));
        let known = known.collect::<Vec<_>>().join(", ");
        for (field, text) in self.texts() {
            let pieces = pieces(text);
            for piece in &pieces {
                let wrong = match *piece {
                    Piece::Input(name) if !inputs.contains(&name) => format!("{{inputs.{name}}}"),
                    Piece::Output(name) if !outputs.contains(&name) => format!("{{outputs.{name}}}"),
                    Piece::Misspelt(whole) => whole.to_owned(),
                    _ => continue,
                };
                return Err(ParameterError::new(field, format!("unknown placeholder `{wrong}`, expected one of {known}")));
            }
            if matches!(self, Run::Shell(_)) && pieces.windows(2).any(|pair| is_quoted(pair)) {
                let message = "a placeholder is a quoted word already; remove the quotes around it, or use its variable, for example \
                               \"$RETUNE_INPUT_NAME\"";
                return Err(ParameterError::new(field, message));
            }
        }
        Ok(())
    }

    /// The program and its arguments, with paths for placeholders.
    pub fn words(&self, places: &Places) -> Result<Vec<String>> {
        match self {
            Run::Arguments(words) => {
                let words: Result<Vec<Vec<String>>> = words.iter().map(|word| argument(word, places)).collect();
                Ok(words?.concat())
            }
            Run::Shell(text) => {
                let quoted = |piece: Piece| match piece {
                    Piece::Input(name) => places.input(name).paths().iter().map(|p| quote(p)).collect::<Vec<_>>().join(" "),
                    Piece::Output(name) => quote(places.output(name)).into_owned(),
                    Piece::Text(text) | Piece::Misspelt(text) => text.to_owned(),
                };
                Ok(vec!["sh".into(), "-c".into(), pieces(text).into_iter().map(quoted).collect()])
            }
        }
    }
}

/// Whether a quotation mark and a placeholder touch.
fn is_quoted(pair: &[Piece]) -> bool {
    let quotes = ['"', '\''];
    match pair {
        [Piece::Text(text), Piece::Input(_) | Piece::Output(_)] => text.ends_with(quotes),
        [Piece::Input(_) | Piece::Output(_), Piece::Text(text)] => text.starts_with(quotes),
        _ => false,
    }
}

/// What one argument becomes: one for each artifact of an input that takes several.
fn argument(word: &str, places: &Places) -> Result<Vec<String>> {
    let pieces = pieces(word);
    let mut many = None;
    for piece in &pieces {
        if let Piece::Input(name) = piece
            && let input @ Input::Many { .. } = places.input(name)
        {
            if many.is_some_and(|other| other != *name) {
                bail!("the argument `{word}` names two inputs of several stages; give each an argument of its own");
            }
            many = Some(*name);
            if input.paths().is_empty() {
                return Ok(Vec::new());
            }
        }
    }
    let filled = |item: usize| -> String {
        let part = |piece: &Piece| match *piece {
            Piece::Input(name) => {
                let paths = places.input(name).paths();
                paths.get(if many == Some(name) { item } else { 0 }).cloned().unwrap_or_default()
            }
            Piece::Output(name) => places.output(name).to_owned(),
            Piece::Text(text) | Piece::Misspelt(text) => text.to_owned(),
        };
        pieces.iter().map(part).collect()
    };
    let count = many.map_or(1, |name| places.input(name).paths().len());
    Ok((0..count).map(filled).collect())
}

/// The text as one word of `sh`.
fn quote(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''")).into()
}

/// A scalar as a text: `5` as well as `"5"`.
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Text, E> {
        // The shortest text that reads back as the same number, `2e-5` as people write it.
        let text = if value != 0.0 && value.abs() < 1e-3 { format!("{value:e}") } else { value.to_string() };
        Ok(Text(text))
    }
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RunVisitor)
    }
}

struct RunVisitor;

impl<'de> Visitor<'de> for RunVisitor {
    type Value = Run;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of arguments, or a text for `sh`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Run, E> {
        Ok(Run::Shell(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Run, A::Error> {
        let mut words = Vec::new();
        while let Some(Text(word)) = items.next_element()? {
            words.push(word);
        }
        Ok(Run::Arguments(words))
    }
}

impl Serialize for Run {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Run::Shell(text) => serializer.serialize_str(text),
            Run::Arguments(words) => {
                let mut list = serializer.serialize_seq(Some(words.len()))?;
                words.iter().try_for_each(|word| list.serialize_element(word))?;
                list.end()
            }
        }
    }
}

impl JsonSchema for Run {
    fn schema_name() -> Cow<'static, str> {
        "Run".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "array", "minItems": 1, "items": { "type": ["string", "number", "boolean"] } }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn placeholders_are_told_from_other_braces() {
        let text = |t| Piece::Text(t);
        for (written, expected) in [
            ("", vec![]),
            ("{inputs.a}", vec![Piece::Input("a")]),
            (
                "--x={inputs.a-b}/{outputs.c_1}.",
                vec![text("--x="), Piece::Input("a-b"), text("/"), Piece::Output("c_1"), text(".")],
            ),
            ("{print $1} {\"a\": {}} {a.b} {{inputs", vec![text("{print $1} {\"a\": {}} {a.b} {{inputs")]),
            ("{{inputs.a}}", vec![text("{"), Piece::Input("a"), text("}")]),
            ("{input.a}{Outputs.b}", vec![Piece::Misspelt("{input.a}"), Piece::Misspelt("{Outputs.b}")]),
            ("{inputs.a b}", vec![Piece::Misspelt("{inputs.a b}")]),
        ] {
            assert_eq!(pieces(written), expected, "{written}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_quoted_word_is_the_text_to_the_shell() {
        for text in ["", "a b", "it's", "$HOME `x` \"y\"", "\\", "-n", "*", "a\nb", "é"] {
            let script = format!("printf %s {}", quote(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[{}a.inputs ]{0,30}") {
            let whole: String = pieces(&text).into_iter().map(|piece| match piece {
                Piece::Text(text) | Piece::Misspelt(text) => text.to_owned(),
                Piece::Input(name) => format!("{{inputs.{name}}}"),
                Piece::Output(name) => format!("{{outputs.{name}}}"),
            }).collect();
            prop_assert_eq!(whole, text);
        }
    }
}
