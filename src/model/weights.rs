//! Named weights and their file, `model.safetensors`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::config::ModelError;
use super::imported;

/// The weights of a model as 32-bit floats, in the order of the files.
///
/// The encoder's are called as its own code calls them: prefixes that a file may have before them (`bert.`, `model.`), since it was
/// written from a model with a head, are left out. Those of a module come after its folder: `2_Dense.linear.weight`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: IndexMap<String, Tensor>,
}

#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    /// The module's folder; empty for the encoder.
    folder: String,
    /// What the file calls it.
    stored: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

/// The name of the file in every folder.
const FILE: &str = "model.safetensors";
/// What all encoders have, so that what stands before it is the prefix.
const LANDMARKS: [&str; 2] = ["embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"];

impl Weights {
    /// Reads the encoder's safetensors or ONNX file and those in the folders of modules beside it. Half-precision weights become 32-bit
    /// floats, tensors that are no floats (position numbers) are left out.
    ///
    /// # Errors
    /// A file is missing, is damaged, or is no safetensors file.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let mut weights = Weights::default();
        if is_onnx(path) {
            imported::weights(path)?.into_iter().for_each(|(name, shape, data)| weights.insert(&name, &shape, data));
        } else {
            weights.add(path, "")?;
        }
        for folder in folders(path) {
            weights.add(&root(path).join(&folder).join(FILE), &folder)?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path, folder: &str) -> Result<(), ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| {
            let message =
                format!("no intact safetensors file ({e}); get the file again, it may have been cut off while it was fetched");
            ModelError::invalid(path, message)
        })?;
        let mut names = file.names();
        names.sort_unstable();
        let prefix = prefix(&names).to_owned();
        for stored in names {
            let view = file.tensor(stored).map_err(|e| ModelError::invalid(path, format!("tensor `{stored}`: {e}")))?;
            let Some(data) = floats(&view) else { continue };
            if let Some(at) = data.iter().position(|x| !x.is_finite()) {
                return Err(ModelError::invalid(path, format!("tensor `{stored}` has {} at element {at}", data[at])));
            }
            let tensor = Tensor { folder: folder.to_owned(), stored: stored.to_owned(), shape: view.shape().to_vec(), data };
            let name = if folder.is_empty() { own_name(stored, &prefix) } else { format!("{folder}.{stored}") };
            // A head's weight may be called as one of the encoder's without its prefix.
            let name = if self.tensors.contains_key(&name) { stored.to_owned() } else { name };
            self.tensors.insert(name, tensor);
        }
        Ok(())
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
        let (folder, stored) = module_folder(name).map_or(("", name), |folder| (folder, &name[folder.len() + 1..]));
        let tensor = Tensor { folder: folder.to_owned(), stored: stored.to_owned(), shape: shape.to_vec(), data };
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Writes the encoder's weights to `path` and those of modules to their folders beside it, under the names that they were read
    /// by. The files say `format: pt`, without which transformers refuses them.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        self.write_if(path, |_| true)
    }

    /// As [`Weights::write`], without the encoder's weights.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_modules(&self, path: &Path) -> Result<(), ModelError> {
        self.write_if(path, |folder| !folder.is_empty())
    }

    fn write_if(&self, path: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let mut folders: Vec<&str> = self.tensors.values().map(|t| t.folder.as_str()).collect();
        folders.sort_unstable();
        folders.dedup();
        for folder in folders.into_iter().filter(|folder| wanted(folder)) {
            let path = if folder.is_empty() { path.to_owned() } else { path.with_file_name(folder).join(FILE) };
            self.write_folder(&path, folder)?;
        }
        Ok(())
    }

    fn write_folder(&self, path: &Path, folder: &str) -> Result<(), ModelError> {
        let bytes: Vec<(&Tensor, Vec<u8>)> = self
            .tensors
            .values()
            .filter(|t| t.folder == folder)
            .map(|t| (t, t.data.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let mut views = Vec::with_capacity(bytes.len());
        for (tensor, data) in &bytes {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data)
                .map_err(|e| ModelError::invalid(path, format!("tensor `{}`: {e}", tensor.stored)))?;
            views.push((tensor.stored.as_str(), view));
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let file = serialize(views, Some(metadata)).map_err(|e| ModelError::invalid(path, e.to_string()))?;
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, file));
        written.map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })
    }
}

/// The file that a weight of this name belongs into, `path` being the encoder's.
pub fn file_of(path: &Path, name: &str) -> PathBuf {
    module_folder(name).map_or_else(|| path.to_owned(), |folder| root(path).join(folder).join(FILE))
}

fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "onnx")
}

/// The folder of the model whose encoder's weights are in `path`.
fn root(path: &Path) -> &Path {
    if is_onnx(path) { imported::directory(path) } else { path.parent().unwrap_or(Path::new("")) }
}

/// The folder of the module that the weight belongs to. Such folders are numbered; no encoder's weight begins with a digit.
fn module_folder(name: &str) -> Option<&str> {
    let folder = name.split('.').next()?;
    (folder.len() < name.len() && folder.starts_with(|c: char| c.is_ascii_digit())).then_some(folder)
}

/// The folders of modules with weights beside the encoder's file, sorted.
fn folders(path: &Path) -> Vec<String> {
    let root = root(path);
    let entries = std::fs::read_dir(root).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbered = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains('.'));
    let mut folders: Vec<String> = numbered.filter(|name| root.join(name).join(FILE).is_file()).collect();
    folders.sort_unstable();
    folders
}

/// What stands before the encoder's names in a file with these names; nothing when that is not clear.
pub(super) fn prefix<'n>(names: &[&'n str]) -> &'n str {
    let mut found = names.iter().filter_map(|name| LANDMARKS.iter().find_map(|landmark| name.strip_suffix(landmark)));
    match (found.next(), found.next()) {
        (Some(prefix), None) if prefix.is_empty() || prefix.ends_with('.') => prefix,
        _ => "",
    }
}

/// The encoder's own name for a weight. Files from before 2019 call scale and shift of layer normalization gamma and beta.
fn own_name(stored: &str, prefix: &str) -> String {
    let name = stored.strip_prefix(prefix).unwrap_or(stored);
    match name.rsplit_once("LayerNorm.") {
        Some((before, "gamma")) => format!("{before}LayerNorm.weight"),
        Some((before, "beta")) => format!("{before}LayerNorm.bias"),
        _ => name.to_owned(),
    }
}

/// The elements as 32-bit floats; `None` when they are no floats.
fn floats(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    let pairs = || data.as_chunks::<2>().0.iter();
    Some(match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
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
    fn prefixes_are_left_out_and_written_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for prefix in ["", "bert.", "roberta.", "model.", "encoder.inner."] {
            let mut weights = Weights::default();
            let names = ["embeddings.word_embeddings.weight", "embeddings.LayerNorm.gamma", "embeddings.LayerNorm.beta"];
            names.iter().for_each(|name| weights.insert(&format!("{prefix}{name}"), &[1], vec![2.0]));
            weights.insert("classifier.bias", &[1], vec![1.0]);
            weights.write(&path).unwrap();
            let read = Weights::read(&path).unwrap();
            let own = [
                "embeddings.word_embeddings.weight",
                "embeddings.LayerNorm.weight",
                "embeddings.LayerNorm.bias",
                "classifier.bias",
            ];
            assert!(own.iter().all(|name| read.get(name).is_some()), "{prefix}: {:?}", read.names().collect::<Vec<_>>());
            let bytes = std::fs::read(&path).unwrap();
            read.write(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{prefix}");
        }
        // Two encoders in one file: neither is taken for the one.
        assert_eq!(prefix(&["a.embeddings.word_embeddings.weight", "b.embeddings.word_embeddings.weight"]), "");
    }

    #[test]
    fn weights_of_modules_lie_in_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut weights = Weights::default();
        weights.insert("a.weight", &[1], vec![1.0]);
        weights.insert("2_Dense.linear.weight", &[1, 2], vec![0.5, -0.5]);
        weights.write(&path).unwrap();
        assert_eq!(Weights::read(&path).unwrap(), weights);
        let file = folder.path().join("2_Dense/model.safetensors");
        assert_eq!(file_of(&path, "2_Dense.linear.weight"), file);
        let bytes = std::fs::read(file).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().names(), ["linear.weight"]);
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
}
