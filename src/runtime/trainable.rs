//! A session whose weights are graph inputs: bound once, changed in place between runs. Gradients of fixed shape are written
//! into buffers that are allocated once too.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::Tensor;

use super::session::{Input, commit, floats, integers, is_integer};

/// A weight that is bound to the graph input of its name.
struct Bound {
    name: String,
    tensor: Tensor<f32>,
}

/// See the [module](self).
pub struct Trainable {
    session: ort::session::Session,
    binding: IoBinding,
    weights: Vec<Bound>,
    /// Outputs that are written in place.
    fixed: Vec<Tensor<f32>>,
    /// Outputs whose shape is known only after the run.
    free: Vec<String>,
}

/// What one run yields besides the outputs that are written in place.
pub struct Outputs {
    values: Vec<(String, Value)>,
}

enum Value {
    Floats(Vec<usize>, Vec<f32>),
    Integers(Vec<i64>),
}

impl Outputs {
    /// The float output `name`: its shape and elements.
    pub fn floats(&self, name: &str) -> Result<(&[usize], &[f32])> {
        match self.find(name)? {
            Value::Floats(shape, data) => Ok((shape, data)),
            Value::Integers(_) => Err(anyhow!("output `{name}` is an integer tensor")),
        }
    }

    /// The integer output `name`.
    pub fn integers(&self, name: &str) -> Result<&[i64]> {
        match self.find(name)? {
            Value::Integers(data) => Ok(data),
            Value::Floats(..) => Err(anyhow!("output `{name}` is a float tensor")),
        }
    }

    fn find(&self, name: &str) -> Result<&Value> {
        let found = self.values.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value).with_context(|| format!("the graph has no output `{name}`"))
    }
}

impl Trainable {
    /// Opens `model`. `weights` are `(input name, shape, initial value)`, `fixed` are `(output name, shape)`, `free` the names of the other outputs.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded or refuses the model; there is not enough memory for the buffers.
    pub fn open<'w>(
        model: &[u8],
        weights: impl Iterator<Item = (&'w str, &'w [usize], &'w [f32])>,
        fixed: &[(String, Vec<usize>)],
        free: Vec<String>,
        downloads: &Path,
    ) -> Result<Self> {
        let session = commit(model, downloads)?;
        let mut binding = session.create_binding().context("ONNX Runtime cannot bind inputs")?;
        let mut bound = Vec::new();
        for (name, shape, data) in weights {
            let mut tensor =
                Tensor::<f32>::new(session.allocator(), shape.to_vec()).with_context(|| format!("weight `{name}`"))?;
            tensor.extract_tensor_mut().1.copy_from_slice(data);
            binding.bind_input(name, &tensor).with_context(|| format!("weight `{name}`"))?;
            bound.push(Bound { name: name.to_owned(), tensor });
        }
        let mut outputs = Vec::new();
        for (name, shape) in fixed {
            let mut tensor =
                Tensor::<f32>::new(session.allocator(), shape.clone()).with_context(|| format!("output `{name}`"))?;
            binding.bind_output(name.as_str(), &mut tensor).with_context(|| format!("output `{name}`"))?;
            outputs.push(tensor);
        }
        Ok(Trainable { session, binding, weights: bound, fixed: outputs, free })
    }

    /// Runs the graph on `inputs` and the present weights.
    ///
    /// # Errors
    /// An input does not fit, or an operator fails.
    pub fn run(&mut self, inputs: &[Input]) -> Result<Outputs> {
        for input in inputs {
            self.binding.bind_input(input.name(), &input.tensor()?).with_context(|| format!("graph input `{}`", input.name()))?;
        }
        // Anew for each run: a binding keeps the tensor of the run before, whose shape need not be this one's.
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
            .context("ONNX Runtime has no CPU memory")?;
        for name in &self.free {
            self.binding.bind_output_to_device(name.as_str(), &memory).with_context(|| format!("output `{name}`"))?;
        }
        let results = self.session.run_binding(&self.binding).context("ONNX Runtime failed to run the graph")?;
        let mut values = Vec::with_capacity(self.free.len());
        for name in &self.free {
            let value = results.get(name).with_context(|| format!("the graph has no output `{name}`"))?;
            let value = if is_integer(value) {
                Value::Integers(integers(value)?)
            } else {
                let (shape, data) = floats(value)?;
                Value::Floats(shape, data)
            };
            values.push((name.clone(), value));
        }
        Ok(Outputs { values })
    }

    /// The weights in the order they were given: name and elements.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.weights.iter().map(|w| (w.name.as_str(), w.tensor.extract_tensor().1))
    }

    /// The elements of the weights, to be changed in place, and of the in-place outputs, each in the order given: what an
    /// optimizer's step needs.
    pub fn weights_and_outputs(&mut self) -> (Vec<&mut [f32]>, Vec<&[f32]>) {
        let weights = self.weights.iter_mut().map(|w| w.tensor.extract_tensor_mut().1).collect();
        let outputs = self.fixed.iter().map(|o| o.extract_tensor().1).collect();
        (weights, outputs)
    }
}
