//! Activation functions, by the names that configurations give them.

use crate::onnx::{Graph, Value};

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Identity,
    /// Exact, by the error function.
    Gelu,
    /// By its approximation with tanh.
    GeluTanh,
    Relu,
    Sigmoid,
    /// `x · sigmoid(x)`
    Silu,
    Tanh,
}

impl Activation {
    /// By transformers' name, as in `hidden_act`.
    ///
    /// # Errors
    /// It is not known; the message lists those that are, and calls the field `field`.
    pub fn named(field: &str, name: &str) -> Result<Self, String> {
        Ok(match name {
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            "silu" | "swish" => Activation::Silu,
            "tanh" => Activation::Tanh,
            _ => return Err(format!("`{field}` `{name}` is not supported; `gelu`, `gelu_new`, `relu`, `silu` and `tanh` are")),
        })
    }

    /// By the path of PyTorch's class, as in the configuration of a Dense module.
    ///
    /// # Errors
    /// It is not known; the message lists those that are.
    pub fn of_torch(path: &str) -> Result<Self, String> {
        Ok(match path.strip_prefix("torch.nn.modules.") {
            Some("linear.Identity") => Activation::Identity,
            Some("activation.GELU") => Activation::Gelu,
            Some("activation.ReLU") => Activation::Relu,
            Some("activation.Sigmoid") => Activation::Sigmoid,
            Some("activation.SiLU") => Activation::Silu,
            Some("activation.Tanh") => Activation::Tanh,
            _ => {
                return Err(format!(
                    "`activation_function` `{path}` is not supported; `torch.nn.modules.linear.Identity` and, of \
                     `torch.nn.modules.activation`, `GELU`, `ReLU`, `Sigmoid`, `SiLU` and `Tanh` are"
                ));
            }
        })
    }

    /// The function of `x`.
    pub fn apply(self, g: &Graph, x: Value) -> Value {
        match self {
            Activation::Identity => x,
            Activation::Gelu => g.gelu(x),
            Activation::GeluTanh => {
                let cube = g.mul(x, g.mul(x, x));
                let inner = g.scale(g.add(x, g.scale(cube, 0.044_715)), std::f32::consts::FRAC_2_PI.sqrt());
                g.mul(g.scale(x, 0.5), g.add(g.tanh(inner), g.scalar(1.0)))
            }
            Activation::Relu => g.relu(x),
            Activation::Sigmoid => g.sigmoid(x),
            Activation::Silu => g.mul(x, g.sigmoid(x)),
            Activation::Tanh => g.tanh(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::DataType;
    use crate::onnx::finite_differences::{check, run};
    use crate::shape;

    #[test]
    fn values_are_those_of_pytorch() {
        // torch.nn.functional.gelu(approximate="tanh"), silu, at −1.5, 0.25 and 2.
        for (activation, expected) in [
            (Activation::GeluTanh, [-0.100_428_42, 0.149_675_35, 1.954_597_7]),
            (Activation::Silu, [-0.273_638_23, 0.140_544_16, 1.761_594_2]),
        ] {
            let g = Graph::new();
            let x = g.input("x", DataType::F32, shape![3]);
            g.output("y", activation.apply(&g, x));
            let (_, y) = run(&g, &[("x", &[3], &[-1.5, 0.25, 2.0])]).remove(0);
            assert!(y.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{activation:?}: {y:?}");
        }
    }

    #[test]
    fn gradients() {
        for activation in [Activation::GeluTanh, Activation::Silu, Activation::Sigmoid, Activation::Tanh] {
            check(&format!("{activation:?}"), &[&[9]], |g, x| activation.apply(g, x[0]));
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        insta::assert_snapshot!(Activation::named("hidden_act", "mish").unwrap_err(), @"`hidden_act` `mish` is not supported; `gelu`, `gelu_new`, `relu`, `silu` and `tanh` are");
        assert!(Activation::of_torch("os.system").unwrap_err().starts_with("`activation_function` `os.system` is not supported"));
    }
}
