use retune::artifact::Example;
use retune::cancel::Cancel;
use retune::model::{directory::ModelDirectory, tokenizer::Tokenizer, weights::Weights};
use retune::train::data::{Data, DataSet, Sampling};
use retune::train::train;
use retune::train::trainer::{Observer, StepReport};
use std::collections::BTreeMap;
struct O(Vec<f64>, usize);
impl Observer for O {
    fn step(&mut self, s: &StepReport) {
        if s.step > 2 {
            self.0.push(s.seconds);
        }
        println!("{} loss {:.5} norm {:.4} {:.3}s {}", s.step, s.passed.loss, s.passed.grad_norm, s.seconds, s.passed.tokens);
        if s.step >= self.1 {
            let mut v = self.0.clone();
            v.sort_by(f64::total_cmp);
            println!("median {:.3}", v[v.len() / 2]);
            let m = std::fs::read_to_string("/proc/self/status").unwrap();
            println!("{}", m.lines().find(|l| l.starts_with("VmHWM")).unwrap());
            std::process::exit(0)
        }
    }
    fn note(&mut self, _: &str) {}
    fn warn(&mut self, w: &str) {
        println!("{w}")
    }
    fn resumed(&mut self, _: &retune::train::progress::Progress, _: usize) {}
    fn saved(&mut self, _: usize, _: f64) {}
    fn evaluate(&mut self, _: &Weights, _: usize, _: usize) -> anyhow::Result<Option<(BTreeMap<String, f64>, f64)>> {
        Ok(None)
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (loss, bs, steps, precision) = (&a[1], a[2].parse::<usize>().unwrap(), a[3].parse::<usize>().unwrap(), &a[4]);
    let rows: Vec<Vec<String>> = serde_json::from_slice(&std::fs::read("/tmp/peer/rows.json").unwrap()).unwrap();
    let path = std::path::Path::new("/root/.cache/retune/models/9c3e1f3f4c4205062f8e11d6");
    let d = ModelDirectory::open(path).unwrap();
    let w = Weights::read(&d.weights()).unwrap();
    let rows = rows
        .iter()
        .enumerate()
        .map(|(i, r)| {
            let j = if loss == "mnrl" {
                serde_json::json!({"anchor": r[0], "positive": r[1]})
            } else {
                serde_json::json!({"anchor": r[0], "positive": r[1], "negative": r[2]})
            };
            (i, serde_json::from_value::<Example>(j).unwrap())
        })
        .collect();
    let set = DataSet { name: "x".into(), rows, loss: serde_json::from_value(serde_json::json!({"name": loss})).unwrap() };
    let data = Data::new(
        &[set],
        &Tokenizer::open(&d.path, d.max_seq_length).unwrap(),
        &d.prompts,
        Sampling { batch_size: bs, sampler: None, mixing: Default::default() },
    )
    .unwrap();
    let s = retune::train::Settings {
        choice: retune::train::step::Choice {
            precision: serde_json::from_value(serde_json::json!(precision)).unwrap(),
            seed: 1,
            ..Default::default()
        },
        epochs: 1,
        accumulation: 1,
        lr: 2e-5,
        treatments: retune::train::treatment::Treatments { layer_decay: 1.0, weight_decay: 0.01, ..Default::default() },
        decay: Default::default(),
        warmup: retune::train::trainer::Warmup::Steps(0),
        max_grad_norm: 1.0,
        eval_steps: 0,
        patience: 0,
        checkpoint_steps: 0,
        seed: 1,
    };
    let tmp = std::env::temp_dir();
    train(
        &d,
        &w,
        &data,
        &s,
        retune::train::trainer::Place {
            downloads: &retune::runtime::cache::folder(),
            checkpoints: &tmp.join("ckpt"),
            cancel: &Cancel::default(),
        },
        &mut O(vec![], steps),
    )
    .unwrap();
}
