//! Dropout whose mask is a function of seed, site and place.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use ort::value::ValueRef;
use retune_kernels::{Dropout, dropout};

use super::tensors::{floats, input, integers, write, wrong};
use super::{Definition, Input, Output, Threads};

/// x `[.., width]` and the seed `[1]`. Its gradient is the same operator on the gradient of the output.
pub const DROPOUT: Definition =
    Definition { name: "Dropout", inputs: &[Input::Floats, Input::Integers], outputs: &[Output::Floats], kernel: drop_out };

/// Dropout as the attributes of a node say, without a seed.
pub fn settings(context: &KernelContext) -> ort::Result<Dropout> {
    let site = context.get::<i64>("site").and_then(|site| u32::try_from(site).ok()).ok_or_else(|| wrong("`site` is missing"))?;
    let probability = context.get::<f32>("probability").filter(|p| (0.0..1.0).contains(p));
    let probability = probability.ok_or_else(|| wrong("`probability` is not from 0 to below 1"))?;
    Ok(Dropout { seed: 0, site, probability })
}

/// With the seed of a step.
pub fn seeded(how: Dropout, seed: &ValueRef) -> ort::Result<Dropout> {
    Ok(Dropout { seed: integers(seed)?.first().copied().unwrap_or_default() as u64, ..how })
}

fn drop_out(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let how = settings(context)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let (x, seed) = (input(context, 0)?, input(context, 1)?);
        let (shape, x) = floats(&x)?;
        let dropping = seeded(how, &seed)?;
        let width = shape.last().copied().unwrap_or(1).max(1);
        write(context, 0, &shape, |y| dropout(&Threads(context), dropping, width, x, y))
    }))
}
