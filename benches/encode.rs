//! `cargo bench --bench encode [-- --no-peers] [passages] [queries]`: texts to vectors beside sentence-transformers, in fp32 and with bf16
//! autocast, and fastembed, in turns.
//!
//! Peers are installed below `target/`, unless `RETUNE_PEERS` names Python environments that have them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::contender::{Contender, Turn, serve};
use common::peers::{FASTEMBED, Peer, SENTENCE_TRANSFORMERS};
use common::texts::Texts;
use common::{Arguments, scratch, table};
use retune::cancel::Cancel;
use retune::model::card::Card;
use retune::model::catalogue;
use retune::model::directory::ModelDirectory;
use retune::model::embedder::Embedder;
use retune::model::export::export;
use retune::model::source::{Fetching, fetch};
use retune::model::tokenizer::Tokenizer;
use retune::model::weights::Weights;
use retune::runtime::cache;
use retune::runtime::precision::Precision;
use serde::{Deserialize, Serialize};

const PASSAGES: usize = 500;
const QUERIES: usize = 300;
const TURNS: usize = 5;
/// retune's sides.
const PRECISIONS: [(&str, Precision); 2] = [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)];
/// Whose vectors are the reference.
const REFERENCE: &str = "sentence-transformers fp32";

/// What every contender is told.
#[derive(Serialize, Deserialize)]
struct Job {
    model: PathBuf,
    /// The model as retune writes it, with `onnx/model.onnx`.
    export: PathBuf,
    max_seq_length: usize,
    dimensions: usize,
    texts: Vec<String>,
}

fn main() {
    let own: Vec<String> = std::env::args().collect();
    if let [_, flag, precision, job, vectors] = own.as_slice()
        && flag == "--contender"
    {
        return contend(precision, Path::new(job), Path::new(vectors));
    }
    let arguments = Arguments::read(&["--no-peers", "passages", "queries"]);
    let peer = |peer: &Peer| if arguments.has("--no-peers") { None } else { peer.python() };
    let peers = Peers { torch: peer(&SENTENCE_TRANSFORMERS), fastembed: peer(&FASTEMBED) };
    let texts = Texts::read();
    let settings = [("passages", &texts.passages, PASSAGES), ("queries", &texts.queries, QUERIES)];
    let is_named = settings.iter().any(|(name, ..)| arguments.has(name));
    for (name, all, count) in settings.into_iter().filter(|(name, ..)| !is_named || arguments.has(name)) {
        let folder = scratch();
        let job = job(all.iter().take(count).cloned().collect(), folder.path());
        let contenders = take_turns(&job, &peers, folder.path());
        report(&job, &format!("{}, {name}", texts.name), contenders, folder.path());
    }
    let versions: Vec<String> = [(&peers.torch, &SENTENCE_TRANSFORMERS), (&peers.fastembed, &FASTEMBED)]
        .iter()
        .filter(|(there, _)| there.is_some())
        .map(|(_, peer)| peer.versions())
        .collect();
    println!(
        "\nmedians of {TURNS} turns; each contender is a process of its own, whose largest memory is shown; {}",
        versions.join("; ")
    );
    if peers.fastembed.is_some() {
        println!(
            "fastembed runs `onnx/model.onnx` of retune's own export as a custom model, since its hub need not be reachable, in batches of 32, \
             as sentence-transformers"
        );
    }
}

/// The Python environments of the peers that are there.
struct Peers {
    torch: Option<PathBuf>,
    fastembed: Option<PathBuf>,
}

/// Lets every contender encode the same texts.
fn take_turns(job: &Job, peers: &Peers, folder: &Path) -> Vec<Contender> {
    let file = folder.join("job.json");
    fs::write(&file, serde_json::to_vec(job).expect("it is plain data")).expect("target/ can be written");
    let start = |name: String, mut command: Command, arguments: [&str; 2]| {
        command.args(arguments).arg(vectors(folder, &name));
        Contender::start(&name, command, folder)
    };
    let file = file.to_str().expect("target/ has a plain name");
    let mut contenders: Vec<Contender> = PRECISIONS
        .iter()
        .map(|(precision, _)| {
            let mut command = Command::new(std::env::current_exe().expect("the program knows itself"));
            command.arg("--contender");
            start(format!("retune {precision}"), command, [precision, file])
        })
        .collect();
    let script = |python: &Path, script: &str| {
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script));
        command
    };
    for precision in peers.torch.iter().flat_map(|_| ["fp32", "bf16"]) {
        let Some(python) = &peers.torch else { break };
        let command = script(python, "encode_sentence_transformers.py");
        contenders.push(start(format!("sentence-transformers {precision}"), command, [file, precision]));
    }
    if let Some(python) = &peers.fastembed {
        contenders.push(start("fastembed".into(), script(python, "encode_fastembed.py"), [file, "32"]));
    }
    for turn in 0..TURNS {
        eprint!("\rturn {} of {TURNS} ", turn + 1);
        contenders.iter_mut().for_each(Contender::turn);
    }
    eprintln!();
    contenders
}

fn job(texts: Vec<String>, folder: &Path) -> Job {
    let sources = catalogue::find("all-MiniLM-L6-v2").expect("it is in the catalogue");
    let fetching = Fetching { downloads: &cache::folder(), cancel: &Cancel::default(), log: &|line| eprintln!("{line}") };
    let model = fetch(&sources, &fetching).expect("the model can be fetched");
    let directory = ModelDirectory::open(&model).expect("it is a model");
    let weights = Weights::read(&directory.weights()).expect("the model has weights");
    let target = folder.join("export");
    export(&directory, &weights, &Card::default(), &target).expect("target/ can be written");
    Job { model, export: target, max_seq_length: directory.max_seq_length, dimensions: directory.dimensions(), texts }
}

/// Where a contender writes its vectors.
fn vectors(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.vectors"))
}

fn report(job: &Job, name: &str, contenders: Vec<Contender>, folder: &Path) {
    let tokenizer = Tokenizer::open(&job.model, job.max_seq_length).expect("it is a model");
    let texts: Vec<&str> = job.texts.iter().map(String::as_str).collect();
    let tokens: usize = tokenizer.encode(&texts).expect("the tokenizer takes any text").iter().map(|text| text.ids.len()).sum();
    let fp32 = contenders.iter().find(|contender| contender.name == REFERENCE);
    let fastembed = contenders.iter().find(|contender| contender.name == "fastembed");
    let expected = fp32.map(|peer| floats(&vectors(folder, &peer.name)));
    let line = |contender: &Contender| {
        let seconds = contender.seconds(0).seconds;
        let off = expected.as_ref().map(|expected| {
            let found = floats(&vectors(folder, &contender.name));
            assert_eq!(found.len(), expected.len(), "`{}` gave another number of vectors", contender.name);
            let element = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let rows = found.chunks_exact(job.dimensions).zip(expected.chunks_exact(job.dimensions));
            (element, rows.map(|(a, b)| cosine_distance(a, b)).fold(0.0, f64::max))
        });
        let mut row = vec![
            contender.name.clone(),
            format!("{:.1}", texts.len() as f64 / seconds),
            format!("{:.0}", tokens as f64 / seconds),
        ];
        row.extend(contender.cells(0, &[fp32, fastembed]));
        row.push(off.map_or_else(|| "–".into(), |(element, _)| format!("{element:.1e}")));
        row.push(off.map_or_else(|| "–".into(), |(_, distance)| format!("{distance:.1e}")));
        row
    };
    let rows: Vec<Vec<String>> = contenders.iter().map(line).collect();
    contenders.into_iter().for_each(Contender::end);
    println!("\n{name}: {} texts, {tokens} tokens without padding, cut after {}", texts.len(), job.max_seq_length);
    let headings = [
        "",
        "texts/s",
        "tokens/s",
        "all",
        "range",
        "processor time",
        "to fp32",
        "to fastembed",
        "memory",
        "off from fp32",
        "cosine distance",
    ];
    table(&headings, &rows);
}

/// 1 − the cosine of two vectors, summed up in double precision.
fn cosine_distance(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    1.0 - product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

/// The little-endian floats of a file.
fn floats(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).expect("the contender wrote it");
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// retune's side.
fn contend(precision: &str, file: &Path, vectors: &Path) {
    let job: Job = serde_json::from_slice(&fs::read(file).expect("the job is there")).expect("it is a job");
    let (_, precision) = PRECISIONS.into_iter().find(|(name, _)| *name == precision).expect("it is one of the precisions");
    let embedder = Embedder::open(&job.model, precision, &cache::folder()).expect("it is a model");
    serve(|| {
        let began = Instant::now();
        let found = embedder.encode(&job.texts, &Cancel::default(), &|_| ()).expect("texts can be encoded");
        let seconds = began.elapsed().as_secs_f64();
        let bytes: Vec<u8> = found.iter().flat_map(|x| x.to_le_bytes()).collect();
        fs::write(vectors, bytes).expect("target/ can be written");
        Turn { seconds, loss: None, processor: None }
    });
}
