//! Matrix products of factors that are rounded to bfloat16.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use ort::value::{TensorValueType, ValueRef};
use retune_kernels::Precision::Bf16;
use retune_kernels::Serial;
use retune_kernels::gemm::{Matrix, PackedB, Then, gemm, multiply};

use super::tensors::{floats, input, matrix, output, write, wrong};
use super::{Definition, Input, Output, Threads};

/// `Gemm` of ONNX, without `alpha` and `beta`: op(a)·op(b) (+ c), c `[n]`.
pub const GEMM: Definition = Definition {
    name: "Gemm",
    inputs: &[Input::Floats, Input::Floats, Input::OptionalFloats],
    outputs: &[Output::Floats],
    kernel: product,
};

/// The gradients of a linear layer's weight and bias: dyᵀ·x and the sums of dy's columns, from dy `[tokens, out]` and x `[tokens, in]`.
pub const WEIGHT_GRADIENT: Definition = Definition {
    name: "LinearWeightGrad",
    inputs: &[Input::Floats, Input::Floats],
    outputs: &[Output::Floats; 2],
    kernel: weight_gradient,
};

fn product(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let flag = |name: &str| context.get::<i64>(name).unwrap_or(0) == 1;
    let (trans_a, trans_b) = (flag("transA"), flag("transB"));
    // A weight that is a constant of the graph is packed once.
    let packed = match context.constant_input::<TensorValueType<f32>>(1) {
        Ok(weight) => Some(PackedB::pack(&Serial, Bf16, factor(&weight.into_dyn(), trans_b)?).kept()),
        Err(_) => None,
    };
    Ok(Box::new(move |context: &ComputeContext| {
        let (a, b) = (input(context, 0)?, input(context, 1)?);
        let bias = if context.num_inputs()? > 2 { context.input(2)? } else { None };
        let (a, b) = (factor(&a, trans_a)?, factor(&b, trans_b)?);
        let bias = bias.as_ref().map(floats).transpose()?;
        let (m, n) = (a.rows(), b.columns());
        if a.columns() != b.rows() || bias.as_ref().is_some_and(|(_, bias)| bias.len() != n) {
            return Err(wrong(format!("factors of {m}×{} and {}×{n}, or their bias, do not fit", a.columns(), b.rows())));
        }
        let then = bias.map_or(Then::Store, |(_, bias)| Then::Bias(bias));
        let pool = Threads(context);
        write(context, 0, &[m, n], |c| match &packed {
            Some(packed) => multiply(&pool, a, packed, then, None, c),
            None => gemm(&pool, Bf16, a, b, then, c),
        })
    }))
}

/// A factor of a product.
fn factor<'v>(value: &'v ValueRef<'_>, is_transposed: bool) -> ort::Result<Matrix<'v>> {
    let (rows, columns, data) = matrix(value)?;
    let matrix = Matrix::new(data, rows, columns);
    Ok(if is_transposed { matrix.t() } else { matrix })
}

fn weight_gradient(_: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    Ok(Box::new(|context: &ComputeContext| {
        let (dy, x) = (input(context, 0)?, input(context, 1)?);
        let ((tokens, to, dy), (rows, from, x)) = (matrix(&dy)?, matrix(&x)?);
        if tokens != rows {
            return Err(wrong(format!("{tokens} gradients for {rows} tokens")));
        }
        let mut sums = output(context, 1, &[to])?;
        let sums = sums.try_extract_tensor_mut::<f32>()?.1;
        let pool = Threads(context);
        let x = PackedB::pack(&pool, Bf16, Matrix::new(x, rows, from));
        write(context, 0, &[to, from], |dw| multiply(&pool, Matrix::new(dy, tokens, to).t(), &x, Then::Store, Some(sums), dw))
    }))
}
