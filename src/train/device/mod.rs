//! AdamW where the weights, their gradients and the moments lie on a device: graphs that change them there. What [`super::optimizer`] does in
//! one pass over memory, in the same order of operations.
//!
//! Weights that are treated alike make a group. The gradients of a group are put one after the other into one tensor, and so are its moments,
//! so that a step is a few large operations instead of many small ones.

mod gather;
mod loss_scale;
mod segments;

use anyhow::{Context, Result};

pub use gather::{Form, Gather};
pub use loss_scale::LossScale;

use super::optimizer::{AdamW, Treatment};
use crate::onnx::{DataType, Graph, Value};
use crate::runtime::Runtime;
use crate::runtime::session::Input;
use crate::runtime::tensors::{Memory, Tensor};
use crate::runtime::trainable::{Buffers, Outputs, Parameters, Trainable};

/// Groups are filled up to a multiple of this many elements, the rows in which squares are summed.
const ROW: usize = 1024;

/// A weight in training.
#[derive(Debug, Clone)]
struct Weight {
    name: String,
    shape: Vec<usize>,
}

impl Weight {
    fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Weights that are treated alike, with the sum of their gradients and their moments.
struct Group {
    treatment: Treatment,
    /// Their numbers.
    members: Vec<usize>,
    /// Elements, with those that fill up.
    size: usize,
    sum: Tensor,
    first: Tensor,
    second: Tensor,
}

/// See the [module](self).
pub struct Optimizer {
    settings: AdamW,
    weights: Vec<Weight>,
    groups: Vec<Group>,
    update: Trainable,
    steps: i32,
    /// Of the sums of gradients.
    norm: f64,
    /// Whether the next gradients begin new sums.
    is_fresh: bool,
    /// By which losses, and so gradients, are multiplied.
    scale: Option<LossScale>,
    runtime: Runtime,
}

/// The names of a group's graph inputs and outputs.
fn named(what: &str, group: usize) -> String {
    format!("{what}:{group}")
}

fn fixed(shape: &[usize]) -> crate::onnx::Shape {
    shape.iter().map(|&size| size.into()).collect()
}

impl Optimizer {
    /// For the weights of these names and shapes among `parameters`, which the graphs change in place.
    ///
    /// # Errors
    /// There is not enough memory, or ONNX Runtime cannot be had.
    pub fn new<'w>(
        settings: AdamW,
        weights: impl Iterator<Item = (&'w str, &'w [usize], Treatment)>,
        parameters: &mut Parameters,
        runtime: &Runtime,
    ) -> Result<Self> {
        let (weights, treatments): (Vec<Weight>, Vec<Treatment>) =
            weights.map(|(name, shape, treatment)| (Weight { name: name.to_owned(), shape: shape.to_vec() }, treatment)).unzip();
        let memory = Memory::of(runtime)?;
        let mut groups: Vec<Group> = Vec::new();
        for (treatment, members) in alike(&treatments) {
            let size = members.iter().map(|&i| weights[i].size()).sum::<usize>().next_multiple_of(ROW);
            let zeros = || memory.tensor(&[size], None).context("there is not enough memory on the device for AdamW's moments");
            groups.push(Group { treatment, members, size, sum: zeros()?, first: zeros()?, second: zeros()? });
        }
        let mut update = Trainable::unbound(&update_graph(&settings, &weights, &groups).to_model()?, Vec::new(), runtime)?;
        for weight in &weights {
            let tensor = parameters.tensor_mut(&weight.name)?;
            update.reads(&weight.name, tensor)?;
            update.writes(&next(&weight.name), tensor)?;
        }
        for (number, group) in groups.iter_mut().enumerate() {
            update.reads(&named("sum", number), &group.sum)?;
            for (what, tensor) in [("first", &mut group.first), ("second", &mut group.second)] {
                update.reads(&named(what, number), tensor)?;
                update.writes(&next(&named(what, number)), tensor)?;
            }
        }
        Ok(Optimizer {
            settings,
            weights,
            groups,
            update,
            steps: 0,
            norm: 0.0,
            is_fresh: true,
            scale: None,
            runtime: runtime.clone(),
        })
    }

    /// Adds the gradients of a run, whose outputs these are, to those since the last step.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub fn add(&mut self, gather: &mut Gather, outputs: &Outputs) -> Result<()> {
        self.norm = gather.add(outputs, std::mem::replace(&mut self.is_fresh, false))?;
        Ok(())
    }

    /// Expects gradients of losses that are multiplied by [`Optimizer::loss_scale`].
    #[must_use]
    pub fn scaling_losses(mut self) -> Self {
        self.scale = Some(LossScale::default());
        self
    }

    /// How losses are scaled, when they are.
    pub fn scale(&self) -> Option<LossScale> {
        self.scale
    }

    /// What losses are multiplied by before they are differentiated.
    pub fn loss_scale(&self) -> f32 {
        self.scale.map_or(1.0, |scale| scale.factor() as f32)
    }

    /// The norm of the gradients since the last step together, of losses as they are; no number when one of them is none.
    pub fn norm(&self) -> f64 {
        self.norm / f64::from(self.loss_scale())
    }

    /// Gives gradients up that are no numbers. Says whether losses are scaled by less now, so that the same batches may have others.
    pub fn overflowed(&mut self) -> bool {
        self.forget();
        self.scale.as_mut().is_some_and(LossScale::overflowed)
    }

    /// Gives the gradients since the last step up.
    pub fn forget(&mut self) {
        self.is_fresh = true;
    }

    /// One step: every weight is moved against the sum of its gradients times `clip`.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    pub fn step(&mut self, lr: f64, clip: f32) -> Result<()> {
        self.steps += 1;
        self.is_fresh = true;
        let clip = clip / self.loss_scale();
        if let Some(scale) = &mut self.scale {
            scale.passed();
        }
        let AdamW { beta1, beta2, .. } = self.settings;
        let scale = (1.0 / (1.0 - beta2.powi(self.steps)).sqrt()) as f32;
        let factors: Vec<([String; 2], [f32; 2])> = self
            .groups
            .iter()
            .enumerate()
            .map(|(number, group)| {
                let lr = lr * group.treatment.rate;
                let (keep, rate) = ((1.0 - lr * group.treatment.decay) as f32, (lr / (1.0 - beta1.powi(self.steps))) as f32);
                (["keep", "rate"].map(|what| named(what, number)), [keep, rate])
            })
            .collect();
        let mut inputs = vec![Input::floats("clip", &[], std::slice::from_ref(&clip))];
        inputs.push(Input::floats("scale", &[], std::slice::from_ref(&scale)));
        for (names, values) in &factors {
            inputs.extend(names.iter().zip(values).map(|(name, value)| Input::floats(name, &[], std::slice::from_ref(value))));
        }
        self.update.run(&inputs)?;
        Ok(())
    }

    /// The first and the second moments of every weight, copied.
    ///
    /// # Errors
    /// The device does not answer.
    pub fn moments(&self) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
        let mut moments = vec![(Vec::new(), Vec::new()); self.weights.len()];
        for group in &self.groups {
            let (first, second) = (group.first.read()?, group.second.read()?);
            let mut from = 0;
            for &member in &group.members {
                let range = from..from + self.weights[member].size();
                moments[member] = (first[range.clone()].to_vec(), second[range.clone()].to_vec());
                from = range.end;
            }
        }
        Ok(moments)
    }

    /// Goes on after `steps` steps with these moments of every weight, and losses scaled like this.
    ///
    /// # Errors
    /// They do not fit the weights, or the device does not answer.
    pub fn resume(&mut self, steps: i32, moments: &[(Vec<f32>, Vec<f32>)], scale: Option<LossScale>) -> Result<()> {
        self.steps = steps;
        // A checkpoint of other precision has none.
        self.scale = self.scale.map(|first| scale.unwrap_or(first));
        for group in &mut self.groups {
            let (mut first, mut second) = (Vec::with_capacity(group.size), Vec::with_capacity(group.size));
            for &member in &group.members {
                let (m, v) = moments.get(member).context("the moments of a weight are not there")?;
                first.extend_from_slice(m);
                second.extend_from_slice(v);
            }
            for (tensor, mut data) in [(&mut group.first, first), (&mut group.second, second)] {
                data.resize(group.size, 0.0);
                tensor.write(&data)?;
            }
        }
        Ok(())
    }

    /// What adds the gradients of a graph, which have these forms, in the order of the weights.
    ///
    /// # Errors
    /// ONNX Runtime cannot be had.
    pub fn gather(&mut self, forms: &[Form], buffers: &Buffers) -> Result<Gather> {
        Gather::open(forms, buffers, &self.weights, &mut self.groups, &self.runtime)
    }
}

/// The numbers of weights by how they are treated, in the order in which treatments first occur.
fn alike(treatments: &[Treatment]) -> Vec<(Treatment, Vec<usize>)> {
    let mut groups: Vec<(Treatment, Vec<usize>)> = Vec::new();
    for (number, treatment) in treatments.iter().enumerate() {
        match groups.iter_mut().find(|(known, _)| known == treatment) {
            Some((_, members)) => members.push(number),
            None => groups.push((*treatment, vec![number])),
        }
    }
    groups
}

/// The name of what takes the place of `name`.
fn next(name: &str) -> String {
    format!("next {name}")
}

/// See [`super::optimizer`] for the formula.
fn update_graph(settings: &AdamW, weights: &[Weight], groups: &[Group]) -> Graph {
    let g = Graph::new();
    let scalar = |name: &str| g.input(name, DataType::F32, Vec::new());
    let (clip, scale) = (scalar("clip"), scalar("scale"));
    for (number, group) in groups.iter().enumerate() {
        let flat = |what: &str| g.input(&named(what, number), DataType::F32, fixed(&[group.size]));
        let (sum, first, second) = (flat("sum"), flat("first"), flat("second"));
        let (keep, rate) = (scalar(&named("keep", number)), scalar(&named("rate", number)));
        let members: Vec<&Weight> = group.members.iter().map(|&member| &weights[member]).collect();
        let values: Vec<Value> =
            members.iter().map(|weight| g.input(&weight.name, DataType::F32, fixed(&weight.shape))).collect();
        let weight = side_by_side(&g, &values, &members, group.size);
        let gradient = g.mul(sum, clip);
        let new_first = g.add(first, g.scale(g.sub(gradient, first), (1.0 - settings.beta1) as f32));
        let squares = g.scale(g.mul(gradient, gradient), (1.0 - settings.beta2) as f32);
        let new_second = g.add(g.scale(second, settings.beta2 as f32), squares);
        let divisor = g.add(g.mul(g.sqrt(new_second), scale), g.scalar(settings.epsilon as f32));
        let moved = g.sub(g.mul(weight, keep), g.div(g.mul(new_first, rate), divisor));
        g.output(&next(&named("first", number)), new_first);
        g.output(&next(&named("second", number)), new_second);
        let mut sizes: Vec<usize> = members.iter().map(|weight| weight.size()).collect();
        sizes.push(group.size - sizes.iter().sum::<usize>());
        for (weight, piece) in members.iter().zip(g.pieces(moved, &sizes)) {
            g.output(&next(&weight.name), g.reshape(piece, fixed(&weight.shape)));
        }
    }
    g
}

/// The values of a group's members one after the other, filled up with zeros: `[size]`.
fn side_by_side(g: &Graph, values: &[Value], members: &[&Weight], size: usize) -> Value {
    let mut parts: Vec<Value> =
        values.iter().zip(members).map(|(&value, weight)| g.reshape(value, fixed(&[weight.size()]))).collect();
    let used: usize = members.iter().map(|weight| weight.size()).sum();
    if used < size {
        parts.push(g.zeros(&[size - used]));
    }
    g.concat(&parts, 0, size.into())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod training_tests;
