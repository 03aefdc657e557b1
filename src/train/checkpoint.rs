//! How far a training is, on the disk: what an interrupted one goes on from.
//!
//! A checkpoint is the file `STEPS-DIGEST.safetensors`, named by the BLAKE3 digest of its bytes, with the weights in training (`weight:NAME`),
//! AdamW's moments (`first:NAME`, `second:NAME`), the best weights so far (`best:NAME`), a row for every step (`steps`), and the
//! evaluations in its metadata. Batches and dropout are functions of the seed and the step, so nothing else is needed. It is written under
//! another name, flushed and renamed; the last two stay, in case the last one is damaged.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensors, serialize_to_file};
use serde::{Deserialize, Serialize};

use super::device::LossScale;
use super::progress::{Evaluation, Passed, Progress};

/// How many stay.
const KEPT: usize = 2;
/// What a file begins with while it is written.
const UNFINISHED: &str = ".checkpoint-";
/// Raised when older checkpoints no longer hold.
const FORMAT: u32 = 1;
/// The figures of a step, see [`Passed`].
const FIGURES: usize = 4;

/// The weights in training and the optimizer's state, each weight by its name.
pub struct State<'a> {
    pub weights: Vec<(&'a str, &'a [f32])>,
    /// First and second of each weight.
    pub moments: Vec<(&'a [f32], &'a [f32])>,
    /// Of each weight; `None` before the first evaluation.
    pub best: Option<&'a [Vec<f32>]>,
    pub progress: &'a Progress,
}

/// What a checkpoint held, in the order of the names it was asked for.
#[derive(Debug, PartialEq)]
pub struct Restored {
    pub weights: Vec<Vec<f32>>,
    pub moments: Vec<(Vec<f32>, Vec<f32>)>,
    pub best: Option<Vec<Vec<f32>>>,
    pub progress: Progress,
}

/// The metadata. Figures are texts, in which they are exact.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u32,
    evaluations: Vec<Evaluated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evaluated {
    step: usize,
    score: String,
    metrics: BTreeMap<String, String>,
}

/// The folder of a training's checkpoints, in which this process alone writes.
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    pub fn new(folder: &Path) -> Self {
        for unfinished in list(folder, |name| name.starts_with(UNFINISHED)) {
            let _ = fs::remove_file(unfinished);
        }
        Checkpoints { folder: folder.to_owned() }
    }

    /// Writes one. When it returns, it is on the disk.
    ///
    /// # Errors
    /// The folder cannot be written; the checkpoints before are still there.
    pub fn write(&self, state: &State) -> Result<()> {
        self.put(state).with_context(|| format!("`{}` cannot be written", self.folder.display()))
    }

    fn put(&self, state: &State) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        let metadata = HashMap::from([("state".to_owned(), serde_json::to_string(&Header::of(state.progress))?)]);
        serialize_to_file(tensors(state), Some(metadata), file.path())?;
        File::open(file.path())?.sync_all()?;
        let name = format!("{:08}-{}.safetensors", state.progress.done(), digest(file.path())?);
        file.persist(self.folder.join(name))?;
        // Not every file system can promise it, and the file is whole anyway.
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        for old in self.all().iter().skip(KEPT) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// The checkpoints, the last one first.
    fn all(&self) -> Vec<PathBuf> {
        let mut all = list(&self.folder, |name| named(name).is_some());
        all.reverse();
        all
    }

    /// The last checkpoint that is whole, of weights with these names and sizes; `damaged` is told of those that are not.
    pub fn last(&self, weights: &[(&str, usize)], damaged: &mut dyn FnMut(&str)) -> Option<Restored> {
        for path in self.all() {
            match restore(&path, weights) {
                Ok(restored) => return Some(restored),
                Err(error) => {
                    damaged(&format!("the checkpoint `{}` is damaged and not used: {error:#}", path.display()));
                    let _ = fs::remove_file(path);
                }
            }
        }
        None
    }
}

/// Files of a folder, in the order of their names.
fn list(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(&wanted)).map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// The digest in the name of a checkpoint.
fn named(name: &str) -> Option<&str> {
    let (steps, digest) = name.strip_suffix(".safetensors")?.split_once('-')?;
    (steps.len() >= 8 && steps.bytes().all(|b| b.is_ascii_digit()) && digest.len() == 64).then_some(digest)
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path)?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Header {
    fn of(progress: &Progress) -> Self {
        let text = |figure: &f64| format!("{figure:?}");
        let evaluated = |e: &Evaluation| Evaluated {
            step: e.step,
            score: text(&e.score),
            metrics: e.metrics.iter().map(|(name, figure)| (name.clone(), text(figure))).collect(),
        };
        Header {
            format: FORMAT,
            evaluations: progress.evaluations.iter().map(evaluated).collect(),
            loss_scale: progress.loss_scale,
        }
    }

    fn evaluations(self) -> Result<Vec<Evaluation>> {
        let figure = |text: &str| text.parse::<f64>().with_context(|| format!("`{text}` is no figure"));
        let evaluated = |e: Evaluated| -> Result<Evaluation> {
            let metrics = e.metrics.iter().map(|(name, text)| Ok((name.clone(), figure(text)?)));
            Ok(Evaluation { step: e.step, metrics: metrics.collect::<Result<_>>()?, score: figure(&e.score)? })
        };
        self.evaluations.into_iter().map(evaluated).collect()
    }
}

/// A tensor to be written.
enum Written<'a> {
    Floats([usize; 1], &'a [f32]),
    Doubles([usize; 2], Vec<f64>),
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Written::Floats(..) => Dtype::F32,
            Written::Doubles(..) => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Written::Floats(shape, _) => shape,
            Written::Doubles(shape, _) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Written::Floats(_, data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Written::Doubles(_, data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Written::Floats(_, data) => size_of_val(*data),
            Written::Doubles(_, data) => size_of_val(data.as_slice()),
        }
    }
}

fn tensors<'a>(state: &State<'a>) -> Vec<(String, Written<'a>)> {
    let steps = &state.progress.steps;
    let figures = steps.iter().flat_map(|s| [s.loss, s.lr, s.grad_norm, s.tokens as f64]).collect();
    let mut tensors = vec![("steps".to_owned(), Written::Doubles([steps.len(), FIGURES], figures))];
    for (number, ((name, weight), (first, second))) in state.weights.iter().zip(&state.moments).enumerate() {
        let best = state.best.and_then(|best| best.get(number)).map(Vec::as_slice);
        let parts = [("weight", Some(*weight)), ("first", Some(*first)), ("second", Some(*second)), ("best", best)];
        for (part, data) in parts {
            tensors.extend(data.map(|data| (format!("{part}:{name}"), Written::Floats([data.len()], data))));
        }
    }
    tensors
}

fn restore(path: &Path, weights: &[(&str, usize)]) -> Result<Restored> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ensure!(named(name) == Some(digest(path)?.as_str()), "its content is not what its name says");
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let state = metadata.metadata().as_ref().and_then(|m| m.get("state")).context("it has no state")?;
    let header: Header = serde_json::from_str(state)?;
    ensure!(header.format == FORMAT, "it has format {}, and this program reads format {FORMAT}", header.format);
    let floats = |part: &str, name: &str, size: usize| -> Result<Vec<f32>> {
        let view = file.tensor(&format!("{part}:{name}"))?;
        let data = view.data().as_chunks::<4>().0;
        ensure!(view.dtype() == Dtype::F32 && data.len() == size, "`{part}:{name}` is not of {size} numbers");
        Ok(data.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let all = |part: &str| weights.iter().map(|(name, size)| floats(part, name, *size)).collect::<Result<Vec<_>>>();
    let loss_scale = header.loss_scale;
    let progress = Progress { steps: passed(&file)?, evaluations: header.evaluations()?, loss_scale };
    let best = if progress.evaluations.is_empty() { None } else { Some(all("best")?) };
    let moments = all("first")?.into_iter().zip(all("second")?).collect();
    Ok(Restored { weights: all("weight")?, moments, best, progress })
}

fn passed(file: &SafeTensors) -> Result<Vec<Passed>> {
    let view = file.tensor("steps")?;
    let data = view.data().as_chunks::<8>().0;
    if view.dtype() != Dtype::F64 {
        bail!("`steps` has no figures");
    }
    let figures: Vec<f64> = data.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let step = |row: &[f64; FIGURES]| {
        let [loss, lr, grad_norm, tokens] = *row;
        Passed { loss, lr, grad_norm, tokens: tokens as usize }
    };
    let (rows, rest) = figures.as_chunks::<FIGURES>();
    if rest.is_empty() { Ok(rows.iter().map(step).collect()) } else { Err(anyhow!("`steps` is cut off")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [(&str, usize); 2] = [("a.weight", 3), ("b", 1)];

    /// The state after `steps` steps.
    fn restored(steps: usize) -> Restored {
        let value = |x: usize| (steps + x) as f32 / 3.0;
        let weights = |x| vec![vec![value(x), -0.0, f32::MIN_POSITIVE], vec![value(x + 1)]];
        let evaluation =
            |step| Evaluation { step, metrics: [("ndcg@10".to_owned(), 0.1 + 0.2)].into(), score: 0.1 * step as f64 };
        Restored {
            weights: weights(0),
            moments: weights(1).into_iter().zip(weights(2)).collect(),
            best: (steps > 1).then(|| weights(4)),
            progress: Progress {
                steps: (0..steps).map(|s| Passed { loss: 0.1 * s as f64, lr: 1e-5, grad_norm: 0.3, tokens: s }).collect(),
                evaluations: (1..steps).map(evaluation).collect(),
                loss_scale: (steps > 2).then(LossScale::default),
            },
        }
    }

    fn write(checkpoints: &Checkpoints, state: &Restored) {
        let names = WEIGHTS.iter().map(|(name, _)| *name);
        let state = State {
            weights: names.zip(state.weights.iter().map(Vec::as_slice)).collect(),
            moments: state.moments.iter().map(|(m, v)| (m.as_slice(), v.as_slice())).collect(),
            best: state.best.as_deref(),
            progress: &state.progress,
        };
        checkpoints.write(&state).unwrap();
    }

    #[test]
    fn what_is_written_comes_back_and_two_stay() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(&folder.path().join("key"));
        assert_eq!(checkpoints.last(&WEIGHTS, &mut |_| ()), None);
        for steps in 1..5 {
            write(&checkpoints, &restored(steps));
            assert_eq!(checkpoints.last(&WEIGHTS, &mut |line| panic!("{line}")), Some(restored(steps)));
        }
        assert_eq!(checkpoints.all().len(), KEPT);
    }

    #[test]
    fn of_a_damaged_one_the_one_before_is_used() {
        let folder = tempfile::tempdir().unwrap();
        for (number, damage) in [0, 20, 700].into_iter().enumerate() {
            let checkpoints = Checkpoints::new(&folder.path().join(number.to_string()));
            write(&checkpoints, &restored(7));
            write(&checkpoints, &restored(12));
            let last = checkpoints.all()[0].clone();
            let mut bytes = fs::read(&last).unwrap();
            match damage {
                0 => bytes.clear(),
                at => bytes[at] ^= 1,
            }
            fs::write(&last, bytes).unwrap();
            let mut told = Vec::new();
            assert_eq!(checkpoints.last(&WEIGHTS, &mut |line| told.push(line.to_owned())), Some(restored(7)));
            assert!(told.len() == 1 && told[0].contains("00000012-") && told[0].contains("is damaged"), "{told:?}");
            assert!(!last.exists());
        }
    }

    #[test]
    fn one_of_other_weights_is_not_used_and_an_unfinished_one_goes() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path());
        write(&checkpoints, &restored(3));
        fs::write(folder.path().join(".checkpoint-abc"), "half").unwrap();
        let mut told = Vec::new();
        let other = [("a.weight", 3), ("b", 2)];
        assert_eq!(Checkpoints::new(folder.path()).last(&other, &mut |line| told.push(line.to_owned())), None);
        assert!(told[0].ends_with("`best:b` is not of 2 numbers"), "{told:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
