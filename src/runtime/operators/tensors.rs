//! Inputs and outputs of a node as slices.

use half::slice::HalfFloatSliceExt;
use ort::operator::ComputeContext;
use ort::value::{TensorElementType, ValueRef, ValueRefMut};
use retune_kernels::{Matrix, Numbers, NumbersMut};

/// An error of an operator, for ONNX Runtime.
pub fn wrong(message: impl Into<String>) -> ort::Error {
    ort::Error::new(message)
}

/// Input `index`, which must be there.
pub fn input(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    context.input(index)?.ok_or_else(|| wrong(format!("input {index} is missing")))
}

/// Input `index`, if the node has it.
pub fn optional_input(context: &ComputeContext, index: usize) -> ort::Result<Option<ValueRef<'_>>> {
    if context.num_inputs()? > index { context.input(index) } else { Ok(None) }
}

/// Shape and elements of a float input.
pub fn floats<'v>(value: &'v ValueRef<'_>) -> ort::Result<(Vec<usize>, &'v [f32])> {
    let (shape, data) = value.try_extract_tensor::<f32>()?;
    Ok((shape.iter().map(|&d| d.max(0) as usize).collect(), data))
}

/// The elements of an integer input.
pub fn integers<'v>(value: &'v ValueRef<'_>) -> ort::Result<&'v [i64]> {
    Ok(value.try_extract_tensor::<i64>()?.1)
}

/// Shape and elements of an input of floats or of bf16 numbers.
pub fn numbers<'v>(value: &'v ValueRef<'_>) -> ort::Result<(Vec<usize>, Numbers<'v>)> {
    if value.dtype().tensor_type() != Some(TensorElementType::Bfloat16) {
        return floats(value).map(|(shape, data)| (shape, data.into()));
    }
    let (shape, data) = value.try_extract_tensor::<half::bf16>()?;
    Ok((shape.iter().map(|&d| d.max(0) as usize).collect(), data.reinterpret_cast().into()))
}

/// A matrix of floats or of bf16 numbers.
pub fn matrix<'v>(value: &'v ValueRef<'_>) -> ort::Result<Matrix<'v>> {
    let (shape, data) = numbers(value)?;
    match shape[..] {
        [rows, columns] => Ok(Matrix::new(data, rows, columns)),
        _ => Err(wrong(format!("a matrix is wanted, not {shape:?}"))),
    }
}

/// Lets `fill` write output `index`, of floats.
pub fn write(context: &ComputeContext, index: usize, shape: &[usize], fill: impl FnOnce(&mut [f32])) -> ort::Result<()> {
    let mut value = output(context, index, shape)?;
    fill(value.try_extract_tensor_mut::<f32>()?.1);
    Ok(())
}

/// Output `index`, allocated.
pub fn output<'c>(context: &'c ComputeContext, index: usize, shape: &[usize]) -> ort::Result<ValueRefMut<'c>> {
    optional_output(context, index, shape)?.ok_or_else(|| wrong(format!("output {index} is missing")))
}

/// Output `index`, allocated, if the node has it.
pub fn optional_output<'c>(context: &'c ComputeContext, index: usize, shape: &[usize]) -> ort::Result<Option<ValueRefMut<'c>>> {
    if context.num_outputs()? > index { context.output(index, shape.to_vec()) } else { Ok(None) }
}

/// The elements of an output of floats or of bf16 numbers, to be written.
pub fn numbers_mut<'v>(value: &'v mut ValueRefMut<'_>) -> ort::Result<NumbersMut<'v>> {
    if value.dtype().tensor_type() == Some(TensorElementType::Bfloat16) {
        return Ok(NumbersMut::Bf16(bf16(value)?));
    }
    Ok(NumbersMut::Fp32(value.try_extract_tensor_mut::<f32>()?.1))
}

/// The elements of an output of bf16 numbers, to be written.
pub fn bf16<'v>(value: &'v mut ValueRefMut<'_>) -> ort::Result<&'v mut [u16]> {
    Ok(value.try_extract_tensor_mut::<half::bf16>()?.1.reinterpret_cast_mut())
}

/// The elements of an output of floats or, where nothing reads it, `len` numbers for the kernel to write to.
pub fn or_scratch<'v>(
    output: &'v mut Option<ValueRefMut<'_>>,
    scratch: &'v mut Vec<f32>,
    len: usize,
) -> ort::Result<&'v mut [f32]> {
    match output {
        Some(value) => Ok(value.try_extract_tensor_mut::<f32>()?.1),
        None => {
            scratch.resize(len, 0.0);
            Ok(scratch)
        }
    }
}
