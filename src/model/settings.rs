//! The fields of a `config.json`. Families of encoders call the same thing by different names, so fields are asked for by all of them.

use std::path::Path;

use serde_json::{Map, Value};

use super::config::{ModelError, read_json};

/// Larger sizes than this are mistakes.
const LARGEST: u64 = 1 << 24;

/// See the [module](self). Messages name the field.
#[derive(Debug, Clone)]
pub struct Settings {
    fields: Map<String, Value>,
}

impl Settings {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// The file is missing or is no JSON object.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        Ok(Settings { fields: read_json(path)? })
    }

    /// The first of `names` that is set.
    fn find(&self, names: &[&'static str]) -> Option<(&'static str, &Value)> {
        names.iter().find_map(|name| self.fields.get(*name).filter(|value| !value.is_null()).map(|value| (*name, value)))
    }

    fn number<T>(&self, names: &[&'static str], what: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
        let Some((name, value)) = self.find(names) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| format!("`{name}` is {value}, which is not {what}"))
    }

    /// A size: a whole number from 1.
    ///
    /// # Errors
    /// It is missing or no size.
    pub fn size(&self, names: &[&'static str]) -> Result<usize, String> {
        match self.count(names)? {
            Some(0) => Err(format!("`{}` is 0", self.find(names).map_or("", |(name, _)| name))),
            Some(size) => Ok(size),
            None => Err(format!("`{}` is missing", names.first().copied().unwrap_or_default())),
        }
    }

    /// A whole number from 0; `None` when it is not set.
    ///
    /// # Errors
    /// It is no such number.
    pub fn count(&self, names: &[&'static str]) -> Result<Option<usize>, String> {
        let read = |value: &Value| value.as_u64().filter(|&n| n <= LARGEST).map(|n| n as usize);
        self.number(names, &format!("a whole number from 0 to {LARGEST}"), read)
    }

    /// A number that is not negative, or `default`.
    ///
    /// # Errors
    /// It is no such number.
    pub fn positive(&self, names: &[&'static str], default: f32) -> Result<f32, String> {
        let read = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x >= 0.0);
        Ok(self.number(names, "a number from 0", read)?.unwrap_or(default))
    }

    /// A probability below 1, or `default`.
    ///
    /// # Errors
    /// It is no such number.
    pub fn probability(&self, names: &[&'static str], default: f32) -> Result<f32, String> {
        let read = |value: &Value| value.as_f64().map(|x| x as f32).filter(|x| (0.0..1.0).contains(x));
        Ok(self.number(names, "a number from 0 to below 1", read)?.unwrap_or(default))
    }

    /// `true` or `false`, or `default`.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, String> {
        Ok(self.number(&[name], "`true` or `false`", Value::as_bool)?.unwrap_or(default))
    }

    /// A text, or `default`.
    ///
    /// # Errors
    /// It is no text.
    pub fn text(&self, names: &[&'static str], default: &str) -> Result<String, String> {
        let read = |value: &Value| value.as_str().map(str::to_owned);
        Ok(self.number(names, "a text", read)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A list of texts; `None` when it is not set.
    ///
    /// # Errors
    /// It is no list of texts.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>, String> {
        let read = |value: &Value| value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect();
        self.number(&[name], "a list of texts", read)
    }

    /// The fields of the object `name`; none when it is not set.
    ///
    /// # Errors
    /// It is no object.
    pub fn object(&self, name: &'static str) -> Result<Settings, String> {
        let read = |value: &Value| value.as_object().cloned();
        Ok(Settings { fields: self.number(&[name], "an object", read)?.unwrap_or_default() })
    }

    /// Whether any of `names` is set.
    pub fn has(&self, names: &[&'static str]) -> bool {
        self.find(names).is_some()
    }

    /// Refuses any other value of `name` than `only`, which is what a missing field means.
    ///
    /// # Errors
    /// It has another value.
    pub fn expect(&self, name: &'static str, only: impl Into<Value>) -> Result<(), String> {
        let (only, bare) = (only.into(), |value: &Value| value.to_string().trim_matches('"').to_owned());
        let same = |value: &Value| *value == only || value.as_f64().is_some_and(|x| only.as_f64() == Some(x));
        match self.find(&[name]) {
            Some((_, value)) if !same(value) => {
                Err(format!("`{name}` `{}` is not supported; only `{}` is", bare(value), bare(&only)))
            }
            _ => Ok(()),
        }
    }
}

/// The sizes that all encoders have.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub vocabulary: usize,
    /// The length of a token vector.
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    /// Between the two linear layers that follow attention.
    pub inner: usize,
}

impl Sizes {
    /// Reads them by all of their names.
    ///
    /// # Errors
    /// One is missing or senseless; the message names it.
    pub fn read(settings: &Settings) -> Result<Self, String> {
        let sizes = Sizes {
            vocabulary: settings.size(&["vocab_size"])?,
            hidden: settings.size(&["hidden_size", "dim", "n_embd"])?,
            layers: settings.size(&["num_hidden_layers", "n_layers", "n_layer"])?,
            heads: settings.size(&["num_attention_heads", "n_heads", "n_head"])?,
            inner: settings.size(&["intermediate_size", "hidden_dim", "n_inner"])?,
        };
        if !sizes.hidden.is_multiple_of(sizes.heads) {
            return Err(format!("`hidden_size` {} is not a multiple of `num_attention_heads` {}", sizes.hidden, sizes.heads));
        }
        Ok(sizes)
    }

    /// The length of a head's part of a token vector.
    pub fn width(&self) -> usize {
        self.hidden / self.heads
    }

    /// What products of queries and keys are multiplied by: 1/√width.
    pub fn scale(&self) -> f32 {
        1.0 / (self.width() as f32).sqrt()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn settings(value: Value) -> Settings {
        Settings { fields: value.as_object().unwrap().clone() }
    }

    #[test]
    fn fields_go_by_several_names() {
        let s = settings(
            json!({ "n_embd": 8, "hidden_size": null, "eps": 1e-5, "act": "gelu", "on": true, "layers": ["a"], "o": { "x": 1 } }),
        );
        assert_eq!(s.size(&["hidden_size", "n_embd"]), Ok(8));
        assert_eq!(s.count(&["absent"]), Ok(None));
        assert_eq!((s.positive(&["eps"], 0.0), s.positive(&["none"], 0.5)), (Ok(1e-5), Ok(0.5)));
        assert_eq!((s.flag("on", false), s.flag("off", false)), (Ok(true), Ok(false)));
        assert_eq!(s.texts("layers"), Ok(Some(vec!["a".into()])));
        assert_eq!(s.object("o").unwrap().size(&["x"]), Ok(1));
        assert!(s.expect("act", "gelu").is_ok() && s.expect("none", false).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let s = settings(json!({ "a": 0, "b": -1, "c": "x", "d": 1.5, "e": 1e300, "p": 1.0 }));
        insta::assert_snapshot!(s.size(&["a"]).unwrap_err(), @"`a` is 0");
        insta::assert_snapshot!(s.size(&["first", "second"]).unwrap_err(), @"`first` is missing");
        insta::assert_snapshot!(s.size(&["b"]).unwrap_err(), @"`b` is -1, which is not a whole number from 0 to 16777216");
        insta::assert_snapshot!(s.flag("c", true).unwrap_err(), @r#"`c` is "x", which is not `true` or `false`"#);
        insta::assert_snapshot!(s.positive(&["e"], 0.0).unwrap_err(), @"`e` is 1e+300, which is not a number from 0");
        insta::assert_snapshot!(s.probability(&["p"], 0.0).unwrap_err(), @"`p` is 1.0, which is not a number from 0 to below 1");
        insta::assert_snapshot!(s.expect("c", "y").unwrap_err(), @"`c` `x` is not supported; only `y` is");
        insta::assert_snapshot!(s.expect("d", 1.0).unwrap_err(), @"`d` `1.5` is not supported; only `1.0` is");
    }
}
