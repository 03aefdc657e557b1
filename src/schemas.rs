//! The JSON Schemas that are shipped in `schemas/`: generated from the Rust types, so that they cannot say anything else.

use schemars::{Schema, schema_for};
use serde_json::Value;

use crate::run::RunRecord;
use crate::sweep::SweepRecord;

/// File name → the schema as text.
pub fn all() -> Vec<(&'static str, String)> {
    let mut schemas = crate::pipeline::schemas();
    schemas.push(("run.schema.json", record(&schema_for!(RunRecord), "retune run record")));
    schemas.push(("sweep.schema.json", record(&schema_for!(SweepRecord), "retune sweep record")));
    schemas.into_iter().map(|(file, schema)| (file, format!("{schema:#}\n"))).collect()
}

fn record(schema: &Schema, title: &str) -> Value {
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".into(), Value::from(title));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn shipped_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let stale: Vec<&str> = all()
            .into_iter()
            .filter(|(file, text)| std::fs::read_to_string(folder.join(file)).ok().as_ref() != Some(text))
            .map(|(file, _)| file)
            .collect();
        assert!(stale.is_empty(), "stale: {stale:?}; renew them with `cargo run -- schema --write schemas`");
    }
}
