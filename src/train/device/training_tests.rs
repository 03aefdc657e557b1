//! Whole trainings with weights, gradients and moments on a device.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::artifact::Example;
use crate::cancel::Cancel;
use crate::model::builder::Dropout;
use crate::model::directory::ModelDirectory;
use crate::model::testing::minilm;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Weights;
use crate::runtime::Runtime;
use crate::runtime::precision::Precision;
use crate::runtime::testing::devices;
use crate::train::data::{Data, DataSet, Sampling};
use crate::train::loss::Loss;
use crate::train::progress::Progress;
use crate::train::sampling::Mixing;
use crate::train::schedule::Decay;
use crate::train::select::Selection;
use crate::train::step::Choice;
use crate::train::trainer::{Observer, Place, Settings, StepReport, Warmup, train};
use crate::train::treatment::Treatments;

/// Interrupts the training after a step.
struct Interrupting<'a> {
    cancel: &'a Cancel,
    after: usize,
    resumed: bool,
}

impl Observer for Interrupting<'_> {
    fn resumed(&mut self, _: &Progress, _: usize) {
        self.resumed = true;
    }

    fn step(&mut self, step: &StepReport) {
        if step.step == self.after {
            self.cancel.set();
        }
    }

    fn evaluates(&self) -> bool {
        false
    }

    fn evaluate(&mut self, _: &Weights, _: usize, _: usize) -> Result<Option<(BTreeMap<String, f64>, f64)>> {
        Ok(None)
    }

    fn saved(&mut self, _: usize, _: f64) {}

    fn note(&mut self, _: &str) {}

    fn warn(&mut self, line: &str) {
        panic!("{line}");
    }
}

struct Setting {
    directory: ModelDirectory,
    initial: Weights,
    data: Data,
    settings: Settings,
}

impl Setting {
    fn new(dropout: Dropout) -> Self {
        let directory = ModelDirectory::open(&minilm()).unwrap();
        let initial = Weights::read(&directory.weights()).unwrap();
        let texts =
            ["what keeps data", "a volume keeps data", "how is BERT trained", "by hiding words", "too many requests", "429"];
        let row = |i: usize| Example { anchor: texts[2 * i].into(), positive: texts[2 * i + 1].into(), ..Example::default() };
        let loss = serde_json::from_str::<Loss>(r#"{"name": "mnrl"}"#).unwrap();
        let set = DataSet { name: "pairs".into(), rows: (0..3).map(|i| (i + 1, row(i))).collect(), loss };
        let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length).unwrap();
        let sampling = Sampling { batch_size: 2, sampler: None, mixing: Mixing::default() };
        let data = Data::new(&[set], &tokenizer, &directory.prompts, sampling).unwrap();
        let settings = Settings {
            choice: Choice { train: Selection::LastLayers(2), dropout, precision: Precision::Fp32, seed: 5, ..Choice::default() },
            epochs: 3,
            accumulation: 2,
            lr: 1e-3,
            treatments: Treatments { weight_decay: 0.01, layer_decay: 0.5, ..Treatments::default() },
            decay: Decay::default(),
            warmup: Warmup::Steps(1),
            max_grad_norm: 1.0,
            eval_steps: 0,
            patience: 0,
            checkpoint_steps: 1,
            seed: 5,
        };
        Setting { directory, initial, data, settings }
    }

    /// The weights afterwards; `None` when it was interrupted after step `after`.
    fn train(&self, runtime: &Runtime, stays: bool, checkpoints: &Path, after: usize) -> Option<(Weights, bool)> {
        let cancel = Cancel::default();
        let mut observer = Interrupting { cancel: &cancel, after, resumed: false };
        let place = Place { runtime, stays, checkpoints, cancel: &cancel };
        let trained = train(&self.directory, &self.initial, &self.data, &self.settings, place, &mut observer);
        match trained {
            Ok(trained) => Some((trained.weights, observer.resumed)),
            Err(error) => {
                assert!(cancel.is_set(), "{error:#}");
                None
            }
        }
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_training_on_a_device_is_that_of_the_processor() {
    let setting = Setting::new(Dropout::Off);
    for runtime in devices() {
        let processor = Runtime::from(&runtime.downloads);
        let (expected, _) = setting.train(&processor, false, folder().path(), 0).unwrap();
        let (found, _) = setting.train(&runtime, true, folder().path(), 0).unwrap();
        let mut moved = 0.0f32;
        for name in expected.names() {
            let [expected, found, initial] = [&expected, &found, &setting.initial].map(|weights| weights.get(name).unwrap().1);
            for ((x, e), start) in found.iter().zip(expected).zip(initial) {
                moved = moved.max((e - start).abs());
                // Where a gradient is next to nothing, AdamW makes a whole step of its last digits.
                assert!((x - e).abs() <= 2e-4, "{name}: {x} instead of {e}, from {start}");
            }
        }
        assert!(moved > 1e-3, "{moved}");
    }
}

#[test]
fn an_interrupted_training_on_a_device_ends_with_the_same_bytes() {
    let setting = Setting::new(Dropout::Model);
    for runtime in devices() {
        let (expected, _) = setting.train(&runtime, true, folder().path(), 0).unwrap();
        let checkpoints = folder();
        assert!(setting.train(&runtime, true, checkpoints.path(), 2).is_none());
        let (found, resumed) = setting.train(&runtime, true, checkpoints.path(), 0).unwrap();
        assert!(resumed && found == expected);
    }
}
