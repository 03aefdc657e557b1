//! `cargo bench --bench train [-- SETTING… --no-peers --profile]`: training steps beside sentence-transformers, in fp32 and with bf16 autocast: the same rows
//! in the same order, the same settings, step by step in turns. `--profile` shows where retune's step goes instead.
//!
//! Peers are installed below `target/`, unless `RETUNE_PEERS` names a Python environment that has them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::contender::{Contender, Turn, tell, wait};
use common::peers::SENTENCE_TRANSFORMERS;
use common::profile::Profile;
use common::texts::Texts;
use common::{Arguments, scratch, table, time};
use retune::artifact::Example;
use retune::cancel::Cancel;
use retune::model::builder::Dropout;
use retune::model::catalogue;
use retune::model::directory::ModelDirectory;
use retune::model::prompts::Prompts;
use retune::model::source::{Fetching, fetch};
use retune::model::tokenizer::Tokenizer;
use retune::model::weights::Weights;
use retune::runtime::{Runtime, cache};
use retune::train::data::{Data, DataSet, Sampling};
use retune::train::progress::Progress;
use retune::train::sampling::{Mixing, Sampler};
use retune::train::select::Selection;
use retune::train::step::Choice;
use retune::train::trainer::{Observer, Place, StepReport};
use retune::train::{Settings, train};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Steps that are not timed; their losses count.
const WARM_UP: usize = 3;
const STEPS: usize = WARM_UP + 20;
const SEED: u64 = 42;

/// A training to measure.
struct Setting {
    name: &'static str,
    title: &'static str,
    loss: Value,
    negative: bool,
    batch_size: usize,
    train: Selection,
    /// `None` is the model's own.
    dropout: Option<f32>,
}

fn settings() -> Vec<Setting> {
    let triplet = |name, title, train, dropout| Setting {
        name,
        title,
        loss: json!({ "name": "triplet", "margin": 5.0 }),
        negative: true,
        batch_size: 8,
        train,
        dropout,
    };
    let no_embeddings = Selection::Except(vec!["embeddings".into()]);
    vec![
        triplet("triplet", "triplet loss, batch 8, without dropout", Selection::All, Some(0.0)),
        Setting {
            name: "mnrl",
            title: "multiple negatives ranking loss, batch 32, without dropout",
            loss: json!({ "name": "mnrl", "scale": 20.0 }),
            negative: false,
            batch_size: 32,
            train: Selection::All,
            dropout: Some(0.0),
        },
        triplet("dropout", "triplet loss, batch 8, with the model's dropout, which each draws by itself", Selection::All, None),
        triplet("no-embeddings", "triplet loss, batch 8, without dropout, embeddings frozen", no_embeddings, Some(0.0)),
        triplet(
            "last-layers",
            "triplet loss, batch 8, without dropout, the last 2 layers only",
            Selection::LastLayers(2),
            Some(0.0),
        ),
    ]
}

/// What every contender is told.
#[derive(Serialize, Deserialize)]
struct Job {
    model: PathBuf,
    max_seq_length: usize,
    rows: Vec<Vec<String>>,
    /// Rows of each step.
    batches: Vec<Vec<usize>>,
    batch_size: usize,
    loss: Value,
    lr: f64,
    seed: u64,
    /// `None` is the model's own.
    dropout: Option<f32>,
    train: Selection,
}

fn main() {
    let own: Vec<String> = std::env::args().collect();
    if let [_, flag, job, precision] = own.as_slice()
        && flag == "--contender"
    {
        return contend(Path::new(job), precision);
    }
    let settings = settings();
    let known: Vec<&str> = settings.iter().map(|setting| setting.name).chain(["--no-peers", "--profile"]).collect();
    let arguments = Arguments::read(&known);
    let chosen = |setting: &&Setting| arguments.has(setting.name) || !settings.iter().any(|s| arguments.has(s.name));
    let python = if arguments.has("--no-peers") || arguments.has("--profile") { None } else { SENTENCE_TRANSFORMERS.python() };
    let (texts, model) = (Texts::read(), model());
    for setting in settings.iter().filter(chosen) {
        let folder = scratch();
        let job = job(setting, &texts, &model);
        let file = folder.path().join("job.json");
        fs::write(&file, serde_json::to_vec(&job).expect("it is plain data")).expect("target/ can be written");
        println!("\n{}: {}", texts.name, setting.title);
        if arguments.has("--profile") {
            profile(&file, folder.path());
        } else {
            compare(&job, &file, python.as_deref(), folder.path());
        }
    }
    if python.is_some() {
        println!(
            "\n{} steps in turns after {WARM_UP} to warm up; each contender is a process of its own, whose largest memory is shown; {}; \
             a peer's texts are tokenized before its clock starts, its optimizer is torch's fused AdamW",
            STEPS - WARM_UP,
            SENTENCE_TRANSFORMERS.versions()
        );
    }
}

/// The model, fetched as the program does.
fn model() -> PathBuf {
    let sources = catalogue::find("all-MiniLM-L6-v2").expect("it is in the catalogue");
    let fetching = Fetching { downloads: &cache::folder(), cancel: &Cancel::default(), log: &|line| eprintln!("{line}") };
    fetch(&sources, &fetching).expect("the model can be fetched")
}

fn job(setting: &Setting, texts: &Texts, model: &Path) -> Job {
    let directory = ModelDirectory::open(model).expect("it is a model");
    let mut job = Job {
        model: model.to_owned(),
        max_seq_length: directory.max_seq_length,
        rows: texts.rows(STEPS * setting.batch_size, setting.negative),
        batches: Vec::new(),
        batch_size: setting.batch_size,
        loss: setting.loss.clone(),
        lr: 2e-5,
        seed: SEED,
        dropout: setting.dropout,
        train: setting.train.clone(),
    };
    job.batches = data(&job).epoch(SEED, 0).into_iter().map(|batch| batch.rows).collect();
    job
}

/// The rows as training takes them.
fn data(job: &Job) -> Data {
    let example = |row: &Vec<String>| Example {
        anchor: row[0].clone(),
        positive: row[1].clone(),
        negatives: row[2..].to_vec(),
        ..Example::default()
    };
    let rows = job.rows.iter().map(example).enumerate().collect();
    let set = DataSet { name: "rows".into(), rows, loss: serde_json::from_value(job.loss.clone()).expect("it is a loss") };
    // Shuffled without a look at the texts, so that every batch has its rows.
    let sampling = Sampling { batch_size: job.batch_size, sampler: Some(Sampler::Shuffled), mixing: Mixing::default() };
    let tokenizer = Tokenizer::open(&job.model, job.max_seq_length).expect("it is a model");
    Data::new(&[set], &tokenizer, &Prompts::default(), sampling).expect("the rows fit the loss")
}

/// Real tokens a step.
fn tokens(job: &Job) -> f64 {
    let tokenizer = Tokenizer::open(&job.model, job.max_seq_length).expect("it is a model");
    let all: Vec<&str> = job.rows.iter().flatten().map(String::as_str).collect();
    let tokens = tokenizer.encode(&all).expect("the tokenizer takes any text");
    tokens.iter().map(|text| text.ids.len()).sum::<usize>() as f64 / STEPS as f64
}

/// This program as retune's side.
fn retune(file: &Path, precision: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the program knows itself"));
    command.arg("--contender").arg(file).arg(precision);
    command
}

/// The precisions that are measured.
const PRECISIONS: [&str; 2] = ["fp32", "bf16"];

fn compare(job: &Job, file: &Path, python: Option<&Path>, folder: &Path) {
    let start = |precision: &&str| Contender::start(&format!("retune {precision}"), retune(file, precision), folder);
    let mut contenders: Vec<Contender> = PRECISIONS.iter().map(start).collect();
    for precision in PRECISIONS {
        let Some(python) = python else { break };
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/train.py")).arg(file).arg(precision);
        contenders.push(Contender::start(&format!("sentence-transformers {precision}"), command, folder));
    }
    for step in 0..STEPS {
        eprint!("\rstep {} of {STEPS} ", step + 1);
        contenders.iter_mut().for_each(Contender::turn);
    }
    eprintln!();
    report(job, contenders);
}

fn report(job: &Job, contenders: Vec<Contender>) {
    let tokens = tokens(job);
    let peer =
        |precision: &str| contenders.iter().find(|contender| contender.name == format!("sentence-transformers {precision}"));
    let (fp32, bf16) = (peer("fp32"), peer("bf16"));
    let line = |contender: &Contender| {
        let (seconds, losses) = (contender.seconds(WARM_UP).seconds, contender.losses());
        let off = fp32.map(|peer| losses.iter().zip(peer.losses()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max));
        let mut row =
            vec![contender.name.clone(), format!("{:.2}", job.batch_size as f64 / seconds), format!("{:.0}", tokens / seconds)];
        row.extend(contender.cells(WARM_UP, &[fp32, bf16]));
        row.push(losses.last().map_or_else(|| "–".into(), |loss| format!("{loss:.5}")));
        row.push(off.map_or_else(|| "–".into(), |off| format!("{off:.1e}")));
        row
    };
    let rows: Vec<Vec<String>> = contenders.iter().map(line).collect();
    let headings = [
        "",
        "rows/s",
        "tokens/s",
        "a step",
        "range",
        "processor time",
        "to fp32",
        "to bf16",
        "memory",
        "last loss",
        "off from fp32",
    ];
    table(&headings, &rows);
    contenders.into_iter().for_each(Contender::end);
    println!("{tokens:.0} tokens a step, without padding");
}

fn profile(file: &Path, folder: &Path) {
    for precision in PRECISIONS {
        let profiles = folder.join(format!("profiles-{precision}"));
        fs::create_dir(&profiles).expect("target/ can be written");
        let mut command = retune(file, precision);
        command.env("RETUNE_PROFILE", profiles.join("step"));
        let mut contender = Contender::start(&format!("retune {precision}"), command, folder);
        (0..STEPS).for_each(|_| contender.turn());
        let step = contender.turns[WARM_UP..].iter().map(|turn| turn.seconds).sum::<f64>() / (STEPS - WARM_UP) as f64;
        contender.end();
        println!("\n{precision}, mean of {} steps: {}", STEPS - WARM_UP, time(step));
        table(&["", "calls", "ms a step", "share"], &Profile::read(&profiles, WARM_UP).rows(step));
    }
}

/// retune's side: the training of the stage `train`, which waits for its turn after each step.
fn contend(file: &Path, precision: &str) {
    let job: Job = serde_json::from_slice(&fs::read(file).expect("the job is there")).expect("it is a job");
    let directory = ModelDirectory::open(&job.model).expect("it is a model");
    let weights = Weights::read(&directory.weights()).expect("the model has weights");
    let choice = Choice {
        train: job.train.clone(),
        precision: serde_json::from_value(json!(precision)).expect("it is a precision"),
        dropout: job.dropout.map_or(Dropout::Model, |share| if share > 0.0 { Dropout::Share(share) } else { Dropout::Off }),
        ..Choice::default()
    };
    let settings = Settings { choice, lr: job.lr, seed: job.seed, ..Settings::default() };
    let (data, folder) = (data(&job), scratch());
    println!("ready");
    wait();
    let place =
        Place { runtime: &Runtime::from(&cache::folder()), stays: false, checkpoints: folder.path(), cancel: &Cancel::default() };
    let mut turns = Turns { began: Instant::now() };
    train(&directory, &weights, &data, &settings, place, &mut turns).expect("the training succeeds");
}

struct Turns {
    began: Instant,
}

impl Observer for Turns {
    fn resumed(&mut self, _: &Progress, _: usize) {}

    fn step(&mut self, step: &StepReport) {
        tell(&Turn { seconds: self.began.elapsed().as_secs_f64(), loss: Some(step.passed.loss), processor: None });
        wait();
        self.began = Instant::now();
    }

    fn evaluate(&mut self, _: &Weights, _: usize, _: usize) -> anyhow::Result<Option<(BTreeMap<String, f64>, f64)>> {
        Ok(None)
    }

    fn saved(&mut self, _: usize, _: f64) {}

    fn note(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn warn(&mut self, line: &str) {
        eprintln!("{line}");
    }
}
