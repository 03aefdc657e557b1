//! Lists of values from the command line, and values written back for it.

use serde_json::{Map, Value};

use super::problem::{PipelineError, Problems, Source};
use super::yaml::{self, Content, Yaml};
use super::{Override, scalar};

/// One value of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub value: Value,
    /// How it is written when it is a scalar without quotes.
    pub plain: Option<String>,
}

/// Reads the list that starts at byte `at` of `argument`, behind the `=` of `PATH=VALUE,VALUE`: YAML scalars, `[…]` and `{…}` with commas
/// between them. Messages call the argument `name`.
///
/// # Errors
/// It is not YAML, or a value is none that a pipeline can have.
pub fn values(argument: &str, at: usize, name: &str) -> Result<Vec<Listed>, PipelineError> {
    // What is read is a YAML list; its first bracket stands where the `=` is, its last one behind the end.
    let start = at.saturating_sub(1);
    let shown = format!("{argument} ");
    let mut problems = Problems::new(vec![Source::new(name, &shown)]);
    let list = format!("[{}]", argument.get(at..).unwrap_or_default());
    let read = yaml::parse(&list, 0, start, &mut problems);
    let items = match read.map(|yaml| yaml.content) {
        Some(Content::Sequence(items)) if problems.is_empty() => items,
        _ => return Err(problems.into_error()),
    };
    let listed = |yaml: Yaml| {
        let quoted = shown.get(yaml.span.start..).is_some_and(|text| text.starts_with(['"', '\'']));
        let plain = match &yaml.content {
            Content::Scalar { text, .. } if !quoted => Some(text.clone()),
            _ => None,
        };
        Listed { value: value_of(yaml), plain }
    };
    Ok(items.into_iter().map(listed).collect())
}

fn value_of(yaml: Yaml) -> Value {
    match yaml.content {
        Content::Scalar { value, .. } => value,
        Content::Sequence(items) => Value::Array(items.into_iter().map(value_of).collect()),
        Content::Mapping(entries) => {
            Value::Object(entries.into_iter().map(|entry| (entry.key, value_of(entry.value))).collect::<Map<_, _>>())
        }
    }
}

impl Override {
    /// A value as it stands behind the `=` of an override: a text without quotes where it is read as that text, else JSON, which is
    /// YAML; small numbers as people write them.
    pub fn written(value: &Value) -> String {
        let plain = |text: &&String| {
            text.trim() == text.as_str()
                && !text.starts_with(['[', '{', '"', '\''])
                && text.chars().all(|c| scalar::is_printable(c) && c != '\n')
                && scalar::resolve(text).is_ok_and(|value| value.is_string())
        };
        match value {
            Value::String(text) => Some(text).filter(plain).cloned().unwrap_or_else(|| value.to_string()),
            value => crate::stage::reference::written(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(argument: &str) -> Result<Vec<Listed>, PipelineError> {
        values(argument, argument.find('=').unwrap() + 1, "--over")
    }

    #[test]
    fn a_list_is_yaml() {
        let values = |argument| -> Vec<Value> { read(argument).unwrap().into_iter().map(|l| l.value).collect() };
        assert_eq!(values("lr=1e-5, 3e-5"), [json!(1e-5), json!(3e-5)]);
        assert_eq!(values("x=no,'7',true,~"), [json!("no"), json!("7"), json!(true), json!(null)]);
        let losses = values("loss={name: triplet, margin: 5},{name: triplet, distance: cosine}");
        assert_eq!(losses, [json!({"name": "triplet", "margin": 5}), json!({"name": "triplet", "distance": "cosine"})]);
        assert_eq!(values("at=[1,3],[5]"), [json!([1, 3]), json!([5])]);
        let plain: Vec<Option<String>> = read("s=1..5,'1..5',[1]").unwrap().into_iter().map(|l| l.plain).collect();
        assert_eq!(plain, [Some("1..5".into()), None, None]);
    }

    #[test]
    fn what_is_no_list_is_pointed_at() {
        let message = |argument| read(argument).unwrap_err().to_string();
        insta::assert_snapshot!(message("loss={name: triplet"), @"--over:1:20: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'");
        insta::assert_snapshot!(message("x=1,2],3"), @"--over:1:7: this is not YAML: did not find expected <document start>");
        insta::assert_snapshot!(message("x=1,.inf"), @"--over:1:5: `.inf` is no number that can be used");
        insta::assert_snapshot!(message("lr=${params.x}"), @"--over:1:5: this is not YAML: while parsing a flow sequence, expected ',' or ']'");
        insta::assert_snapshot!(read("loss={name: triplet,, margin: 5}").unwrap_err().render(false), @"
         × this is not YAML: while parsing a node, did not find expected node content
          ╭─[--over:1:21]
        1 │ loss={name: triplet,, margin: 5}
          ·                     ─
          ╰────
         help: check the indentation, the colons and the quotes here and in the line above
        ");
    }

    #[test]
    fn values_are_written_as_overrides_read_them() {
        let texts = ["plain", " blank ", "5", "true", "", "[x]", "a b: c", "\"", "line\nbreak", "\u{1b}", "ü", "x # y", "~"];
        let values = texts.iter().map(|t| json!(t));
        let values =
            values.chain([json!(3e-5), json!(1.0), json!(-7), json!(null), json!([1, "a"]), json!({"a": {"b": [true]}})]);
        for value in values {
            let file = "name: x\nparams: { a: 0 }\nstages: { docs: { uses: load, with: { path: x } } }\n";
            let set = Override::parse(&format!("params.a={}", Override::written(&value))).unwrap();
            let pipeline =
                crate::pipeline::parse(file, std::path::Path::new("a.yaml"), &[set], &crate::stage::Allowed::anywhere())
                    .map_err(|e| e.to_string())
                    .unwrap();
            assert_eq!(pipeline.parameters["a"], value);
        }
    }
}
