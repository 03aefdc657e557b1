//! Layer normalization of a sum, and the gradient of layer normalization.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use ort::value::ValueRefMut;
use retune_kernels::norm::{self, Gradients, Inputs, LayerNorm, Outputs};

use super::tensors::{bf16, floats, input, optional_output, or_scratch, output, wrong};
use super::{Definition, Input, Output, Threads};

/// Two summands, scale and bias; what comes out, for the gradient the sum, its means and the inverses of its standard deviations, and for
/// products what comes out in bf16.
pub const ADD: Definition = Definition {
    name: "AddLayerNormalization",
    inputs: &[Input::Floats, Input::Floats, Input::Floats, Input::Floats],
    outputs: &[Output::Floats, Output::OptionalFloats, Output::OptionalFloats, Output::OptionalFloats, Output::OptionalBf16],
    kernel: add,
};

/// What was normalised, scale, means, inverses of standard deviations and the gradient of what came out; the gradients of what was
/// normalised, of the scale and of the bias, and the first of them in bf16.
pub const BACKWARD: Definition = Definition {
    name: "LayerNormalizationGrad",
    inputs: &[Input::Floats, Input::Floats, Input::Floats, Input::Floats, Input::Floats],
    outputs: &[Output::Floats, Output::Floats, Output::Floats, Output::OptionalBf16],
    kernel: backward,
};

/// The number of rows of width `width` that `data` has.
fn rows(data: &[f32], width: usize) -> ort::Result<usize> {
    if width > 0 && data.len().is_multiple_of(width) { Ok(data.len() / width) } else { Err(wrong("the width does not fit")) }
}

/// What layer normalization writes, in the order of its outputs.
pub struct Written<'c> {
    y: ValueRefMut<'c>,
    sum: Option<ValueRefMut<'c>>,
    mean: Option<ValueRefMut<'c>>,
    inverse: Option<ValueRefMut<'c>>,
    low: Option<ValueRefMut<'c>>,
    /// In place of statistics that nothing reads.
    scratch: [Vec<f32>; 2],
    rows: usize,
}

impl<'c> Written<'c> {
    pub fn new(context: &'c ComputeContext, shape: &[usize], rows: usize) -> ort::Result<Self> {
        Ok(Written {
            y: output(context, 0, shape)?,
            sum: optional_output(context, 1, shape)?,
            mean: optional_output(context, 2, &[rows, 1])?,
            inverse: optional_output(context, 3, &[rows, 1])?,
            low: optional_output(context, 4, shape)?,
            scratch: Default::default(),
            rows,
        })
    }

    pub fn outputs(&mut self) -> ort::Result<Outputs<'_>> {
        let [no_mean, no_inverse] = &mut self.scratch;
        let sum = self.sum.as_mut().map(|sum| Ok::<_, ort::Error>(sum.try_extract_tensor_mut::<f32>()?.1)).transpose()?;
        Ok(Outputs {
            y: self.y.try_extract_tensor_mut::<f32>()?.1,
            low: self.low.as_mut().map(bf16).transpose()?,
            sum,
            mean: or_scratch(&mut self.mean, no_mean, self.rows)?,
            inverse: or_scratch(&mut self.inverse, no_inverse, self.rows)?,
        })
    }
}

fn add(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let epsilon = context.get::<f32>("epsilon").ok_or_else(|| wrong("`epsilon` is missing"))?;
    Ok(Box::new(move |context: &ComputeContext| {
        let inputs = [input(context, 0)?, input(context, 1)?, input(context, 2)?, input(context, 3)?];
        let [(shape, a), (_, b), (_, weight), (_, bias)] =
            [floats(&inputs[0])?, floats(&inputs[1])?, floats(&inputs[2])?, floats(&inputs[3])?];
        let count = rows(a, weight.len())?;
        if a.len() != b.len() || bias.len() != weight.len() {
            return Err(wrong("summands, scale and bias do not fit each other"));
        }
        let mut written = Written::new(context, &shape, count)?;
        let outputs = written.outputs()?;
        norm::forward(&Threads(context), &LayerNorm { weight, bias: Some(bias), epsilon }, a, Some(b), outputs);
        Ok(())
    }))
}

fn backward(_: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    Ok(Box::new(|context: &ComputeContext| {
        let inputs = [input(context, 0)?, input(context, 1)?, input(context, 2)?, input(context, 3)?, input(context, 4)?];
        let [(shape, x), (_, weight), (_, mean), (_, inverse)] =
            [floats(&inputs[0])?, floats(&inputs[1])?, floats(&inputs[2])?, floats(&inputs[3])?];
        let dy = floats(&inputs[4])?.1;
        let count = rows(x, weight.len())?;
        if dy.len() != x.len() || mean.len() != count || inverse.len() != count {
            return Err(wrong("gradient and statistics do not fit what was normalised"));
        }
        let width = weight.len();
        let (mut dx, mut dweight, mut dbias) =
            (output(context, 0, &shape)?, output(context, 1, &[width])?, output(context, 2, &[width])?);
        let (dx, dweight) = (dx.try_extract_tensor_mut::<f32>()?.1, dweight.try_extract_tensor_mut::<f32>()?.1);
        let mut low = optional_output(context, 3, &shape)?;
        let gradients = Gradients {
            x: dx,
            low: low.as_mut().map(bf16).transpose()?,
            weight: dweight,
            bias: Some(dbias.try_extract_tensor_mut::<f32>()?.1),
        };
        norm::backward(&Threads(context), &Inputs { x, mean, inverse, weight }, dy, gradients);
        Ok(())
    }))
}
