//! An encoder that comes as an ONNX file: `onnx/model.onnx`, or `model.onnx`.
//!
//! It is taken where a directory has no `model.safetensors`, or one of an encoder that cannot be built. Its weights become trainable
//! like those of any other, and after a training the file is written again with nothing but them changed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::architecture::{self, Encoder};
use super::builder::Builder;
use super::config::ModelError;
use super::settings::Settings;
use super::weights::{Weights, prefix};
use crate::onnx::import::tensor::Data;
use crate::onnx::import::{ImportError, OnnxFile, Port};
use crate::onnx::{DataType, Dim, Graph, Value};
use crate::shape;

/// Name, shape and elements of a weight.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Where the file may lie.
const FILES: [&str; 2] = ["onnx/model.onnx", "model.onnx"];
/// Outputs that exporters give token vectors, and vectors of whole texts.
const TOKEN_VECTORS: [&str; 3] = ["last_hidden_state", "token_embeddings", "hidden_states"];
const SENTENCE_VECTORS: [&str; 2] = ["sentence_embedding", "sentence_embeddings"];
/// Tokens of the longest text, where nothing says.
const MOST_TOKENS: usize = 512;
/// Encoders that count the places of tokens from 2, so that the first two of their positions are for no token.
const FROM_TWO: [&str; 4] = ["roberta", "xlm-roberta", "camembert", "mpnet"];

/// The ONNX file of a model directory, when its encoder is to be imported.
pub fn locate(directory: &Path) -> Option<PathBuf> {
    let file = FILES.iter().map(|name| directory.join(name)).find(|path| path.is_file())?;
    is_wanted(directory).then_some(file)
}

/// Whether only an ONNX file could make the directory a model: it has no `model.safetensors`, or one of an encoder that cannot be built.
pub fn is_wanted(directory: &Path) -> bool {
    let unknown = || {
        let settings = Settings::read(&directory.join("config.json")).ok()?;
        settings.text(&["model_type"], "").ok().filter(|kind| !architecture::knows(kind))
    };
    !directory.join("model.safetensors").is_file() || unknown().is_some()
}

/// The files that an ONNX file of a model directory consists of, relative to the directory: itself, and the one with its data
/// where exporters put that beside it.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let Some(file) = locate(directory) else { return Vec::new() };
    let beside = ["_data", ".data"].map(|ending| {
        let mut name = file.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    });
    let all = std::iter::once(file).chain(beside.into_iter().filter(|path| path.is_file()));
    all.filter_map(|path| path.strip_prefix(directory).map(Path::to_owned).ok()).collect()
}

/// The directory of the model whose ONNX file is `file`.
pub fn directory(file: &Path) -> &Path {
    let folder = file.parent().unwrap_or(Path::new(""));
    if folder.ends_with("onnx") { folder.parent().unwrap_or(folder) } else { folder }
}

/// See the [module](self).
pub struct Imported {
    file: OnnxFile,
    inputs: Vec<Port>,
    output: String,
    /// Whether the output is one vector a text.
    pooled: bool,
    width: usize,
    max_tokens: usize,
}

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imported").field("file", &self.file.path()).field("output", &self.output).finish()
    }
}

fn refused(error: ImportError) -> ModelError {
    match error {
        ImportError::Unreadable { path, source } => ModelError::Unreadable { path, source },
        ImportError::Invalid { path, message } => ModelError::Imported { message: format!("`{}` {message}", path.display()) },
        error => ModelError::Imported { message: error.to_string() },
    }
}

impl Imported {
    /// Reads the ONNX file of a model directory, and imports it once to see whether that goes well.
    ///
    /// # Errors
    /// It is damaged, has inputs or operators that are not known, or no output that could be token vectors.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut file = OnnxFile::read(path).map_err(refused)?;
        let folder = directory(path);
        let settings = Settings::read(&folder.join("config.json")).ok();
        let kind = settings.as_ref().and_then(|s| s.text(&["model_type"], "").ok()).unwrap_or_default();
        let from_two = FROM_TWO.contains(&kind.as_str());
        let positions = settings.as_ref().and_then(|s| s.count(&["max_position_embeddings", "n_positions"]).ok().flatten());
        let max_tokens = positions.map_or(MOST_TOKENS, |n| if from_two { n.saturating_sub(2) } else { n });
        let inputs = inputs(&file, from_two)?;
        let (output, pooled) = output(&file)?;
        rename(&mut file, &output, folder)?;
        let mut imported = Imported { file, inputs, output, pooled, width: 0, max_tokens };
        imported.width = imported.try_out()?;
        Ok(imported)
    }

    /// The length of a vector.
    fn try_out(&self) -> Result<usize, ModelError> {
        let g = Graph::new();
        let ids = g.input("ids", DataType::I64, shape!["rows", "seq"]);
        let given: Vec<(&str, Value)> = self.inputs.iter().map(|port| (port.name.as_str(), ids)).collect();
        let weight = |name: &str, shape: &[usize]| Some(g.input(name, DataType::F32, shape.iter().map(|&d| d.into()).collect()));
        let value = self.file.import(&g, &given, &self.output, &weight).map_err(refused)?;
        let rank = if self.pooled { 2 } else { 3 };
        match g.shape(value).as_slice() {
            shape if shape.len() != rank => {
                Err(self.unsupported(format!("its output `{}` has {} dimensions instead of {rank}", self.output, shape.len())))
            }
            [.., Dim::Fixed(width)] => Ok(*width),
            _ => Err(self.unsupported(format!("how long the vectors in its output `{}` are cannot be told", self.output))),
        }
    }

    fn unsupported(&self, message: String) -> ModelError {
        ModelError::unsupported(self.file.path(), message)
    }

    /// The weights by name, in the order of use.
    fn weights(&self) -> Result<Vec<NamedTensor>, ModelError> {
        let tensors = self.file.weights(&self.output).map_err(refused)?;
        let floats = |(name, tensor): (String, crate::onnx::import::tensor::Tensor)| match tensor.data {
            Data::Floats(data) => Some((name, tensor.dims, data)),
            _ => None,
        };
        Ok(tensors.into_iter().filter_map(floats).collect())
    }
}

impl Encoder for Imported {
    fn hidden_size(&self) -> usize {
        self.width
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn pooled(&self) -> bool {
        self.pooled
    }

    /// It runs on padded texts, as it was exported.
    fn build(&self, b: &Builder) -> Value {
        let value = |port: &Port| match port.name.as_str() {
            "input_ids" => b.layout.padded_ids(b.g),
            "attention_mask" => b.g.cast(b.layout.mask(), DataType::I64),
            "token_type_ids" => b.layout.padded_types(b.g),
            _ => b.g.expand(b.g.range("seq"), b.layout.mask()),
        };
        let given: Vec<(&str, Value)> = self.inputs.iter().map(|port| (port.name.as_str(), value(port))).collect();
        let weight = |name: &str, shape: &[usize]| Some(b.weight(name, shape));
        match self.file.import(b.g, &given, &self.output, &weight) {
            Ok(value) if self.pooled => value,
            // Sizes that the graph only finds when it runs are those of its inputs.
            Ok(value) => b.layout.collect(b.g, b.g.reshape(value, shape!["rows", "seq", self.width]), self.width),
            Err(error) => {
                b.g.fail(error.to_string());
                b.g.constant(&[1, self.width], &vec![0.0; self.width])
            }
        }
    }
}

/// The weights of the encoder in the ONNX file `path`.
///
/// # Errors
/// As [`Imported::open`].
pub fn weights(path: &Path) -> Result<Vec<NamedTensor>, ModelError> {
    Imported::open(path)?.weights()
}

/// The ONNX file `path` with other weights.
///
/// # Errors
/// As [`Imported::open`]; or a weight has another shape.
pub fn with_weights(path: &Path, weights: &Weights) -> Result<Vec<u8>, ModelError> {
    let imported = Imported::open(path)?;
    imported.file.with_weights(|name| weights.get(name).map(|(_, data)| data)).map_err(refused)
}

/// The inputs, if all of them are known.
fn inputs(file: &OnnxFile, from_two: bool) -> Result<Vec<Port>, ModelError> {
    let inputs = file.inputs().map_err(refused)?;
    let refuse = |message: String| Err(ModelError::unsupported(file.path(), message));
    for port in &inputs {
        match port.name.as_str() {
            "input_ids" | "attention_mask" | "token_type_ids" => {}
            "position_ids" if !from_two => {}
            name => {
                let message = format!(
                    "it has an input `{name}`; known are `input_ids`, `attention_mask`, `token_type_ids` and `position_ids` as BERT counts them"
                );
                return refuse(message);
            }
        }
        if port.dims.as_ref().is_some_and(|dims| dims.len() != 2 || dims.iter().any(Option::is_some)) {
            let sizes = port.dims.iter().flatten().map(|d| d.map_or("?".into(), |n| n.to_string())).collect::<Vec<_>>();
            let message = format!(
                "its input `{}` is of shape [{}]; export the model with sizes of batch and sequence that may change (`dynamic_axes`)",
                port.name,
                sizes.join(", ")
            );
            return refuse(message);
        }
    }
    if !inputs.iter().any(|port| port.name == "input_ids") {
        return refuse("it has no input `input_ids`".into());
    }
    Ok(inputs)
}

/// The output to train, and whether it is one vector a text: token vectors, by name or since no other output has three
/// dimensions, else vectors of texts.
fn output(file: &OnnxFile) -> Result<(String, bool), ModelError> {
    let outputs: Vec<Port> = file.outputs().into_iter().filter(|port| port.data_type == DataType::F32).collect();
    for (names, rank, pooled) in [(&TOKEN_VECTORS[..], 3, false), (&SENTENCE_VECTORS[..], 2, true)] {
        let fits = |port: &&Port| port.dims.as_ref().is_none_or(|dims| dims.len() == rank);
        let named = names.iter().find_map(|name| outputs.iter().filter(fits).find(|port| port.name == *name));
        let mut alike = outputs.iter().filter(|port| port.dims.as_ref().is_some_and(|dims| dims.len() == rank));
        let only = alike.next().filter(|_| alike.next().is_none());
        if let Some(port) = named.or(only) {
            return Ok((port.name.clone(), pooled));
        }
    }
    let names: Vec<String> = outputs.iter().map(|port| format!("`{}`", port.name)).collect();
    let message = format!(
        "none of its outputs of floats ({}) can be told to be the token vectors: call it `{}`",
        names.join(", "),
        TOKEN_VECTORS[0]
    );
    Err(ModelError::unsupported(file.path(), message))
}

/// Gives weights the names that a `model.safetensors` beside the file has for the same numbers; else those that the layers have,
/// without what stands before them all.
fn rename(file: &mut OnnxFile, output: &str, folder: &Path) -> Result<(), ModelError> {
    file.name_layers(output);
    let tensors = file.weights(output).map_err(refused)?;
    let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    let mut taken: HashSet<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut better_names = HashMap::new();
    let prefix = prefix(&names).to_owned();
    let safetensors = folder.join("model.safetensors");
    let stored = if safetensors.is_file() { by_elements(&Weights::read(&safetensors)?) } else { HashMap::new() };
    for (name, tensor) in &tensors {
        let Data::Floats(data) = &tensor.data else { continue };
        let known = [digest(&tensor.dims, data), transposed(&tensor.dims, data)]
            .into_iter()
            .flatten()
            .find_map(|d| stored.get(&d)?.clone());
        let better = known.or_else(|| name.strip_prefix(&prefix).filter(|_| !prefix.is_empty()).map(str::to_owned));
        if let Some(better) = better.filter(|better| !taken.contains(better)) {
            taken.insert(better.clone());
            better_names.insert(name.clone(), better);
        }
    }
    file.rename(&better_names);
    Ok(())
}

/// Names by what digest of shape and elements they have; `None` where two have the same.
fn by_elements(weights: &Weights) -> HashMap<blake3::Hash, Option<String>> {
    let mut names: HashMap<blake3::Hash, Option<String>> = HashMap::new();
    for name in weights.names() {
        let Some(digest) = weights.get(name).and_then(|(shape, data)| digest(shape, data)) else { continue };
        names.entry(digest).and_modify(|known| *known = None).or_insert_with(|| Some(name.to_owned()));
    }
    names
}

fn digest(shape: &[usize], data: &[f32]) -> Option<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    for &size in shape {
        hasher.update(&(size as u64).to_le_bytes());
    }
    for part in data.chunks(4096) {
        hasher.update(&part.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    }
    Some(hasher.finalize())
}

fn transposed(shape: &[usize], data: &[f32]) -> Option<blake3::Hash> {
    let [rows, columns] = shape else { return None };
    let turned: Vec<f32> =
        (0..*columns).flat_map(|c| (0..*rows).map(move |r| (r, c))).map(|(r, c)| data[r * columns + c]).collect();
    digest(&[*columns, *rows], &turned)
}
