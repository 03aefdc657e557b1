//! retune's own operators, for the processor: kernels of the crate `retune-kernels`, made known to ONNX Runtime as the operator
//! domain `retune`. To add one: a file here with its [`Definition`], a line in [`ALL`], and the method and rule that build it in
//! a graph (`onnx/ops/own.rs`).

mod attention;
mod dropout;
mod gelu;
mod gemm;
mod gemm_norm;
mod layer_norm;
mod tensors;

use std::sync::Arc;

use anyhow::{Result, anyhow};
use ort::operator::{BoxedKernel, ComputeContext, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use retune_kernels::Pool;

use crate::onnx::proto::OWN;

const ALL: &[Definition] = &[
    attention::FORWARD,
    attention::FORWARD_BF16,
    attention::BACKWARD,
    attention::BACKWARD_BF16,
    dropout::DROPOUT,
    gelu::FORWARD,
    gelu::BACKWARD,
    gemm::GEMM,
    gemm::GEMM_BF16,
    gemm::GELU,
    gemm::SCALE,
    gemm::SCALE_BF16,
    gemm::SUM,
    gemm::WEIGHT_GRADIENT,
    gemm_norm::FORWARD,
    gemm_norm::BACKWARD,
    layer_norm::ADD,
    layer_norm::BACKWARD,
];

/// An operator: its signature and the function that makes its kernel from a node's attributes.
#[derive(Clone, Copy)]
struct Definition {
    name: &'static str,
    inputs: &'static [Input],
    outputs: &'static [Output],
    kernel: fn(&KernelContext) -> ort::Result<BoxedKernel<'static>>,
}

/// The type of an input.
#[derive(Clone, Copy)]
enum Input {
    Floats,
    Integers,
    /// This and all that follow are of any type.
    Any,
}

/// The type of an output.
#[derive(Clone, Copy)]
enum Output {
    Floats,
    Bf16,
    /// Only where something reads it, as the next.
    OptionalFloats,
    OptionalBf16,
}

impl Operator for Definition {
    type Kernel<'attr> = BoxedKernel<'attr>;

    fn name(&self) -> &str {
        self.name
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.inputs.iter().map(|input| match input {
            Input::Floats => OperatorInput::required(TensorElementType::Float32),
            Input::Integers => OperatorInput::required(TensorElementType::Int64),
            Input::Any => OperatorInput::variadic(1),
        })
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.outputs.iter().map(|output| match output {
            Output::Floats => OperatorOutput::required(TensorElementType::Float32),
            Output::Bf16 => OperatorOutput::required(TensorElementType::Bfloat16),
            Output::OptionalFloats => OperatorOutput::optional(TensorElementType::Float32),
            Output::OptionalBf16 => OperatorOutput::optional(TensorElementType::Bfloat16),
        })
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> ort::Result<Self::Kernel<'attr>> {
        (self.kernel)(context)
    }
}

/// The domain with all operators, for one session.
///
/// # Errors
/// ONNX Runtime refuses one.
pub(super) fn domain() -> Result<Arc<OperatorDomain>> {
    let fail = |e: ort::Error| anyhow!("ONNX Runtime refuses retune's operators: {e}");
    let mut domain = OperatorDomain::new(OWN).map_err(fail)?;
    for definition in ALL {
        domain = domain.add(*definition).map_err(fail)?;
    }
    #[expect(clippy::arc_with_non_send_sync, reason = "what ort's session builder wants")]
    Ok(Arc::new(domain))
}

/// ONNX Runtime's own threads, for the kernels.
struct Threads<'a>(&'a ComputeContext);

// SAFETY: kernels call `run` from the thread that ONNX Runtime computes the node on; tasks, which run on others, never see the context.
unsafe impl Sync for Threads<'_> {}

impl Pool for Threads<'_> {
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // Fails only when the context is not ONNX Runtime's.
        if self.0.par_for(tasks, tasks, task).is_err() {
            (0..tasks).for_each(task);
        }
    }
}
