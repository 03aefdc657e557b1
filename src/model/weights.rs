//! Named weights and their file, `model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::config::ModelError;

/// The weights of a model as 32-bit floats, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: IndexMap<String, Tensor>,
}

#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Weights {
    /// Reads a safetensors file; half-precision weights become 32-bit floats, tensors that are no floats (position numbers) are left out.
    ///
    /// # Errors
    /// The file is missing, is damaged, or is no safetensors file.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| {
            let message =
                format!("no intact safetensors file ({e}); get the file again, it may have been cut off while it was fetched");
            ModelError::invalid(path, message)
        })?;
        let mut names = file.names();
        names.sort_unstable();
        let mut tensors = IndexMap::new();
        for name in names {
            let view = file.tensor(name).map_err(|e| ModelError::invalid(path, format!("tensor `{name}`: {e}")))?;
            let Some(data) = floats(&view) else { continue };
            if let Some(at) = data.iter().position(|x| !x.is_finite()) {
                return Err(ModelError::invalid(path, format!("tensor `{name}` has {} at element {at}", data[at])));
            }
            // Checkpoints of a model with a head have the encoder under this prefix.
            let name = name.strip_prefix("bert.").unwrap_or(name);
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
        }
        Ok(Weights { tensors })
    }

    /// Shape and elements of a weight.
    pub fn get(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.tensors.get(name).map(|t| (t.shape.as_slice(), t.data.as_slice()))
    }

    /// The elements of a weight, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut [f32]> {
        self.tensors.get_mut(name).map(|t| t.data.as_mut_slice())
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The number of elements of all weights.
    pub fn size(&self) -> usize {
        self.tensors.values().map(|t| t.data.len()).sum()
    }

    /// Adds a weight.
    pub fn insert(&mut self, name: &str, shape: &[usize], data: Vec<f32>) {
        self.tensors.insert(name.to_owned(), Tensor { shape: shape.to_vec(), data });
    }

    /// Writes a safetensors file that says `format: pt`, without which transformers refuses it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let bytes: Vec<(&String, &Tensor, Vec<u8>)> =
            self.tensors.iter().map(|(n, t)| (n, t, t.data.iter().flat_map(|x| x.to_le_bytes()).collect())).collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (name, tensor, data) in &bytes {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data)
                .map_err(|e| ModelError::invalid(path, format!("tensor `{name}`: {e}")))?;
            views.push((name.as_str(), view));
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let file = serialize(views, Some(metadata)).map_err(|e| ModelError::invalid(path, e.to_string()))?;
        std::fs::write(path, file).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })
    }
}

/// The elements as 32-bit floats; `None` when they are no floats.
fn floats(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    let pairs = || data.as_chunks::<2>().0.iter();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::BF16 => pairs().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect(),
        Dtype::F16 => pairs().map(|b| half(u16::from_le_bytes(*b))).collect(),
        _ => return None,
    })
}

/// A 16-bit float (IEEE 754 binary16) as a 32-bit one.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(e) - 15),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut weights = Weights::default();
        weights.insert("a.weight", &[2, 2], vec![1.0, -2.5, 0.0, 3.0]);
        weights.insert("b.bias", &[1], vec![0.5]);
        weights.write(&path).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut weights = Weights::default();
        weights.insert("a.weight", &[2, 2], vec![1.0; 4]);
        weights.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 4, 8, 20, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let message = Weights::read(&path).unwrap_err().to_string();
            assert!(message.contains("model.safetensors") && message.contains("get the file again"), "{message}");
        }
        let mut nan = Weights::default();
        nan.insert("a.weight", &[1], vec![f32::NAN]);
        nan.write(&path).unwrap();
        assert!(Weights::read(&path).unwrap_err().to_string().contains("tensor `a.weight` has NaN at element 0"));
    }

    #[test]
    fn half_precision() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0x7bff, 65504.0)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0x7c00).is_infinite());
    }
}
