//! GELU and its gradient.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use retune_kernels::gelu;

use super::tensors::{floats, input, write, wrong};
use super::{Definition, Input, Output, Threads};

/// GELU, exactly, by the error function.
pub const FORWARD: Definition =
    Definition { name: "Gelu", inputs: &[Input::Floats], outputs: &[Output::Floats], kernel: forward };

/// x and the gradient of GELU's output; the gradient of x.
pub const BACKWARD: Definition =
    Definition { name: "GeluGrad", inputs: &[Input::Floats, Input::Floats], outputs: &[Output::Floats], kernel: backward };

fn forward(_: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    Ok(Box::new(|context: &ComputeContext| {
        let x = input(context, 0)?;
        let (shape, x) = floats(&x)?;
        write(context, 0, &shape, |y| gelu::forward(&Threads(context), x, y))
    }))
}

fn backward(_: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    Ok(Box::new(|context: &ComputeContext| {
        let (x, dy) = (input(context, 0)?, input(context, 1)?);
        let ((shape, x), (_, dy)) = (floats(&x)?, floats(&dy)?);
        if x.len() != dy.len() {
            return Err(wrong(format!("{} gradients for {} elements", dy.len(), x.len())));
        }
        write(context, 0, &shape, |dx| gelu::backward(&Threads(context), x, dy, dx))
    }))
}
