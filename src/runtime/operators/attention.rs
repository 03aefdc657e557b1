//! Attention within texts that lie end to end, and its gradient.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use retune_kernels::attention::{self, Attention, Bias, Gradients, Inputs};
use retune_kernels::{Dropout, Isa, Precision};

use super::tensors::{
    floats, input, integers, matrix, numbers, numbers_mut, optional_input, optional_output, or_scratch, output, wrong,
};
use super::{Definition, Input, Output, Threads};

/// Queries, keys, values, starts, seed and perhaps the bias of distances; what was attended to and, for the gradient, the logarithm of the sum
/// of exponentials.
pub const FORWARD: Definition =
    Definition { name: "Attention", inputs: &[Input::Any], outputs: &[Output::Floats, Output::OptionalFloats], kernel: forward };

/// [`FORWARD`] whose first output is in bf16.
pub const FORWARD_BF16: Definition =
    Definition { name: "AttentionBf16", outputs: &[Output::Bf16, Output::OptionalFloats], ..FORWARD };

/// The inputs of [`FORWARD`] but for the bias, its outputs, the gradient of the first, and the bias; the gradients of queries, keys,
/// values and bias.
pub const BACKWARD: Definition =
    Definition { name: "AttentionGrad", inputs: &[Input::Any], outputs: &[Output::Floats; 4], kernel: backward };

/// [`BACKWARD`] whose first three outputs are in bf16.
pub const BACKWARD_BF16: Definition =
    Definition { name: "AttentionGradBf16", outputs: &[Output::Bf16, Output::Bf16, Output::Bf16, Output::Floats], ..BACKWARD };

/// The attributes of a node.
#[derive(Clone, Copy)]
struct Settings {
    heads: usize,
    scale: f32,
    window: Option<usize>,
    site: u32,
    dropout: f32,
    precision: Precision,
}

impl Settings {
    fn read(context: &KernelContext) -> ort::Result<Self> {
        let int = |name: &str| context.get::<i64>(name).ok_or_else(|| wrong(format!("`{name}` is missing")));
        let float = |name: &str| context.get::<f32>(name).ok_or_else(|| wrong(format!("`{name}` is missing")));
        Ok(Settings {
            heads: usize::try_from(int("heads")?).map_err(|_| wrong("`heads` is negative"))?,
            scale: float("scale")?,
            window: usize::try_from(int("window")?).ok(),
            site: u32::try_from(int("site")?).map_err(|_| wrong("`site` is negative"))?,
            dropout: float("dropout")?,
            precision: if int("bf16")? == 1 { Isa::best().fastest() } else { Precision::Fp32 },
        })
    }

    fn attention<'a>(&self, starts: &'a [usize], seed: &[i64], bias: Option<&(Vec<usize>, &'a [f32])>) -> Attention<'a> {
        let seed = seed.first().copied().unwrap_or_default() as u64;
        Attention {
            starts,
            heads: self.heads,
            scale: self.scale,
            window: self.window,
            bias: bias.map(|(shape, values)| Bias { values, span: shape.last().map_or(0, |n| n.div_ceil(2)) }),
            dropout: (self.dropout > 0.0).then_some(Dropout { seed, site: self.site, probability: self.dropout }),
            precision: self.precision,
        }
    }

    /// What the kernels take for granted.
    fn check(&self, shapes: [(usize, usize); 3], starts: &[usize]) -> ort::Result<()> {
        let [(tokens, width), ..] = shapes;
        let ordered = starts.is_sorted() && starts.first() == Some(&0) && starts.last() == Some(&tokens);
        if shapes.iter().any(|&shape| shape != (tokens, width))
            || self.heads == 0
            || !width.is_multiple_of(self.heads)
            || !ordered
        {
            return Err(wrong(format!(
                "queries, keys and values {shapes:?} do not fit {} heads and {} starts",
                self.heads,
                starts.len()
            )));
        }
        Ok(())
    }
}

fn starts(values: &[i64]) -> Vec<usize> {
    values.iter().map(|&x| x.max(0) as usize).collect()
}

fn forward(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let settings = Settings::read(context)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let (q, k, v) = (input(context, 0)?, input(context, 1)?, input(context, 2)?);
        let (query, key, value) = (matrix(&q)?, matrix(&k)?, matrix(&v)?);
        let (tokens, width) = (query.rows(), query.columns());
        let (at, seed, bias) = (input(context, 3)?, input(context, 4)?, optional_input(context, 5)?);
        let starts = starts(integers(&at)?);
        settings.check([query, key, value].map(|m| (m.rows(), m.columns())), &starts)?;
        let bias = bias.as_ref().map(floats).transpose()?;
        let attention = settings.attention(&starts, integers(&seed)?, bias.as_ref());
        let (mut out, mut sums) =
            (output(context, 0, &[tokens, width])?, optional_output(context, 1, &[settings.heads, tokens])?);
        let mut no_sums = Vec::new();
        let sums = or_scratch(&mut sums, &mut no_sums, settings.heads * tokens)?;
        attention::forward(&Threads(context), &attention, &Inputs { query, key, value }, numbers_mut(&mut out)?, sums);
        Ok(())
    }))
}

fn backward(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let settings = Settings::read(context)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let (q, k, v) = (input(context, 0)?, input(context, 1)?, input(context, 2)?);
        let (query, key, value) = (matrix(&q)?, matrix(&k)?, matrix(&v)?);
        let (tokens, width) = (query.rows(), query.columns());
        let (at, seed, bias) = (input(context, 3)?, input(context, 4)?, optional_input(context, 8)?);
        let (out, sums, dy) = (input(context, 5)?, input(context, 6)?, input(context, 7)?);
        let starts = starts(integers(&at)?);
        settings.check([query, key, value].map(|m| (m.rows(), m.columns())), &starts)?;
        let bias = bias.as_ref().map(floats).transpose()?;
        let attention = settings.attention(&starts, integers(&seed)?, bias.as_ref());
        let (mut dq, mut dk, mut dv) =
            (output(context, 0, &[tokens, width])?, output(context, 1, &[tokens, width])?, output(context, 2, &[tokens, width])?);
        let mut dbias = output(context, 3, bias.as_ref().map_or(&[0], |(shape, _)| shape.as_slice()))?;
        let dbias = dbias.try_extract_tensor_mut::<f32>()?.1;
        let gradients = Gradients {
            inputs: [numbers_mut(&mut dq)?, numbers_mut(&mut dk)?, numbers_mut(&mut dv)?],
            bias: bias.is_some().then_some(dbias),
        };
        let inputs = Inputs { query, key, value };
        let (out, dy) = (numbers(&out)?.1, numbers(&dy)?.1);
        attention::backward(&Threads(context), &attention, &inputs, out, floats(&sums)?.1, dy, gradients);
        Ok(())
    }))
}
