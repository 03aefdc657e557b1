//! Texts to vectors.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, ensure};
use ndarray::Array2;

use super::batch::Batch;
use super::directory::ModelDirectory;
use super::prompts::{OtherPrompts, Prompts};
use super::sentence::embedding_model;
use super::tokenizer::{Tokenizer, Tokens};
use super::weights::Weights;
use crate::cancel::Cancel;
use crate::runtime::Runtime;
use crate::runtime::device::Device;
use crate::runtime::precision::Precision;
use crate::runtime::session::Session;

/// Tokens that are encoded at once. More takes more memory, is no faster for passages, and was a fifth slower for queries.
const TOKENS_AT_ONCE: usize = 2048;
/// The same on a GPU, which few tokens do not keep busy.
const TOKENS_AT_ONCE_ON_GPU: usize = 16_384;

/// A model, opened for encoding.
pub struct Embedder {
    directory: ModelDirectory,
    tokenizer: Tokenizer,
    session: Mutex<Session>,
    tokens_at_once: usize,
}

impl Embedder {
    /// Opens a sentence-transformers directory. ONNX Runtime is fetched when it is nowhere.
    ///
    /// # Errors
    /// The directory is no model that can be built, the device does not compute in that precision, or ONNX Runtime cannot be had.
    pub fn open(directory: &Path, precision: Precision, runtime: impl Into<Runtime>) -> Result<Self> {
        let directory = ModelDirectory::open(directory)?;
        let weights = Weights::read(&directory.weights())?;
        Embedder::with_weights(directory, &weights, precision, runtime)
    }

    /// The model of `directory` with other weights (those of a training that is going on).
    ///
    /// # Errors
    /// As [`Embedder::open`].
    pub fn with_weights(
        directory: ModelDirectory,
        weights: &Weights,
        precision: Precision,
        runtime: impl Into<Runtime>,
    ) -> Result<Self> {
        let runtime = runtime.into();
        precision.check(&runtime.device)?;
        let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length)?;
        let session = Session::from_model(&embedding_model(&directory, weights, precision, &runtime.device)?, &runtime)?;
        let tokens_at_once = if runtime.device == Device::Cpu { TOKENS_AT_ONCE } else { TOKENS_AT_ONCE_ON_GPU };
        Ok(Embedder { directory, tokenizer, session: Mutex::new(session), tokens_at_once })
    }

    /// With other prompts than the model's own, where there are any.
    #[must_use]
    pub fn prompted(mut self, other: Option<&OtherPrompts>) -> Self {
        if let Some(other) = other {
            self.directory.prompts = self.directory.prompts.clone().replaced(other);
        }
        self
    }

    /// What goes before texts.
    pub fn prompts(&self) -> &Prompts {
        &self.directory.prompts
    }

    /// The length of a vector.
    pub fn dimensions(&self) -> usize {
        self.directory.dimensions()
    }

    /// Texts are cut after this many tokens.
    pub fn max_seq_length(&self) -> usize {
        self.directory.max_seq_length
    }

    /// How many of `documents` are longer, with their prompt, than the model's `max_seq_length` and so are cut.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn truncated(&self, documents: &[String]) -> Result<usize> {
        Ok(self.tokens(self.prompts().document(), documents)?.iter().filter(|t| t.truncated).count())
    }

    fn tokens(&self, prompt: &str, texts: &[String]) -> Result<Vec<Tokens>> {
        self.tokenizer.encode_prompted(prompt, &texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// [`Embedder::encode_prompted`] with the model's prompt for queries.
    ///
    /// # Errors
    /// As there.
    pub fn encode_queries(&self, texts: &[String], cancel: &Cancel, progress: &dyn Fn(usize)) -> Result<Array2<f32>> {
        self.encode_prompted(self.prompts().query(), texts, cancel, progress)
    }

    /// [`Embedder::encode_prompted`] with the model's prompt for documents.
    ///
    /// # Errors
    /// As there.
    pub fn encode_documents(&self, texts: &[String], cancel: &Cancel, progress: &dyn Fn(usize)) -> Result<Array2<f32>> {
        self.encode_prompted(self.prompts().document(), texts, cancel, progress)
    }

    /// [`Embedder::encode_prompted`] with the prompt that the model has for all texts, if it has one.
    ///
    /// # Errors
    /// As there.
    pub fn encode(&self, texts: &[String], cancel: &Cancel, progress: &dyn Fn(usize)) -> Result<Array2<f32>> {
        self.encode_prompted(self.prompts().plain(), texts, cancel, progress)
    }

    /// Vectors of `texts`, each with `prompt` before it, one row each `[texts, dimensions]`, L2-normalised when the model has a Normalize
    /// module. `progress` is told how many texts are done.
    ///
    /// # Errors
    /// ONNX Runtime fails, or `cancel` is set.
    pub fn encode_prompted(
        &self,
        prompt: &str,
        texts: &[String],
        cancel: &Cancel,
        progress: &dyn Fn(usize),
    ) -> Result<Array2<f32>> {
        let tokens = self.tokens(prompt, texts)?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        // Texts of like length together, so that little is padded.
        order.sort_by_key(|&i| (tokens[i].ids.len(), i));
        let mut vectors = Array2::zeros((texts.len(), self.dimensions()));
        let mut session = self.session.lock().map_err(|_| anyhow!("an earlier encoding with this model failed"))?;
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            cancel.check()?;
            let count = fitting(rest, &tokens, self.tokens_at_once);
            let (now, later) = rest.split_at(count);
            let batch = Batch::new(&now.iter().map(|&i| &tokens[i]).collect::<Vec<_>>(), &self.directory.pooling);
            let (shape, data) = session.run(&batch.inputs())?.pop().context("the encoder has no output")?;
            ensure!(shape == [count, self.dimensions()], "the encoder gave shape {shape:?}");
            for (&i, row) in now.iter().zip(data.chunks_exact(self.dimensions())) {
                vectors.row_mut(i).iter_mut().zip(row).for_each(|(to, from)| *to = *from);
            }
            rest = later;
            progress(texts.len() - rest.len());
        }
        Ok(vectors)
    }
}

/// How many of the texts, sorted by length, fit into one batch; at least one.
fn fitting(order: &[usize], tokens: &[Tokens], most: usize) -> usize {
    let mut count = 0;
    let mut sum = 0;
    for &i in order {
        sum += tokens[i].ids.len();
        if sum > most {
            break;
        }
        count += 1;
    }
    count.max(1)
}
