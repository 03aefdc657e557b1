//! A pipeline written out: every default filled in, every reference replaced, every edge named in full.

use serde_json::{Map, Value};

use super::interpolate::escape;
use super::{Node, Pipeline, Variable, scalar};

/// Flow collections up to this length stand on one line.
const LONGEST_FLOW: usize = 100;

impl Pipeline {
    /// The pipeline as YAML that, in the same folder, is read as the same pipeline again (`pipeline.lock.yaml`).
    pub fn resolved(&self) -> String {
        let mut lines = vec![format!("name: {}", scalar_text(&self.name))];
        if let Some(description) = &self.description {
            lines.push(format!("description: {}", quoted(description)));
        }
        if !self.parameters.is_empty() {
            lines.push("params:".into());
            let parameters = self.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            mapping(&parameters, 1, &mut lines);
        }
        if !self.environment.is_empty() {
            lines.push("env:".into());
            lines.extend(self.environment.iter().map(declaration));
        }
        lines.push("stages:".into());
        for stage in &self.stages {
            lines.push(format!("  {}:", key(&stage.id)));
            if let Some(description) = &stage.description {
                lines.push(format!("    description: {}", quoted(description)));
            }
            lines.push(format!("    uses: {}", scalar_text(stage.kind.name)));
            if !stage.inputs.is_empty() {
                lines.push("    inputs:".into());
            }
            self.inputs(stage, &mut lines);
            if stage.freeze {
                lines.push("    freeze: true".into());
            }
            if let Value::Object(with) = &stage.configured.parameters
                && !with.is_empty()
            {
                lines.push("    with:".into());
                mapping(with, 3, &mut lines);
            }
        }
        lines.push(String::new());
        lines.join("\n")
    }

    /// The edges of a stage; those of a port that takes many as a mapping by their labels.
    fn inputs(&self, stage: &Node, lines: &mut Vec<String>) {
        let mut many = "";
        for edge in &stage.inputs {
            let from = self.stages.get(edge.from).map_or("", |from| &from.id);
            let source = scalar_text(&format!("{from}.{}", edge.output));
            let Some((port, label)) = edge.port.split_once('[') else {
                lines.push(format!("      {}: {source}", key(&edge.port)));
                continue;
            };
            if many != port {
                lines.push(format!("      {}:", key(port)));
                many = port;
            }
            lines.push(format!("        {}: {source}", key(label.strip_suffix(']').unwrap_or(label))));
        }
    }
}

fn declaration(variable: &Variable) -> String {
    let mut fields = Vec::new();
    if let Some(default) = &variable.default {
        // A default is no place for references, so nothing is escaped.
        let written = if let Value::String(text) = default { scalar_text(text) } else { default.to_string() };
        fields.push(format!("default: {written}"));
    }
    if variable.secret {
        fields.push("secret: true".into());
    }
    let fields = if fields.is_empty() { "{}".into() } else { format!("{{ {} }}", fields.join(", ")) };
    format!("  {}: {fields}", key(&variable.name))
}

fn mapping(map: &Map<String, Value>, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    for (name, value) in map {
        let flow = flow(value);
        match value {
            Value::Object(inner) if !inner.is_empty() && flow.len() > LONGEST_FLOW => {
                lines.push(format!("{indent}{}:", key(name)));
                mapping(inner, depth + 1, lines);
            }
            Value::Array(items) if flow.len() > LONGEST_FLOW => {
                lines.push(format!("{indent}{}:", key(name)));
                lines.extend(items.iter().map(|item| format!("{indent}  - {}", self::flow(item))));
            }
            _ => lines.push(format!("{indent}{}: {flow}", key(name))),
        }
    }
}

/// On one line, with the texts escaped for interpolation.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar_text(&escape(text)),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".into(),
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(name, value)| format!("{}: {}", key(name), flow(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn key(name: &str) -> String {
    scalar_text(name)
}

/// Plain if nothing can misread it, else in double quotes.
fn scalar_text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | '@' | '+'))
        && scalar::resolve(text).is_ok_and(|value| value.is_string());
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if scalar::is_printable(c) && !matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}') => out.push(c),
            c => out += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    out + "\""
}
