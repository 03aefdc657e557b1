//! The JSON Schemas of pipelines and stage definitions, generated from the kinds of stage and their types. Editors complete and check pipelines with it (`# yaml-language-server: $schema=…` in a file's first line).

use serde_json::{Map, Value, json};

use super::declaration::TYPES;
use super::document::{LONGEST_ID, MOST_STAGES};
use crate::stage::{OutputPort, Port, StageKind, registry};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Names of parameters, inputs and outputs.
const WORD: &str = "^[A-Za-z0-9_-]+$";
/// Names of stages: of those in a definition, and of those of a matrix, only where a pipeline is written out.
const STAGE: &str = "^[A-Za-z0-9_-]+(\\[[^\\[\\]/]+\\])?(/[A-Za-z0-9_-]+(\\[[^\\[\\]/]+\\])?)*$";
/// A stage, some of its combinations, or one of its outputs.
const SOURCE: &str = "^[A-Za-z0-9_-]+(\\[[^\\[\\]/]+\\])?(/[A-Za-z0-9_-]+(\\[[^\\[\\]/]+\\])?)*(\\.[A-Za-z0-9_-]+)?$";
/// The file of a definition or of a pipeline.
const PATH: &str = "^\\.\\.?/.*\\.ya?ml$";
/// The definition of a value that is a reference.
const REFERENCE: &str = "#/$defs/reference";
/// Formats that schemars writes and JSON Schema does not know.
const RUST_FORMATS: &[&str] =
    &["float", "double", "int", "int8", "int16", "int32", "int64", "uint", "uint8", "uint16", "uint32", "uint64"];

/// File name and content of the schemas of what users write.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![("pipeline.schema.json", pipeline()), ("stage.schema.json", definition())]
}

/// Everything that stages are made of. What a stage may have depends on the kind that `uses` names.
fn definitions() -> Map<String, Value> {
    let mut definitions = Map::new();
    definitions.insert("reference".into(), reference());
    definitions.insert("stage".into(), stage());
    let mut complete = Vec::new();
    for kind in registry::KINDS {
        let mut with = with(kind, &mut definitions);
        let required = with.as_object_mut().and_then(|with| with.remove("required"));
        complete.push(when(kind, required_of(kind, required)));
        definitions.insert(format!("stage.{}", kind.name), stage_of(kind));
        definitions.insert(format!("with.{}", kind.name), with);
    }
    definitions.insert("complete".into(), json!({ "type": "object", "required": ["uses"], "allOf": complete }));
    definitions
}

/// The schema of a pipeline. One that extends another one need not say what that says.
fn pipeline() -> Value {
    let (part, stage) = (json!({ "$ref": "#/$defs/stage" }), whole_stage());
    json!({
        "$schema": DRAFT,
        "title": "Pipeline",
        "description": "A pipeline of retune: stages that feed each other.",
        "type": "object",
        "additionalProperties": false,
        "if": { "required": ["extends"] },
        "then": { "properties": { "stages": { "additionalProperties": { "anyOf": [part, { "type": "null" }] } } } },
        "else": { "required": ["stages"], "properties": { "stages": { "minProperties": 1, "additionalProperties": stage } } },
        "properties": {
            "name": {
                "description": "The name of the pipeline, a part of the names of its runs. Without it, the name of the file.",
                "type": ["string", "number"],
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
                "maxLength": 100
            },
            "description": { "description": "What the pipeline is for.", "type": "string" },
            "extends": {
                "description": "Another pipeline, relative to this file: this one has all of its parts, but for those that are given here. \
                                Mappings are laid over each other key by key, and a key set to `~` is taken out.",
                "type": "string",
                "pattern": PATH
            },
            "params": {
                "description": "Values that `with` refers to as `${params.NAME}`, and that `--set params.NAME=VALUE` replaces.",
                "type": ["object", "null"],
                "propertyNames": { "pattern": WORD, "maxLength": 100 }
            },
            "env": environment(),
            "remote": remote(),
            "matrix": matrix("Axes for every stage that refers to them with `${matrix.AXIS}`, and for the stages after it."),
            "stages": stages()
        },
        "$defs": definitions()
    })
}

/// The schema of a stage definition.
fn definition() -> Value {
    let kinds: Vec<&str> = super::definition::kinds().iter().map(|kind| kind.name()).collect();
    let kind = json!({ "description": "What the input carries.", "enum": kinds });
    let words = json!({ "pattern": WORD, "maxLength": 100 });
    let mut definition_stages = stages();
    definition_stages["minProperties"] = json!(1);
    definition_stages["additionalProperties"] = whole_stage();
    json!({
        "$schema": DRAFT,
        "title": "Stage definition",
        "description": "Stages that a pipeline of retune uses as one: `uses: ./stages/NAME.yaml`.",
        "type": "object",
        "additionalProperties": false,
        "required": ["stages"],
        "properties": {
            "description": { "description": "What the stages do together.", "type": "string" },
            "inputs": {
                "description": "The inputs, which the stages below name `inputs.NAME`.",
                "type": ["object", "null"],
                "propertyNames": words,
                "additionalProperties": {
                    "anyOf": [kind, {
                        "type": "object",
                        "additionalProperties": false,
                        "required": ["kind"],
                        "properties": {
                            "kind": kind,
                            "description": { "description": "What is expected.", "type": "string" },
                            "optional": { "description": "It may be left out.", "type": "boolean", "default": false },
                            "many": {
                                "description": "It takes any number of artifacts: a list, or all combinations of a matrix.",
                                "type": "boolean",
                                "default": false
                            }
                        }
                    }]
                }
            },
            "params": {
                "description": "The parameters, which the stages below name `${params.NAME}`. Those without a default must be given.",
                "type": ["object", "null"],
                "propertyNames": words,
                "additionalProperties": parameter()
            },
            "outputs": {
                "description": "The outputs: for each the stage below that yields it, as `STAGE` or `STAGE.OUTPUT`.",
                "type": ["object", "null"],
                "propertyNames": words,
                "additionalProperties": source()
            },
            "stages": definition_stages
        },
        "$defs": definitions()
    })
}

/// What a definition declares of a parameter.
fn parameter() -> Value {
    let types: Vec<Value> =
        TYPES.iter().map(|(name, _, words)| json!({ "const": name, "description": format!("The value is {words}.") })).collect();
    let fitting = TYPES.iter().filter(|(name, ..)| *name != "any").map(|(name, ..)| {
        let json_type = match *name {
            "list" => "array",
            "mapping" => "object",
            other => other,
        };
        let value = json!({ "anyOf": [{ "type": [json_type, "null"] }, { "$ref": REFERENCE }] });
        json!({
            "if": { "properties": { "type": { "const": name } }, "required": ["type"] },
            "then": { "properties": { "default": value, "choices": { "items": { "type": json_type } } } }
        })
    });
    let numeric = json!({ "properties": { "type": { "enum": ["integer", "number"] } }, "required": ["type"] });
    json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {
            "type": { "description": "What values it has.", "oneOf": types, "default": "any" },
            "default": { "description": "The value when none is given. `~` lets it be left without one." },
            "description": { "description": "What the parameter means.", "type": "string" },
            "choices": {
                "description": "The values that it may have.",
                "type": "array",
                "minItems": 1,
                "items": { "type": ["string", "number", "boolean"] }
            },
            "minimum": { "description": "The least value.", "type": "number" },
            "maximum": { "description": "The greatest value.", "type": "number" }
        },
        "dependentSchemas": { "minimum": numeric, "maximum": numeric },
        "allOf": fitting.collect::<Vec<_>>()
    })
}

/// A stage that has all it must have.
fn whole_stage() -> Value {
    json!({ "allOf": [{ "$ref": "#/$defs/stage" }, { "$ref": "#/$defs/complete" }] })
}

/// What holds for stages of one kind.
fn when(kind: &StageKind, then: Value) -> Value {
    json!({ "if": { "properties": { "uses": { "const": kind.name } }, "required": ["uses"] }, "then": then })
}

fn stages() -> Value {
    json!({
        "description": "The stages by name. They run in the order that their inputs ask for.",
        "type": ["object", "null"],
        "maxProperties": MOST_STAGES,
        "propertyNames": { "pattern": STAGE, "maxLength": LONGEST_ID }
    })
}

fn source() -> Value {
    json!({ "type": ["string", "integer"], "pattern": SOURCE })
}

/// One source, or several for an input that takes many: as a list, or as a mapping by labels.
fn sources() -> Value {
    json!({
        "anyOf": [
            source(),
            { "type": "array", "minItems": 1, "items": source() },
            { "type": "object", "minProperties": 1, "additionalProperties": source() }
        ]
    })
}

fn matrix(description: &str) -> Value {
    let combinations = |description: &str| {
        json!({
            "description": description,
            "type": ["array", "null"],
            "items": { "type": "object", "minProperties": 1, "propertyNames": { "pattern": WORD, "maxLength": 100 } }
        })
    };
    json!({
        "description": format!("{description} `with` refers to the values as `${{matrix.AXIS}}`."),
        "type": "object",
        "minProperties": 1,
        "propertyNames": { "pattern": WORD, "maxLength": 100 },
        "properties": {
            "include": combinations("Adds values of further axes to the combinations that have the rest; or combinations, where none has."),
            "exclude": combinations("Takes out the combinations that have all these values.")
        },
        "additionalProperties": {
            "description": "The values of an axis: a list, or a mapping of labels to values.",
            "anyOf": [
                { "type": "array", "minItems": 1 },
                { "type": "object", "minProperties": 1 },
                { "$ref": REFERENCE }
            ]
        }
    })
}

fn reference() -> Value {
    json!({
        "description": "A reference to a parameter, an environment variable or a value of the matrix: `${params.NAME}`, `${env.NAME}` or `${matrix.AXIS}`.",
        "type": "string",
        "pattern": "^\\$\\{.+\\}$"
    })
}

fn environment() -> Value {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 100 });
    json!({
        "description": "The environment variables that `with` refers to as `${env.NAME}`.",
        "anyOf": [
            { "type": "array", "items": name },
            {
                "type": "object",
                "propertyNames": name,
                "additionalProperties": {
                    "type": ["object", "null"],
                    "additionalProperties": false,
                    "properties": {
                        "default": {
                            "description": "The value when the variable is not set. The variable's value is read as the same type.",
                            "type": ["string", "number", "boolean"]
                        },
                        "secret": {
                            "description": "The value must not be stored: stages read it by the variable's name.",
                            "type": "boolean",
                            "default": false
                        }
                    }
                }
            },
            { "type": "null" }
        ]
    })
}

fn remote() -> Value {
    let url = "A folder, relative to this file, or `file:///…`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`. Without credentials: those come from the environment.";
    json!({
        "description": "Where results are shared with others: they are fetched from there before they are computed, and pushed afterwards. `--remote`, `--no-remote` and the environment variable `RETUNE_REMOTE` go before it.",
        "anyOf": [
            { "description": url, "type": "string" },
            {
                "type": "object",
                "additionalProperties": false,
                "required": ["url"],
                "properties": {
                    "url": { "description": url, "type": "string" },
                    "endpoint": {
                        "description": "The server of the bucket, where it is not the service's own: any that speaks S3.",
                        "type": "string",
                        "pattern": "^https?://"
                    },
                    "region": { "description": "The region of an S3 bucket. Without it, that of the environment, or `us-east-1`.", "type": "string" },
                    "allow_http": { "description": "The `endpoint` may be reached over plain HTTP.", "type": "boolean", "default": false },
                    "push": { "description": "What is computed is pushed. Without, results are only fetched.", "type": "boolean", "default": true }
                }
            },
            { "type": "null" }
        ]
    })
}

/// What all stages have in common, and the choice by kind.
fn stage() -> Value {
    let mut uses: Vec<Value> =
        registry::KINDS.iter().map(|kind| json!({ "const": kind.name, "description": kind.summary })).collect();
    uses.push(
        json!({ "type": "string", "pattern": PATH, "description": "The file of a stage definition, relative to this one." }),
    );
    let choice = registry::KINDS.iter().map(|kind| when(kind, json!({ "$ref": format!("#/$defs/stage.{}", kind.name) })));
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "uses": { "description": "The kind of the stage, or a stage definition.", "oneOf": uses },
            "inputs": {
                "description": "Where each input comes from: `STAGE` or `STAGE.OUTPUT`; `STAGE[AXIS=VALUE]` is one combination of a matrix, and `STAGE[*]` all of them, for an input that takes many.",
                "type": "object",
                "additionalProperties": sources()
            },
            "with": { "description": "The parameters of the stage.", "type": "object" },
            "freeze": {
                "description": "Use its last result whatever changed since, until `--force` computes it again.",
                "type": "boolean",
                "default": false
            },
            "matrix": matrix("One such stage, and one of each that comes after it, for every combination of these values."),
            "description": { "description": "What the stage is for.", "type": "string" }
        },
        "allOf": choice.collect::<Vec<_>>()
    })
}

/// What a stage of one kind must have, with the required keys of its `with`.
fn required_of(kind: &StageKind, with: Option<Value>) -> Value {
    let inputs: Vec<&str> = kind.inputs.iter().filter(|port| port.required).map(|port| port.name).collect();
    let with = with.and_then(|with| with.as_array().cloned()).unwrap_or_default();
    let mut keys = Vec::new();
    if !inputs.is_empty() {
        keys.push("inputs");
    }
    if !with.is_empty() {
        keys.push("with");
    }
    json!({ "required": keys, "properties": { "inputs": { "required": inputs }, "with": { "required": with } } })
}

/// What a stage of one kind may have.
fn stage_of(kind: &StageKind) -> Value {
    let description = format!("What `{}` works on: `STAGE` or `STAGE.OUTPUT` for each.", kind.name);
    let (outputs, inputs) = if kind.declared.is_some() {
        let names = json!({ "pattern": WORD, "maxLength": 100 });
        let inputs =
            json!({ "description": description, "type": "object", "propertyNames": names, "additionalProperties": sources() });
        ("those that `with.outputs` declares".to_owned(), inputs)
    } else {
        let ports: Map<String, Value> = kind.inputs.iter().map(|port| (port.name.to_owned(), input(port))).collect();
        let inputs = json!({ "description": description, "type": "object", "additionalProperties": false, "properties": ports });
        (kind.outputs.iter().map(output).collect::<Vec<_>>().join("\n"), inputs)
    };
    json!({
        "description": format!("{}\n\nOutputs:\n{outputs}", kind.summary),
        "properties": {
            "inputs": inputs,
            "with": { "$ref": format!("#/$defs/with.{}", kind.name) }
        }
    })
}

fn input(port: &Port) -> Value {
    let optional = if port.required { "" } else { ", may be left out" };
    let mut schema = if port.many { sources() } else { source() };
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".into(), json!(format!("{} ({}{optional})", port.doc, port.kind)));
    }
    schema
}

fn output(port: &OutputPort) -> String {
    format!("- `{}` ({}): {}", port.name, port.kind, port.doc)
}

/// The parameters of a kind. Their types' definitions join the others under names of their own.
fn with(kind: &StageKind, definitions: &mut Map<String, Value>) -> Value {
    let prefix = format!("with.{}.", kind.name);
    let mut schema = (kind.schema)().to_value();
    let own = schema.as_object_mut().and_then(|object| {
        object.remove("$schema");
        object.remove("title");
        object.remove("$defs")
    });
    adapt(&mut schema, &prefix);
    default_to_nothing(&mut schema);
    if let Some(Value::Object(own)) = own {
        for (name, mut definition) in own {
            adapt(&mut definition, &prefix);
            definitions.insert(format!("{prefix}{name}"), definition);
        }
    }
    schema
}

/// A parameter that may be left out, and has no value then, has that as its default.
fn default_to_nothing(schema: &mut Value) {
    let required: Vec<Value> = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if let Value::Object(property) = property
            && !required.contains(&json!(name))
        {
            property.entry("default").or_insert(Value::Null);
        }
    }
}

/// Points `$ref`s to the renamed definitions, and lets a reference stand for every value.
fn adapt(schema: &mut Value, prefix: &str) {
    let Value::Object(object) = schema else { return };
    if let Some(Value::String(target)) = object.get_mut("$ref")
        && let Some(name) = target.strip_prefix("#/$defs/")
    {
        *target = format!("#/$defs/{prefix}{name}");
    }
    if object.get("format").and_then(Value::as_str).is_some_and(|format| RUST_FORMATS.contains(&format)) {
        object.remove("format");
    }
    describe_choice(object);
    for key in ["oneOf", "anyOf", "allOf"] {
        object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(|branch| adapt(branch, prefix));
    }
    let mut values: Vec<&mut Value> = Vec::new();
    for (key, value) in object.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => values.extend(properties.values_mut()),
            ("prefixItems", Value::Array(items)) => values.extend(items),
            ("items" | "additionalProperties", value) => values.push(value),
            _ => {}
        }
    }
    for value in values {
        adapt(value, prefix);
        or_reference(value);
    }
}

/// The property that chooses between variants says what it chooses.
fn describe_choice(variant: &mut Map<String, Value>) {
    let Some(description) = variant.get("description").cloned() else { return };
    let properties = variant.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(|properties| properties.values_mut()).filter_map(Value::as_object_mut) {
        if property.contains_key("const") {
            property.entry("description").or_insert(description.clone());
        }
    }
}

/// The schema, or a reference, unless every text fits anyway; constants stay, because they choose between variants.
fn or_reference(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    let takes_text = match object.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        _ => false,
    };
    let limited = ["pattern", "enum", "format", "maxLength"].iter().any(|key| object.contains_key(*key));
    if object.contains_key("const") || takes_text && !limited {
        return;
    }
    let mut outer = Map::new();
    for key in ["description", "default", "examples", "deprecated"] {
        outer.extend(object.remove(key).map(|value| (key.to_owned(), value)));
    }
    let inner = Value::Object(std::mem::take(object));
    outer.insert("anyOf".into(), json!([inner, { "$ref": REFERENCE }]));
    *object = outer;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pointer_leads_somewhere() {
        fn visit(schema: &Value, whole: &Value) {
            if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
                assert!(whole.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
            match schema {
                Value::Object(object) => object.values().for_each(|value| visit(value, whole)),
                Value::Array(items) => items.iter().for_each(|value| visit(value, whole)),
                _ => {}
            }
        }
        for (_, schema) in schemas() {
            visit(&schema, &schema);
        }
    }

    /// What an editor shows of each key: conditions and what they only demand apart.
    fn undocumented(schema: &Value, whole: &Value, at: &str, found: &mut Vec<String>) {
        let described = |property: &Value| {
            let target = property.get("$ref").and_then(Value::as_str).map(|target| target.trim_start_matches('#'));
            let meant = target.and_then(|target| whole.pointer(target)).unwrap_or(property);
            meant.get("description").or(property.get("description")).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
        };
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.iter().filter(|(_, p)| !described(p)).map(|(key, _)| format!("{at}/{key}")));
                    // What a stage must have is said beside its parameters.
                    let kind = at.strip_prefix("/$defs/with.").and_then(registry::find).map(|kind| (kind.schema)().to_value());
                    let required = kind.as_ref().unwrap_or(schema).get("required").and_then(Value::as_array);
                    let required = required.cloned().unwrap_or_default();
                    let is_parameter = at.starts_with("/$defs/with.") && !at.contains("/properties/");
                    let lacks = |key: &String, p: &Value| !required.contains(&json!(key)) && p.get("default").is_none();
                    let lacking = properties.iter().filter(|(key, p)| is_parameter && lacks(key, p));
                    found.extend(lacking.map(|(key, _)| format!("{at}/{key} has no default")));
                }
                let parts = object
                    .iter()
                    .filter(|(key, _)| !["if", "then", "else", "dependentSchemas", "complete"].contains(&key.as_str()));
                parts.for_each(|(key, value)| undocumented(value, whole, &format!("{at}/{key}"), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| undocumented(item, whole, &format!("{at}/{i}"), found))
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_is_documented_with_its_default() {
        for (file, schema) in schemas() {
            let mut found = Vec::new();
            undocumented(&schema, &schema, "", &mut found);
            assert!(found.is_empty(), "{file}: {found:#?}");
        }
    }

    #[test]
    fn a_reference_can_stand_for_every_value_but_the_one_that_chooses() {
        let schema = pipeline();
        let at = |pointer: &str| schema.pointer(pointer).unwrap().to_string();
        insta::assert_snapshot!(at("/$defs/with.train/properties/lr"), @r##"{"anyOf":[{"type":"number"},{"$ref":"#/$defs/reference"}],"default":0.00002,"description":"Peak learning rate."}"##);
        insta::assert_snapshot!(at("/$defs/with.train.Loss/oneOf/0/properties/name"), @r#"{"const":"triplet","description":"Triplet loss, `mean relu(d(anchor, positive) − d(anchor, negative) + margin)`, as `TripletLoss` of sentence-transformers 6.2.","type":"string"}"#);
        insta::assert_snapshot!(at("/$defs/with.train/properties/base_model/type"), @r#"["string","null"]"#);
    }
}
