//! Sessions: a model in memory, run on ONNX Runtime.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use ort::environment::Environment;
use ort::ep::CUDA;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{SessionInputValue, SessionInputs};
use ort::value::{DynValue, Tensor};

use super::device::{self, Device, Runtime};
use super::{library, operators};

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
    // What goes wrong is an error that is passed on; a line of its own on the terminal would only tear a progress bar.
    environment.set_log_level(LogLevel::Fatal);
    *loaded = Some(environment.clone());
    Ok(environment)
}

/// A session of ort's own kind for `model`, a serialized ONNX model. With `RETUNE_PROFILE` set, ONNX Runtime writes what each operator took
/// to a file whose name begins with its value, when the session ends.
pub(super) fn commit(model: &[u8], runtime: &Runtime) -> Result<ort::session::Session> {
    let environment = environment(&runtime.downloads)?;
    let fail = |e: String| anyhow!("ONNX Runtime refuses the graph: {e}");
    let builder = ort::session::Session::builder(&environment).map_err(|e| fail(e.to_string()))?;
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|e| fail(e.to_string()))?;
    // What fails is returned as an error; a line on the terminal besides would only tear a progress bar.
    let builder = builder.with_log_level(LogLevel::Fatal).map_err(|e| fail(e.to_string()))?;
    let builder = match std::env::var_os("RETUNE_PROFILE").filter(|v| !v.is_empty()) {
        Some(prefix) => builder.with_profiling(Path::new(&prefix)).map_err(|e| fail(e.to_string()))?,
        None => builder,
    };
    // For shapes that come a second time it would take all memory of a run in one piece, beside the pieces that runs of other shapes have left: batches of
    // texts differ, and the largest memory of a training was up to 1.8 times as large.
    let builder = builder.with_memory_pattern(false).map_err(|e| fail(e.to_string()))?;
    let builder = builder.with_operators(operators::domain()?).map_err(|e| fail(e.to_string()))?;
    // Between operators threads wait awake, as waking one takes longer than many operators; between runs they must not, where they would take the
    // processor from rayon's, which prepare batches and update weights.
    let mut builder = builder;
    for (entry, value) in [("session.intra_op.allow_spinning", "1"), ("session.force_spinning_stop", "1")] {
        builder = builder.with_config_entry(entry, value).map_err(|e| fail(e.to_string()))?;
    }
    if let Device::Cuda { number, name, .. } = &runtime.device {
        builder = on_cuda(builder, *number).with_context(|| {
            format!("CUDA on {name} cannot be used; `device: cpu` computes on the processor, `retune devices` says what is there")
        })?;
    }
    // ONNX Runtime looks for the domain of our operators in a table of the process and adds it there in two steps, so two sessions that are the
    // first at the same time would each add it, which it refuses.
    static KNOWN: Mutex<bool> = Mutex::new(false);
    let known = KNOWN.lock().map_err(|_| anyhow!("making the first session failed in this process"))?;
    // Held as long as the domain is not known.
    let first = Some(known).filter(|known| !**known);
    let session = builder.commit_from_memory(model).map_err(|e| fail(e.to_string()))?;
    if let Some(mut known) = first {
        *known = true;
    }
    Ok(session)
}

/// Makes sessions run on a GPU. What ONNX Runtime cannot set up there is an error, not a reason to take the processor.
fn on_cuda(builder: SessionBuilder, number: u32) -> Result<SessionBuilder> {
    device::load_cuda()?;
    // TensorFloat-32 rounds the factors of products to 10 bits unasked; `precision` says what is rounded.
    let provider = CUDA::default().with_device_id(i32::try_from(number)?).with_tf32(false).build().error_on_failure();
    builder.with_execution_providers([provider]).map_err(|e| anyhow!("{}", told(&e.to_string())))
}

/// What an error of ONNX Runtime says, without the places in its own code that go before.
fn told(message: &str) -> &str {
    message.rsplit_once(" FAIL : ").map_or(message, |(_, told)| told).trim_end_matches([' ', ';', '\n'])
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
    /// Opens a serialized ONNX model.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or refuses the model.
    pub fn from_model(model: &[u8], runtime: impl Into<Runtime>) -> Result<Self> {
        Ok(Session { inner: commit(model, &runtime.into())? })
    }

    /// Runs the graph on `inputs`, of which it may not want all; returns the float outputs in the graph's order, each with its shape.
    ///
    /// # Errors
    /// An input does not fit, or an operator fails.
    pub fn run(&mut self, inputs: &[Input]) -> Result<Vec<(Vec<usize>, Vec<f32>)>> {
        let values = inputs
            .iter()
            .filter(|input| has_input(&self.inner, input.name))
            .map(|input| Ok((input.name.into(), SessionInputValue::from(input.tensor()?))))
            .collect::<Result<Vec<(std::borrow::Cow<str>, SessionInputValue)>>>()?;
        let outputs = self.inner.run(SessionInputs::from(values)).context("ONNX Runtime failed to run the graph")?;
        (0..outputs.len()).map(|i| floats(&outputs[i])).collect()
    }
}

/// Whether the graph of `session` has the input `name`.
pub(super) fn has_input(session: &ort::session::Session, name: &str) -> bool {
    session.inputs().iter().any(|input| input.name() == name)
}

/// Shape and elements of a float tensor.
fn floats(value: &DynValue) -> Result<(Vec<usize>, Vec<f32>)> {
    let (shape, data) = value.try_extract_tensor::<f32>().context("an output is not a float tensor")?;
    Ok((shape.iter().map(|&d| d.max(0) as usize).collect(), data.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::told;

    #[test]
    fn an_error_is_told_without_the_places_in_onnx_runtime() {
        let message =
            "/src/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x: undefined symbol; ";
        assert_eq!(told(message), "Failed to load library x: undefined symbol");
        assert_eq!(told("no such thing"), "no such thing");
    }
}
