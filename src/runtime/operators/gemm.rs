//! Matrix products of factors that are rounded to bfloat16, or that are there in bfloat16, and what follows them.

use ort::operator::{BoxedKernel, ComputeContext, KernelContext};
use ort::value::{TensorValueType, ValueRef};
use retune_kernels::gemm::{self, PackedB, Then, gemm, multiply};
use retune_kernels::{Isa, Matrix, NumbersMut, Precision, Serial};

use super::tensors::{floats, input, matrix, numbers, numbers_mut, optional_input, optional_output, output, write, wrong};
use super::{Definition, Input, Output, Threads};

/// `Gemm` of ONNX, without `alpha` and `beta`: op(a)·op(b) (+ c), c `[n]`.
pub const GEMM: Definition = Definition { name: "Gemm", inputs: &[Input::Any], outputs: &[Output::Floats], kernel: product };

/// [`GEMM`] in bf16.
pub const GEMM_BF16: Definition = Definition { name: "GemmBf16", outputs: &[Output::Bf16], ..GEMM };

/// GELU of [`GEMM`], and its derivative there if it is wanted.
pub const GELU: Definition =
    Definition { name: "GemmGelu", inputs: &[Input::Any], outputs: &[Output::Bf16, Output::OptionalBf16], kernel: gelu };

/// The product of two matrices, times the third input, element by element.
pub const SCALE: Definition = Definition { name: "GemmScale", inputs: &[Input::Any], outputs: &[Output::Floats], kernel: scale };

/// [`SCALE`] in bf16.
pub const SCALE_BF16: Definition = Definition { name: "GemmScaleBf16", outputs: &[Output::Bf16], ..SCALE };

/// The sum of the products of pairs of matrices, as many as `transB` has flags for the second of each, and of one more input if there is one.
pub const SUM: Definition = Definition { name: "GemmSum", inputs: &[Input::Any], outputs: &[Output::Floats], kernel: sum };

/// The gradients of a linear layer's weight and bias: dyᵀ·x and the sums of dy's columns, from dy `[tokens, out]` and x `[tokens, in]`.
pub const WEIGHT_GRADIENT: Definition =
    Definition { name: "LinearWeightGrad", inputs: &[Input::Any], outputs: &[Output::Floats; 2], kernel: weight_gradient };

pub fn precision() -> Precision {
    Isa::best().fastest()
}

pub fn flag(context: &KernelContext, name: &str) -> bool {
    context.get::<i64>(name) == Some(1)
}

pub fn transposed(matrix: Matrix<'_>, is_transposed: bool) -> Matrix<'_> {
    if is_transposed { matrix.t() } else { matrix }
}

/// Whether the factors multiply.
pub fn check(a: &Matrix, b: &Matrix) -> ort::Result<()> {
    if a.columns() == b.rows() {
        return Ok(());
    }
    Err(wrong(format!("factors of {}×{} and {}×{} do not multiply", a.rows(), a.columns(), b.rows(), b.columns())))
}

/// The bias of a product of `width` columns, in input `index`, if it is there.
pub fn bias<'v>(value: Option<&'v ValueRef<'_>>, width: usize) -> ort::Result<Option<&'v [f32]>> {
    let bias = value.map(floats).transpose()?.map(|(_, bias)| bias);
    if bias.is_some_and(|bias| bias.len() != width) {
        return Err(wrong(format!("a bias of {width} numbers is wanted")));
    }
    Ok(bias)
}

/// The second factor, packed once if it is a constant of the graph: a weight that is not trained.
pub fn constant(context: &KernelContext, is_transposed: bool) -> ort::Result<Option<PackedB>> {
    let Ok(weight) = context.constant_input::<TensorValueType<f32>>(1) else { return Ok(None) };
    Ok(Some(PackedB::pack(&Serial, precision(), transposed(matrix(&weight.into_dyn())?, is_transposed)).kept()))
}

/// a·b, b being packed already if it is a constant.
fn multiplied(context: &ComputeContext, a: Matrix, b: Matrix, packed: Option<&PackedB>, then: Then, c: NumbersMut) {
    match packed {
        Some(packed) => multiply(&Threads(context), &[a], packed, then, None, c),
        None => gemm(&Threads(context), precision(), a, b, then, c),
    }
}

fn product(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let (trans_a, trans_b) = (flag(context, "transA"), flag(context, "transB"));
    let packed = constant(context, trans_b)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let (a, b, c) = (input(context, 0)?, input(context, 1)?, optional_input(context, 2)?);
        let (a, b) = (transposed(matrix(&a)?, trans_a), transposed(matrix(&b)?, trans_b));
        check(&a, &b)?;
        let then = bias(c.as_ref(), b.columns())?.map_or(Then::Store, Then::Bias);
        let mut y = output(context, 0, &[a.rows(), b.columns()])?;
        multiplied(context, a, b, packed.as_ref(), then, numbers_mut(&mut y)?);
        Ok(())
    }))
}

fn gelu(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let trans_b = flag(context, "transB");
    let packed = constant(context, trans_b)?;
    Ok(Box::new(move |context: &ComputeContext| {
        let (a, b, c) = (input(context, 0)?, input(context, 1)?, optional_input(context, 2)?);
        let (a, b) = (matrix(&a)?, transposed(matrix(&b)?, trans_b));
        check(&a, &b)?;
        let shape = [a.rows(), b.columns()];
        let (mut y, mut slope) = (output(context, 0, &shape)?, optional_output(context, 1, &shape)?);
        let then = Then::Gelu { bias: bias(c.as_ref(), b.columns())?, slope: slope.as_mut().map(numbers_mut).transpose()? };
        multiplied(context, a, b, packed.as_ref(), then, numbers_mut(&mut y)?);
        Ok(())
    }))
}

fn scale(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let trans_b = flag(context, "transB");
    Ok(Box::new(move |context: &ComputeContext| {
        let (a, b, factors) = (input(context, 0)?, input(context, 1)?, input(context, 2)?);
        let (a, b, (shape, factors)) = (matrix(&a)?, transposed(matrix(&b)?, trans_b), numbers(&factors)?);
        check(&a, &b)?;
        if shape != [a.rows(), b.columns()] {
            return Err(wrong(format!("factors of {shape:?} do not fit a product of {}×{}", a.rows(), b.columns())));
        }
        let mut y = output(context, 0, &shape)?;
        gemm(&Threads(context), precision(), a, b, Then::Scale(factors), numbers_mut(&mut y)?);
        Ok(())
    }))
}

/// The factors of products of one shape, at least one.
pub fn pairs<'v>(inputs: &'v [ValueRef<'_>], flags: &[i64]) -> ort::Result<(Vec<Matrix<'v>>, Vec<Matrix<'v>>)> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (pair, &flag) in inputs.chunks_exact(2).zip(flags) {
        let (a, b) = (matrix(&pair[0])?, transposed(matrix(&pair[1])?, flag == 1));
        check(&a, &b)?;
        left.push(a);
        right.push(b);
    }
    let same = |a: &Matrix, b: &Matrix| a.rows() == left[0].rows() && b.columns() == right[0].columns();
    if left.is_empty() || !left.iter().zip(&right).all(|(a, b)| same(a, b)) {
        return Err(wrong("products of one shape are wanted"));
    }
    Ok((left, right))
}

fn sum(context: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    let flags: Vec<i64> = context.get("transB").ok_or_else(|| wrong("`transB` is missing"))?;
    Ok(Box::new(move |context: &ComputeContext| {
        let inputs = (0..2 * flags.len()).map(|i| input(context, i)).collect::<ort::Result<Vec<_>>>()?;
        let (left, right) = pairs(&inputs, &flags)?;
        let shape = [left[0].rows(), right[0].columns()];
        let summand = optional_input(context, inputs.len())?;
        let summand = summand.as_ref().map(floats).transpose()?;
        if summand.as_ref().is_some_and(|(of, _)| of[..] != shape) {
            return Err(wrong("what is added to the products has another shape"));
        }
        let then = summand.map_or(Then::Store, |(_, summand)| Then::Add(summand));
        let pool = Threads(context);
        let right = PackedB::pack_all(&pool, precision(), &right);
        write(context, 0, &shape, |c| multiply(&pool, &left, &right, then, None, c))
    }))
}

fn weight_gradient(_: &KernelContext) -> ort::Result<BoxedKernel<'static>> {
    Ok(Box::new(|context: &ComputeContext| {
        let (dy, x) = (input(context, 0)?, input(context, 1)?);
        let (dy, x) = (matrix(&dy)?, matrix(&x)?);
        check(&dy.t(), &x)?;
        let mut sums = output(context, 1, &[dy.columns()])?;
        let sums = sums.try_extract_tensor_mut::<f32>()?.1;
        write(context, 0, &[dy.columns(), x.columns()], |dw| {
            gemm::weight_gradient(&Threads(context), precision(), dy, x, dw, sums)
        })
    }))
}
