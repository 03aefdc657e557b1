//! Sessions whose weights are graph inputs: bound once, changed in place between runs, shared by several graphs. Gradients of
//! fixed shape are written into buffers that are allocated once too.

use anyhow::{Context, Result, anyhow};
use ort::memory::MemoryInfo;
use ort::session::IoBinding;
use ort::value::DynValue;

use super::device::Runtime;
use super::session::{Input, commit, has_input};
use super::tensors::{Memory, Tensor, host};

/// The weights in training, outside of any graph, in the memory of the device.
pub struct Parameters {
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl Parameters {
    /// Copies of `weights`: name, shape and initial value each.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or there is not enough memory.
    pub fn new<'w>(
        weights: impl Iterator<Item = (&'w str, &'w [usize], &'w [f32])>,
        runtime: impl Into<Runtime>,
    ) -> Result<Self> {
        let memory = Memory::of(&runtime.into())?;
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
        for (name, shape, data) in weights {
            tensors.push(memory.tensor(shape, Some(data)).with_context(|| format!("weight `{name}`"))?);
            names.push(name.to_owned());
        }
        Ok(Parameters { names, tensors })
    }

    /// The elements of each, in the order given, to be changed in place: the graphs that they are bound to see the change. None of those that
    /// lie on a device, where an optimizer changes them that is a graph too.
    pub fn values_mut(&mut self) -> Vec<&mut [f32]> {
        self.tensors.iter_mut().filter_map(Tensor::slice_mut).collect()
    }

    /// The tensor of a weight.
    ///
    /// # Errors
    /// There is no weight of this name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.place(name).map(|at| &self.tensors[at])
    }

    /// As [`Parameters::tensor`], to be changed.
    ///
    /// # Errors
    /// There is no weight of this name.
    pub fn tensor_mut(&mut self, name: &str) -> Result<&mut Tensor> {
        self.place(name).map(|at| &mut self.tensors[at])
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.names.iter().position(|known| known == name).with_context(|| format!("there is no weight `{name}`"))
    }
}

/// Tensors that graphs write outputs of fixed shape into, shared by several graphs.
#[derive(Default)]
pub struct Buffers {
    memory: Option<Memory>,
    names: Vec<String>,
    tensors: Vec<Tensor>,
}

impl Buffers {
    /// Adds a buffer for the output `name`, unless there is one.
    ///
    /// # Errors
    /// ONNX Runtime cannot be loaded, or there is not enough memory.
    pub fn add(&mut self, name: &str, shape: &[usize], runtime: impl Into<Runtime>) -> Result<()> {
        if !self.names.iter().any(|known| known == name) {
            if self.memory.is_none() {
                self.memory = Some(Memory::of(&runtime.into())?);
            }
            let memory = self.memory.as_ref().context("there is no memory")?;
            self.tensors.push(memory.tensor(shape, None).with_context(|| format!("output `{name}`"))?);
            self.names.push(name.to_owned());
        }
        Ok(())
    }

    /// What the last run of a graph with the output `name` wrote.
    ///
    /// # Errors
    /// There is no such buffer, or it lies on a device.
    pub fn get(&self, name: &str) -> Result<&[f32]> {
        self.tensor(name)?.slice().with_context(|| format!("the buffer of `{name}` lies on a device"))
    }

    /// The tensor that the output `name` is written into.
    ///
    /// # Errors
    /// There is no such buffer.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        let at = self.names.iter().position(|known| known == name).with_context(|| format!("there is no buffer for `{name}`"))?;
        Ok(&self.tensors[at])
    }
}

/// See the [module](self).
pub struct Trainable {
    session: ort::session::Session,
    binding: IoBinding,
    /// Outputs whose shape is known only after the run.
    free: Vec<String>,
    /// Those of them that stay where the graph runs.
    kept: Vec<String>,
    /// Where the graph runs.
    memory: MemoryInfo<'static>,
}

/// What one run yields besides the outputs that are written in place.
pub struct Outputs {
    values: Vec<(String, Value)>,
}

enum Value {
    /// In this memory.
    Here(DynValue),
    Kept(DynValue),
}

impl Outputs {
    /// The elements of the float output `name`.
    pub fn floats(&self, name: &str) -> Result<&[f32]> {
        self.here(name)?.try_extract_tensor().map(|(_, data)| data).with_context(|| format!("output `{name}`"))
    }

    /// The elements of the integer output `name`.
    pub fn integers(&self, name: &str) -> Result<&[i64]> {
        self.here(name)?.try_extract_tensor().map(|(_, data)| data).with_context(|| format!("output `{name}`"))
    }

    fn here(&self, name: &str) -> Result<&DynValue> {
        match self.find(name)? {
            Value::Here(value) => Ok(value),
            Value::Kept(_) => Err(anyhow!("output `{name}` is not in this memory")),
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
        runtime: impl Into<Runtime>,
    ) -> Result<Self> {
        let mut graph = Trainable::unbound(model, free, runtime)?;
        for (name, tensor) in parameters.names.iter().zip(&parameters.tensors) {
            if has_input(&graph.session, name) {
                graph.reads(name, tensor)?;
            }
        }
        for (name, tensor) in buffers.names.iter().zip(&mut buffers.tensors) {
            if graph.session.outputs().iter().any(|output| output.name() == name) {
                graph.writes(name, tensor)?;
            }
        }
        Ok(graph)
    }

    /// Opens `model` with nothing bound but the outputs `free`.
    ///
    /// # Errors
    /// As [`Trainable::open`].
    pub fn unbound(model: &[u8], free: Vec<String>, runtime: impl Into<Runtime>) -> Result<Self> {
        let runtime = runtime.into();
        let session = commit(model, &runtime)?;
        let binding = session.create_binding().context("ONNX Runtime cannot bind inputs")?;
        Ok(Trainable { session, binding, free, kept: Vec::new(), memory: super::tensors::info(&runtime.device)? })
    }

    /// Leaves these of the free outputs where the graph runs: other graphs there read them.
    pub fn keeping(mut self, kept: Vec<String>) -> Self {
        self.kept = kept;
        self
    }

    /// Makes every run read the input `name` from `tensor`.
    ///
    /// # Errors
    /// It does not fit.
    pub fn reads(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.binding.bind_input(name, tensor.inner()).with_context(|| format!("graph input `{name}`"))
    }

    /// Makes every run write the output `name` into `tensor`, which may be one that it reads, when nothing else does after that.
    ///
    /// # Errors
    /// It does not fit.
    pub fn writes(&mut self, name: &str, tensor: &mut Tensor) -> Result<()> {
        self.binding.bind_output(name, tensor.inner_mut()).with_context(|| format!("output `{name}`"))
    }

    /// Makes the next run read the input `name` from the kept output `output` of another graph's run.
    ///
    /// # Errors
    /// There is none such, or it does not fit.
    pub fn reads_output(&mut self, name: &str, outputs: &Outputs, output: &str) -> Result<()> {
        let Value::Kept(value) = outputs.find(output)? else { return Err(anyhow!("output `{output}` is not kept")) };
        self.binding.bind_input(name, value).with_context(|| format!("graph input `{name}`"))
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
        let host = host()?;
        for name in &self.free {
            let memory = if self.kept.contains(name) { &self.memory } else { &host };
            self.binding.bind_output_to_device(name.as_str(), memory).with_context(|| format!("output `{name}`"))?;
        }
        let mut results = self.session.run_binding(&self.binding).context("ONNX Runtime failed to run the graph")?;
        let mut values = Vec::with_capacity(self.free.len());
        for name in &self.free {
            let value = results.remove(name).with_context(|| format!("the graph has no output `{name}`"))?;
            let value = if self.kept.contains(name) { Value::Kept(value) } else { Value::Here(value) };
            values.push((name.clone(), value));
        }
        Ok(Outputs { values })
    }
}
