//! Layer normalization of a product, and its gradient from a sum of products.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use retune_kernels::Dropout;
use retune_kernels::gemm::{Before, PackedB, normalize, normalize_gradient};
use retune_kernels::norm::{Gradients, Inputs, LayerNorm};

use super::gemm::{bias, check, constant, flag, pairs, precision, transposed};
use super::layer_norm::Written;
use super::tensors::{bf16, floats, input, matrix, optional_input, optional_output, output, wrong};
use super::{Definition, Input, Output, Threads, dropout};

/// Layer normalization of dropout(op(a)·op(b) + bias) + residual: a, b, residual, scale and shift, perhaps the bias, and with dropout the seed. Outputs as
/// of `AddLayerNormalization`.
pub const FORWARD: Definition = Definition {
    name: "GemmLayerNormalization",
    inputs: &[Input::Any],
    outputs: &[Output::Floats, Output::OptionalFloats, Output::OptionalFloats, Output::OptionalFloats, Output::OptionalBf16],
    kernel: forward,
};

/// The gradient of layer normalization when that of its output is a sum of products: the inputs of `GemmSum`, but for what is added to the products, then what
/// was normalised, scale, means and inverses of standard deviations, perhaps what is added, and with dropout the seed. Outputs as of
/// `LayerNormalizationGrad`; the last one goes through dropout.
pub const BACKWARD: Definition = Definition {
    name: "GemmLayerNormalizationGrad",
    inputs: &[Input::Any],
    outputs: &[Output::Floats, Output::Floats, Output::Floats, Output::OptionalBf16],
    kernel: backward,
};

/// Dropout, if the node has it.
fn dropping(context: &KernelContext) -> ort::Result<Option<Dropout>> {
    context.get::<i64>("site").map(|_| dropout::settings(context)).transpose()
}

/// With the seed, which is the last input.
fn seeded(context: &ComputeContext, how: Option<Dropout>) -> ort::Result<Option<Dropout>> {
    how.map(|how| dropout::seeded(how, &input(context, context.num_inputs()?.saturating_sub(1))?)).transpose()
}

fn forward(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let epsilon = context.get::<f32>("epsilon").ok_or_else(|| wrong("`epsilon` is missing"))?;
    let trans_b = flag(context, "transB");
    let (how, packed) = (dropping(context)?, constant(context, trans_b)?);
    Ok(Box::new(move |context: &ComputeContext| {
        let [a, b, residual] = [input(context, 0)?, input(context, 1)?, input(context, 2)?];
        let [scale, shift] = [input(context, 3)?, input(context, 4)?];
        let has_bias = context.num_inputs()? - usize::from(how.is_some()) > 5;
        let of_bias = if has_bias { optional_input(context, 5)? } else { None };
        let (a, b) = (matrix(&a)?, transposed(matrix(&b)?, trans_b));
        check(&a, &b)?;
        let shape = [a.rows(), b.columns()];
        let [(of, residual), (_, weight), (_, shift)] = [floats(&residual)?, floats(&scale)?, floats(&shift)?];
        if of != shape || weight.len() != shape[1] || shift.len() != shape[1] {
            return Err(wrong("residual, scale and shift do not fit the product"));
        }
        let before = Before { bias: bias(of_bias.as_ref(), shape[1])?, dropout: seeded(context, how)?, residual: Some(residual) };
        let mut written = Written::new(context, &shape, shape[0])?;
        let outputs = written.outputs()?;
        let norm = LayerNorm { weight, bias: Some(shift), epsilon };
        let pool = Threads(context);
        match &packed {
            Some(packed) => normalize(&pool, &[a], packed, before, &norm, outputs),
            None => normalize(&pool, &[a], &PackedB::pack(&pool, precision(), b), before, &norm, outputs),
        }
        Ok(())
    }))
}

fn backward(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let flags: Vec<i64> = context.get("transB").ok_or_else(|| wrong("`transB` is missing"))?;
    let how = dropping(context)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let factors = (0..2 * flags.len()).map(|i| input(context, i)).collect::<ort::Result<Vec<_>>>()?;
        let (left, right) = pairs(&factors, &flags)?;
        let shape = [left[0].rows(), right[0].columns()];
        let at = factors.len();
        let inputs = [input(context, at)?, input(context, at + 1)?, input(context, at + 2)?, input(context, at + 3)?];
        let [(_, x), (_, weight), (_, mean), (_, inverse)] =
            [floats(&inputs[0])?, floats(&inputs[1])?, floats(&inputs[2])?, floats(&inputs[3])?];
        let has_residual = context.num_inputs()? - usize::from(how.is_some()) > at + 4;
        let residual = if has_residual { optional_input(context, at + 4)? } else { None };
        let residual = residual.as_ref().map(floats).transpose()?.map(|(_, residual)| residual);
        let size = shape[0] * shape[1];
        if x.len() != size || residual.is_some_and(|residual| residual.len() != size) || weight.len() != shape[1] {
            return Err(wrong("what was normalised, scale and residual do not fit the products"));
        }
        if mean.len() != shape[0] || inverse.len() != shape[0] {
            return Err(wrong("the statistics do not fit what was normalised"));
        }
        let [mut dx, mut dweight, mut dbias] =
            [output(context, 0, &shape)?, output(context, 1, &[shape[1]])?, output(context, 2, &[shape[1]])?];
        let mut low = optional_output(context, 3, &shape)?;
        let gradients = Gradients {
            x: dx.try_extract_tensor_mut::<f32>()?.1,
            low: low.as_mut().map(bf16).transpose()?,
            weight: dweight.try_extract_tensor_mut::<f32>()?.1,
            bias: Some(dbias.try_extract_tensor_mut::<f32>()?.1),
        };
        let pool = Threads(context);
        let right = PackedB::pack_all(&pool, precision(), &right);
        let inputs = Inputs { x, mean, inverse, weight };
        normalize_gradient(&pool, &left, &right, residual, inputs, seeded(context, how)?, gradients);
        Ok(())
    }))
}
