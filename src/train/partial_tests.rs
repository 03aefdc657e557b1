//! Trainings of a part of a model, with adapters, and with dropout.

use super::data::{Batch, Data, DataSet, Sampling};
use super::lora::Lora;
use super::loss::Loss;
use super::optimizer::{AdamW, Gradient, Optimizer};
use super::sampling::Mixing;
use super::select::Selection;
use super::step::{Choice, Step};
use crate::artifact::Example;
use crate::model::builder::Dropout;
use crate::model::directory::ModelDirectory;
use crate::model::testing::minilm;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Weights;
use crate::runtime::precision::Precision;
use crate::runtime::testing::downloads;

struct Setting {
    directory: ModelDirectory,
    initial: Weights,
    data: Data,
}

impl Setting {
    fn new() -> Self {
        let directory = ModelDirectory::open(&minilm()).unwrap();
        let initial = Weights::read(&directory.weights()).unwrap();
        let row = |anchor: &str, positive: &str| {
            serde_json::from_value::<Example>(serde_json::json!({ "anchor": anchor, "positive": positive })).unwrap()
        };
        let rows = vec![
            (1, row("what keeps data of a removed container", "a volume keeps data when the container is removed")),
            (2, row("how is BERT trained", "it is trained by hiding words and guessing them")),
            (3, row("too many requests", "a server answers 429 when a client asks too often")),
        ];
        let set = DataSet {
            name: "pairs".into(),
            rows,
            loss: serde_json::from_str::<Loss>(r#"{"name": "mnrl", "scale": 1}"#).unwrap(),
        };
        let tokenizer = Tokenizer::open(&directory.path, directory.max_seq_length).unwrap();
        let data = Data::new(
            &[set],
            &tokenizer,
            &directory.prompts,
            Sampling { batch_size: 3, sampler: None, mixing: Mixing::default() },
        )
        .unwrap();
        Setting { directory, initial, data }
    }

    fn step(&self, weights: &Weights, choice: Choice) -> Step {
        let choice = Choice { precision: Precision::Fp32, ..choice };
        Step::new(&self.directory, weights, &self.data.tasks(), &choice, &downloads()).unwrap()
    }

    /// The loss of all rows, and the norms of the gradients.
    fn run(&self, step: &mut Step, number: usize) -> (f32, Vec<f64>) {
        let batch = Batch { set: 0, rows: vec![0, 1, 2] };
        let run = step.run(0, &self.data.columns(&batch).unwrap(), number).unwrap();
        let norms = step.update(&run, |_, gradients| gradients.iter().map(Gradient::norm).collect()).unwrap();
        (run.loss, norms)
    }
}

#[test]
fn frozen_parts_cost_no_backward_work() {
    let setting = Setting::new();
    let nodes = |train: Selection, lora: Option<Lora>| {
        let step = setting.step(&setting.initial, Choice { train, lora, ..Choice::default() });
        (step.nodes(0).unwrap(), step.parameters().count())
    };
    let (all, weights) = nodes(Selection::All, None);
    let layers: Vec<(usize, usize)> = (1..=6).map(|count| nodes(Selection::LastLayers(count), None)).collect();
    assert_eq!(weights, 101);
    assert_eq!(layers.iter().map(|(_, weights)| *weights).collect::<Vec<_>>(), [16, 32, 48, 64, 80, 96]);
    // Each further layer adds the same backward work, and the embeddings some more.
    let more: Vec<usize> = layers.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(more.iter().all(|nodes| *nodes == more[0] && *nodes > 0), "{more:?}");
    assert!(all > layers[5].0);
    let (without, _) = nodes(Selection::Except(vec!["embeddings".into()]), None);
    assert_eq!(without, layers[5].0);
    // The gradients of a weight and its bias are nodes too, of which adapters need fewer and smaller ones.
    let last = Lora { target_modules: vec!["layer.5.attention.self.query".into()], ..Lora::default() };
    let (adapted, trained) = nodes(Selection::All, Some(last));
    assert!(trained == 2 && adapted < layers[1].0, "{adapted} nodes for {trained} weights");
}

#[test]
fn adapters_that_are_merged_give_what_they_gave() {
    let setting = Setting::new();
    let lora = Lora { rank: 4, alpha: 8.0, ..Lora::default() };
    let mut step = setting.step(&setting.initial, Choice { lora: Some(lora), ..Choice::default() });
    let names: Vec<String> = step.parameters().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names.len(), 6 * 2 * 2);
    assert_eq!(names[0], "encoder.layer.0.attention.self.query.lora_A.weight");
    let mut plain = setting.step(&setting.initial, Choice::default());
    let before = setting.run(&mut plain, 0).0;
    assert_eq!(setting.run(&mut step, 0).0, before, "adapters do nothing at first");
    let mut optimizer = Optimizer::new(AdamW::default(), step.parameters());
    for number in 0..4 {
        let columns = setting.data.columns(&Batch { set: 0, rows: vec![0, 1, 2] }).unwrap();
        let run = step.run(0, &columns, number).unwrap();
        step.update(&run, |weights, gradients| optimizer.step(2e-2, 1.0, weights, gradients)).unwrap();
    }
    let after = setting.run(&mut step, 0).0;
    assert!((after - before).abs() > 1e-3, "{before} became {after}");
    let mut merged = setting.step(&step.weights(&setting.initial).unwrap(), Choice::default());
    let found = setting.run(&mut merged, 0).0;
    assert!((found - after).abs() <= 1e-4 * after.abs(), "{found} instead of {after}");
}

#[test]
fn dropout_follows_from_seed_and_number() {
    let setting = Setting::new();
    let choice = |dropout, seed, mini_batch_tokens| Choice { dropout, seed, mini_batch_tokens, ..Choice::default() };
    let run = |choice: Choice, number| setting.run(&mut setting.step(&setting.initial, choice), number);
    let off = run(choice(Dropout::Off, 1, 0), 0);
    let first = run(choice(Dropout::Model, 1, 0), 0);
    assert_ne!(first.0, off.0);
    assert_eq!(run(choice(Dropout::Model, 1, 0), 0), first);
    assert_eq!(run(choice(Dropout::Share(0.1), 1, 0), 0), first, "the model's configuration says 0.1 everywhere");
    assert_ne!(run(choice(Dropout::Model, 1, 0), 1).0, first.0);
    assert_ne!(run(choice(Dropout::Model, 2, 0), 0).0, first.0);
    assert_eq!(run(choice(Dropout::Share(0.0), 1, 0), 0), off);
    // In parts: reproducible too, and near.
    let parts = run(choice(Dropout::Model, 1, 16), 0);
    assert_eq!(run(choice(Dropout::Model, 1, 16), 0), parts);
    assert_ne!(parts.0, off.0);
    let norm = |norms: &[f64]| norms.iter().map(|n| n * n).sum::<f64>().sqrt();
    assert!((norm(&parts.1) / norm(&first.1)).ln().abs() < 1.5, "{} and {}", norm(&parts.1), norm(&first.1));
}
