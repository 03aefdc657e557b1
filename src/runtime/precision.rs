//! How exactly matrix products are computed.

use anyhow::{Result, bail};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use retune_kernels::Isa;

use super::device::Device;
use crate::onnx::{DataType, Operators};

/// Compute capability from which GPUs multiply bfloat16.
const BF16_FROM: (u32, u32) = (8, 0);

/// How exactly matrix products are computed. Everything else, and all sums, are in single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `bf16` on processors that have fast instructions for it (AMX, AVX-512 BF16 of AMD), else `fp32`; on GPUs `fp32`.
    #[default]
    Auto,
    /// Single precision.
    Fp32,
    /// Factors are rounded to bfloat16, as in PyTorch's bf16 autocast; weights, gradients and sums stay in single precision. Fast where the
    /// processor or GPU has fast instructions for it. Other processors keep values between products in bfloat16, but multiply in single
    /// precision: no faster than `fp32`, in less memory.
    Bf16,
    /// On GPUs: factors are rounded to half precision, and losses are scaled so that small gradients survive.
    Fp16,
}

impl Precision {
    /// Whether the device computes so.
    ///
    /// # Errors
    /// It does not; the message says what to take.
    pub fn check(self, device: &Device) -> Result<()> {
        match (self, device) {
            (Precision::Fp16, Device::Cpu) => {
                bail!("`precision: fp16` is for GPUs; take `bf16`, `fp32` or `auto` on the processor")
            }
            (Precision::Bf16, Device::Cuda { name, capability, .. }) if *capability < BF16_FROM => {
                bail!(
                    "`precision: bf16` wants a GPU of compute capability 8.0 or later, and {name} has {}.{}; take `fp16`",
                    capability.0,
                    capability.1
                )
            }
            _ => Ok(()),
        }
    }

    /// Whether factors are rounded to bfloat16 on this machine's processor.
    pub fn is_bf16(self) -> bool {
        match self {
            Precision::Auto => Isa::best().fastest() == retune_kernels::Precision::Bf16,
            Precision::Fp32 | Precision::Fp16 => false,
            Precision::Bf16 => true,
        }
    }

    /// How `device` multiplies: `fp32`, `bf16` or `fp16`.
    pub fn name(self, device: &Device) -> &'static str {
        match self.half(device) {
            Some(DataType::F16) => "fp16",
            Some(_) => "bf16",
            None if self.operators(device) == (Operators::Own { bf16: true }) => "bf16",
            None => "fp32",
        }
    }

    /// The operators that compute so on `device`.
    pub fn operators(self, device: &Device) -> Operators {
        match device {
            Device::Cpu => Operators::Own { bf16: self.is_bf16() },
            Device::Cuda { .. } => Operators::Released,
        }
    }

    /// The type that a GPU multiplies in, when it is not single precision.
    pub fn half(self, device: &Device) -> Option<DataType> {
        match (self, device) {
            (Precision::Bf16, Device::Cuda { .. }) => Some(DataType::Bf16),
            (Precision::Fp16, Device::Cuda { .. }) => Some(DataType::F16),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_cannot_compute_is_refused() {
        let gpu = |capability| Device::Cuda { number: 0, name: "Tesla T4".into(), capability };
        insta::assert_snapshot!(Precision::Fp16.check(&Device::Cpu).unwrap_err(), @"`precision: fp16` is for GPUs; take `bf16`, `fp32` or `auto` on the processor");
        insta::assert_snapshot!(Precision::Bf16.check(&gpu((7, 5))).unwrap_err(), @"`precision: bf16` wants a GPU of compute capability 8.0 or later, and Tesla T4 has 7.5; take `fp16`");
        assert!(Precision::Bf16.check(&gpu((9, 0))).is_ok() && Precision::Fp16.check(&gpu((7, 5))).is_ok());
        assert_eq!(Precision::Auto.half(&gpu((9, 0))), None);
        assert_eq!(Precision::Bf16.half(&Device::Cpu), None);
    }
}
