//! How exactly matrix products are computed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::onnx::Operators;

/// How exactly matrix products are computed. Everything else, and all sums, are in single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `bf16` on processors that have instructions for it (AMX, AVX-512 BF16), else `fp32`.
    #[default]
    Auto,
    /// Single precision.
    Fp32,
    /// Factors are rounded to bfloat16, as in PyTorch's bf16 autocast; weights, gradients and sums stay in single precision. Fast where the
    /// processor has instructions for it, slow elsewhere.
    Bf16,
}

impl Precision {
    /// Whether factors are rounded on this machine.
    pub fn is_bf16(self) -> bool {
        match self {
            Precision::Auto => retune_kernels::Isa::best().has_bf16(),
            Precision::Fp32 => false,
            Precision::Bf16 => true,
        }
    }

    /// The operators that compute so on the processor.
    pub fn operators(self) -> Operators {
        Operators::Own { bf16: self.is_bf16() }
    }
}
