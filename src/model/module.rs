//! The modules that may follow pooling, as `modules.json` lists them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::activation::Activation;
use super::builder::Builder;
use super::config::{ModelError, read_json};
use super::settings::Settings;
use crate::onnx::Value as GraphValue;

/// A module behind pooling.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Its folder, which begins the names of its weights too: `2_Dense`.
    pub folder: String,
    pub kind: Kind,
}

/// What a module does to the vector.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A linear layer and an activation.
    Dense(Dense),
    /// Layer normalization of vectors of this length.
    LayerNorm(usize),
    /// To length 1.
    Normalize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    from: usize,
    to: usize,
    bias: bool,
    activation: Activation,
    /// Whether the input is added to the result, through a linear layer of its own where the lengths differ.
    residual: bool,
    /// Its `config.json`, which is written as it was read.
    config: Map<String, Value>,
}

/// The epsilon of `torch.nn.LayerNorm`, which the module's configuration does not name.
const EPSILON: f32 = 1e-5;

impl Module {
    /// Reads the module of type `kind` in `folder` of the directory `base`; `None` for one that does nothing when a model is used.
    ///
    /// # Errors
    /// The type is not known, or its configuration is wrong or not supported; the message names file and field.
    pub fn read(kind: &str, base: &Path, folder: &str, modules: &Path) -> Result<Option<Self>, ModelError> {
        let config = base.join(folder).join("config.json");
        let kind = match kind {
            "Normalize" => Kind::Normalize,
            "Dropout" => return Ok(None),
            "Dense" => Kind::Dense(Dense::read(&config)?),
            "LayerNorm" => {
                let size = Settings::read(&config)?.size(&["dimension"]);
                Kind::LayerNorm(size.map_err(|message| ModelError::invalid(&config, message))?)
            }
            other => {
                let known = "`Transformer`, `Pooling`, `Dense`, `LayerNorm`, `Dropout` and `Normalize` are";
                return Err(ModelError::unsupported(modules, format!("module `{other}` is not supported; {known}")));
            }
        };
        Ok(Some(Module { folder: folder.to_owned(), kind }))
    }

    /// Its name in `modules.json`.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Dense(_) => "Dense",
            Kind::LayerNorm(_) => "LayerNorm",
            Kind::Normalize => "Normalize",
        }
    }

    /// The length of its result for vectors of length `width`; `None` when it does not take these.
    pub fn width(&self, width: usize) -> Option<usize> {
        match &self.kind {
            Kind::Dense(dense) => (dense.from == width).then_some(dense.to),
            Kind::LayerNorm(size) => (*size == width).then_some(width),
            Kind::Normalize => Some(width),
        }
    }

    /// Its `config.json`.
    pub fn config(&self) -> Value {
        match &self.kind {
            Kind::Dense(dense) => Value::Object(dense.config.clone()),
            Kind::LayerNorm(size) => json!({ "dimension": size }),
            Kind::Normalize => json!({}),
        }
    }

    /// `x` `[rows, width]` → `[rows, …]`.
    pub(super) fn build(&self, b: &Builder, x: GraphValue) -> GraphValue {
        let folder = &self.folder;
        match &self.kind {
            Kind::Normalize => b.g.normalize(x),
            Kind::LayerNorm(_) => b.layer_norm(&format!("{folder}.norm"), x, EPSILON),
            Kind::Dense(dense) => {
                let linear = b.linear_if(dense.bias, &format!("{folder}.linear"), x, dense.from, dense.to);
                let result = dense.activation.apply(b.g, linear);
                match (dense.residual, dense.from == dense.to) {
                    (false, _) => result,
                    (true, true) => b.g.add(result, x),
                    (true, false) => b.g.add(result, b.linear_unbiased(&format!("{folder}.residual"), x, dense.from, dense.to)),
                }
            }
        }
    }
}

impl Dense {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let settings = Settings::read(path)?;
        let read = || -> Result<Self, String> {
            settings.expect("module_input_name", "sentence_embedding")?;
            settings.expect("module_output_name", "sentence_embedding")?;
            Ok(Dense {
                from: settings.size(&["in_features"])?,
                to: settings.size(&["out_features"])?,
                bias: settings.flag("bias", true)?,
                activation: Activation::of_torch(&settings.text(&["activation_function"], "torch.nn.modules.activation.Tanh")?)?,
                residual: settings.flag("use_residual", false)?,
                config: Map::new(),
            })
        };
        let dense = read().map_err(|message| ModelError::unsupported(path, message))?;
        Ok(Dense { config: read_json(path)?, ..dense })
    }
}
