//! Sessions: a model in memory, run on ONNX Runtime.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{SessionInputValue, SessionInputs};
use ort::value::{DynValue, Tensor, TensorElementType};

use super::library;

/// Loads ONNX Runtime, once a process.
///
/// # Errors
/// It cannot be found, fetched or loaded. A later call tries again.
pub fn environment(downloads: &Path) -> Result<Environment> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().map_err(|_| anyhow!("loading ONNX Runtime failed earlier in this process"))?;
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let library = library::locate(downloads)?;
    let place = library.path.display();
    let environment = ort::init_from(&library.path)
        .map_err(|e| anyhow!("ONNX Runtime at `{place}` cannot be loaded: {e}"))?
        .with_name("retune")
        .with_telemetry(false)
        .build()
        .map_err(|e| anyhow!("ONNX Runtime at `{place}` cannot be started: {e}"))?;
    *loaded = Some(environment.clone());
    Ok(environment)
}

/// A session of ort's own kind for `model`, a serialized ONNX model.
pub(super) fn commit(model: &[u8], downloads: &Path) -> Result<ort::session::Session> {
    let environment = environment(downloads)?;
    let fail = |e: String| anyhow!("ONNX Runtime refuses the graph: {e}");
    let builder = ort::session::Session::builder(&environment).map_err(|e| fail(e.to_string()))?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| fail(e.to_string()))?;
    // What fails is returned as an error; a line on the terminal besides would only tear a progress bar.
    let builder = builder.with_log_level(LogLevel::Fatal).map_err(|e| fail(e.to_string()))?;
    // Idle threads that spin take the processor from rayon's, which prepare batches and update weights between runs.
    let mut builder = builder.with_config_entry("session.intra_op.allow_spinning", "0").map_err(|e| fail(e.to_string()))?;
    builder.commit_from_memory(model).map_err(|e| fail(e.to_string()))
}

/// An input of one run.
pub struct Input<'a> {
    name: &'a str,
    shape: Vec<usize>,
    data: Data<'a>,
}

enum Data<'a> {
    Floats(&'a [f32]),
    Integers(&'a [i64]),
}

impl<'a> Input<'a> {
    pub fn floats(name: &'a str, shape: &[usize], data: &'a [f32]) -> Self {
        Input { name, shape: shape.to_vec(), data: Data::Floats(data) }
    }

    pub fn integers(name: &'a str, shape: &[usize], data: &'a [i64]) -> Self {
        Input { name, shape: shape.to_vec(), data: Data::Integers(data) }
    }

    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// A tensor with a copy of the data.
    pub(super) fn tensor(&self) -> Result<DynValue> {
        let shape = self.shape.clone();
        let value = match self.data {
            Data::Floats(data) => Tensor::from_array((shape, data.to_vec())).map(Tensor::into_dyn),
            Data::Integers(data) => Tensor::from_array((shape, data.to_vec())).map(Tensor::into_dyn),
        };
        value.with_context(|| format!("graph input `{}`", self.name))
    }
}

/// A session whose weights, if it has any, are in its graph.
pub struct Session {
    inner: ort::session::Session,
}

impl Session {
    /// Opens a serialized ONNX model. `downloads` is where ONNX Runtime is kept.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or refuses the model.
    pub fn from_model(model: &[u8], downloads: &Path) -> Result<Self> {
        Ok(Session { inner: commit(model, downloads)? })
    }

    /// Runs the graph; returns the float outputs in the graph's order, each with its shape.
    ///
    /// # Errors
    /// An input does not fit, or an operator fails.
    pub fn run(&mut self, inputs: &[Input]) -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
        let values = inputs
            .iter()
            .map(|input| Ok((input.name.into(), SessionInputValue::from(input.tensor()?))))
            .collect::<Result<Vec<(std::borrow::Cow<str>, SessionInputValue)>>>()?;
        let outputs = self.inner.run(SessionInputs::from(values)).context("ONNX Runtime failed to run the graph")?;
        (0..outputs.len()).map(|i| floats(&outputs[i])).collect()
    }
}

/// Shape and elements of a float tensor.
pub(super) fn floats(value: &DynValue) -> Result<(Vec<usize>, Vec<f32>)> {
    let (shape, data) = value.try_extract_tensor::<f32>().context("an output is not a float tensor")?;
    Ok((shape.iter().map(|&d| d.max(0) as usize).collect(), data.to_vec()))
}

/// The elements of an integer tensor.
pub(super) fn integers(value: &DynValue) -> Result<Vec<i64>> {
    Ok(value.try_extract_tensor::<i64>().context("an output is not an integer tensor")?.1.to_vec())
}

/// Whether a value is an integer tensor.
pub(super) fn is_integer(value: &DynValue) -> bool {
    matches!(value.dtype().tensor_type(), Some(TensorElementType::Int64))
}
