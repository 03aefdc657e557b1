//! Sessions whose weights are graph inputs: bound once, changed in place between runs, shared by several graphs. Gradients of
//! fixed shape are written into buffers that are allocated once too.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::Tensor;

use super::session::{Input, commit, environment, floats, has_input, integers, is_integer};

/// The weights in training, outside of any graph.
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor<f32>>,
}

impl Parameters {
    /// Copies of `weights`: name, shape and initial value each.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or there is not enough memory.
    pub fn new<'w>(weights: impl Iterator<Item = (&'w str, &'w [usize], &'w [f32])>, downloads: &Path) -> Result<Self> {
        environment(downloads)?;
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
        for (name, shape, data) in weights {
            let mut tensor =
                Tensor::<f32>::new(&Allocator::default(), shape.to_vec()).with_context(|| format!("weight `{name}`"))?;
            tensor.extract_tensor_mut().1.copy_from_slice(data);
            names.push(name.to_owned());
            tensors.push(tensor);
        }
        Ok(Parameters { names, tensors })
    }

    /// In the order they were given: name and elements.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.names.iter().map(String::as_str).zip(self.tensors.iter().map(|t| t.extract_tensor().1))
    }

    /// The elements of each, in the order given, to be changed in place: the graphs that they are bound to see the change.
    pub fn values_mut(&mut self) -> Vec<&mut [f32]> {
        self.tensors.iter_mut().map(|t| t.extract_tensor_mut().1).collect()
    }
}

/// Tensors that graphs write outputs of fixed shape into, shared by several graphs.
#[derive(Default)]
pub struct Buffers {
    names: Vec<String>,
    tensors: Vec<Tensor<f32>>,
}

impl Buffers {
    /// Adds a buffer for the output `name`, unless there is one.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or there is not enough memory.
    pub fn add(&mut self, name: &str, shape: &[usize], downloads: &Path) -> Result<()> {
        if !self.names.iter().any(|known| known == name) {
            environment(downloads)?;
            let tensor = Tensor::<f32>::new(&Allocator::default(), shape.to_vec()).with_context(|| format!("output `{name}`"))?;
            self.names.push(name.to_owned());
            self.tensors.push(tensor);
        }
        Ok(())
    }

    /// What the last run of a graph with the output `name` wrote.
    ///
    /// # Errors
    /// There is no such buffer.
    pub fn get(&self, name: &str) -> Result<&[f32]> {
        let at = self.names.iter().position(|known| known == name).with_context(|| format!("there is no buffer for `{name}`"))?;
        Ok(self.tensors[at].extract_tensor().1)
    }
}

/// See the [module](self).
pub struct Trainable {
    session: ort::session::Session,
    binding: IoBinding,
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
    /// Opens `model`, with those of `parameters` bound that are inputs of it and those of `buffers` that are outputs. `free` are the names of
    /// the other outputs.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded or refuses the model; there is not enough memory for the buffers.
    pub fn open(
        model: &[u8],
        parameters: &Parameters,
        buffers: &mut Buffers,
        free: Vec<String>,
        downloads: &Path,
    ) -> Result<Self> {
        let session = commit(model, downloads)?;
        let mut binding = session.create_binding().context("ONNX Runtime cannot bind inputs")?;
        for (name, tensor) in parameters.names.iter().zip(&parameters.tensors) {
            if has_input(&session, name) {
                binding.bind_input(name.as_str(), tensor).with_context(|| format!("weight `{name}`"))?;
            }
        }
        for (name, tensor) in buffers.names.iter().zip(&mut buffers.tensors) {
            if session.outputs().iter().any(|output| output.name() == name) {
                binding.bind_output(name.as_str(), tensor).with_context(|| format!("output `{name}`"))?;
            }
        }
        Ok(Trainable { session, binding, free })
    }

    /// Runs the graph on `inputs`, of which it may not want all, and the present weights.
    ///
    /// # Errors
    /// An input does not fit, or an operator fails.
    pub fn run(&mut self, inputs: &[Input]) -> Result<Outputs> {
        for input in inputs.iter().filter(|input| has_input(&self.session, input.name())) {
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
}
