//! The reference page of the kinds of stage, from their ports and the schemas of their parameters.

use std::fmt::Write as _;

use serde_json::Value;

use super::StageKind;

/// The page of every kind in `kinds`, as Markdown.
pub fn page(kinds: &[&StageKind]) -> String {
    let mut text = String::from(
        "# Stages\n\nEvery kind of stage: what `uses:` names, its inputs and outputs, and what stands in `with:`. This page is made by \
         `retune stages --markdown` from the program itself.\n\n",
    );
    for kind in kinds {
        let _ = writeln!(text, "- [`{0}`](#{0}): {1}", kind.name, kind.summary);
    }
    kinds.iter().for_each(|kind| text += &format!("\n{}", section(kind)));
    text
}

/// The section of one kind, as Markdown.
pub fn section(kind: &StageKind) -> String {
    let schema = Value::from((kind.schema)());
    let mut text = format!("## {}\n\n{}\n", kind.name, words(&schema));
    if !kind.inputs.is_empty() {
        text += "\n| input | kind | |\n|---|---|---|\n";
        for port in kind.inputs {
            let optional = if port.required { "" } else { " (optional)" };
            let _ = writeln!(text, "| `{}` | {}{optional} | {} |", port.name, port.kind, port.doc);
        }
    }
    if kind.declared.is_some() {
        text += "\nInputs: any names, any kinds of artifact. Outputs: those that `outputs` declares.\n";
    } else {
        text += "\n| output | kind | file | |\n|---|---|---|---|\n";
    }
    for port in kind.outputs {
        let _ = writeln!(text, "| `{}` | {} | `{}` | {} |", port.name, port.kind, port.file, port.doc);
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty()) {
        text += "\n| parameter | type | default | |\n|---|---|---|---|\n";
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, property) in properties {
            parameter(&schema, name, property, required.contains(&name.as_str()), &[], &mut text);
        }
    }
    text
}

/// A value on one line, as people write it: texts without quotes, small numbers like `2e-5`.
pub fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if x != 0.0 && x.abs() < 1e-3 => format!("{x:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// A line of the table, and lines for the parts of an object. What lies `inside` a definition of its own kind, such as a loss that goes around a loss,
/// has no lines of its own.
fn parameter(schema: &Value, name: &str, property: &Value, required: bool, inside: &[&str], text: &mut String) {
    let default = match property.get("default") {
        Some(Value::Null) | None if required => "required".to_owned(),
        Some(Value::Null) | None => String::new(),
        Some(value) => format!("`{}`", written(value)),
    };
    let (kind, description) = (type_of(schema, property), cell(&words(property)));
    let _ = writeln!(text, "| `{name}` | {} | {} | {description} |", cell(&kind), cell(&default));
    let target = property["$ref"].as_str().unwrap_or_default();
    if inside.contains(&target) {
        return;
    }
    let inside = [inside, &[target]].concat();
    for variant in resolve(schema, property)["oneOf"].as_array().into_iter().flatten() {
        // The variants of a tagged object, such as the losses: each by its own settings.
        let variant = merged(schema, variant);
        let Some(properties) = variant["properties"].as_object() else { continue };
        for (field, property) in properties {
            if let Some(tag) = property["const"].as_str() {
                let _ = writeln!(text, "| `{name}.{field}: {tag}` | | | {} |", cell(&words(&variant)));
            }
        }
        for (field, property) in properties.iter().filter(|(_, p)| !p["const"].is_string()) {
            let required = variant["required"].as_array().is_some_and(|required| required.iter().any(|name| name == field));
            parameter(schema, &format!("{name}.{field}"), property, required, &inside, text);
        }
    }
}

/// A tagged variant has its fields behind a reference.
fn merged(schema: &Value, variant: &Value) -> Value {
    let mut whole = variant.clone();
    let base = resolve(schema, variant).clone();
    if let (Some(whole), Some(base)) = (whole.as_object_mut(), base.as_object()) {
        for (key, value) in base {
            match (whole.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(ours), Some(theirs)) => theirs.iter().for_each(|(k, v)| {
                    ours.insert(k.clone(), v.clone());
                }),
                _ => {
                    whole.entry(key.clone()).or_insert(value.clone());
                }
            }
        }
    }
    whole
}

/// What a reference refers to.
fn resolve<'s>(schema: &'s Value, part: &'s Value) -> &'s Value {
    let target = part["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/"));
    target.and_then(|name| schema["$defs"].get(name)).unwrap_or(part)
}

fn type_of(schema: &Value, part: &Value) -> String {
    let whole = resolve(schema, part);
    let choices = |key: &str| -> Vec<String> {
        let all = whole[key].as_array().into_iter().flatten();
        let names = all.map(|v| v["const"].as_str().map_or_else(|| type_of(schema, v), |c| format!("`{c}`")));
        let mut names: Vec<String> = names.filter(|n| n != "null").collect();
        names.dedup();
        names
    };
    let simple = |name: &str| match name {
        "array" => format!("list of {}", type_of(schema, &whole["items"])),
        "object" => "mapping".to_owned(),
        other => other.to_owned(),
    };
    match (&whole["enum"], &whole["type"]) {
        (Value::Array(values), _) => {
            values.iter().map(|v| format!("`{}`", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ")
        }
        _ if whole["oneOf"].is_array() => choices("oneOf").join(", "),
        _ if whole["anyOf"].is_array() => choices("anyOf").join(" or "),
        (_, Value::Array(types)) => {
            types.iter().filter_map(Value::as_str).filter(|t| *t != "null").map(simple).collect::<Vec<_>>().join(" or ")
        }
        (_, Value::String(name)) => simple(name),
        _ => "any".to_owned(),
    }
}

fn words(part: &Value) -> String {
    part["description"].as_str().unwrap_or_default().to_owned()
}

/// Fit for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::registry::KINDS;

    #[test]
    fn the_page_in_docs_is_that_of_the_program() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stages.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == page(KINDS), "docs/stages.md is stale; renew it with `cargo run -- stages --markdown > docs/stages.md`");
    }

    #[test]
    fn every_parameter_is_explained() {
        for kind in KINDS {
            let schema = Value::from((kind.schema)());
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let text = words(property) + &words(resolve(&schema, property));
                assert!(!text.is_empty(), "parameter `{name}` of `{}` has no description", kind.name);
            }
        }
    }
}
