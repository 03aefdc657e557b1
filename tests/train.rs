//! Trainings, interrupted and not.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Project, files, tiny};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const PIPELINE: &str = r#"name: tiny
stages:
  base: { uses: model, with: { source: ../base } }
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 3, seed: 7 } }
  tuned:
    uses: train
    inputs: { model: base, triplets: triplets, eval: judged }
    with:
      loss: { name: triplet, distance: cosine, margin: 0.5 }
      epochs: 1000
      batch_size: 2
      accumulation: 2
      lr: 1.0e-4
      schedule: cosine
      warmup_ratio: 0.1
      metric: mrr@3
      eval_steps: 25
      patience: 200
      checkpoint_steps: 20
"#;

fn project() -> Project {
    let project = Project::new(PIPELINE);
    tiny::write(&project.path("base"));
    project
}

/// Name → bytes of what the training yielded.
fn yielded(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let folder = project.runs().last().unwrap().join("artifacts/tuned");
    files(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// The events of the training in a run.
fn events(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
    // The last line of a run that was killed may be cut off.
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["stage"] == "tuned").collect()
}

fn steps(run: &Path) -> Vec<u64> {
    let events = events(run).into_iter().filter(|event| event["event"] == "step");
    events.map(|event| event["step"]["step"].as_u64().unwrap()).collect()
}

fn start(project: &Project) -> Child {
    let mut command = project.command(&["run", "pipelines/p.yaml", "--json"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The number of steps that the youngest run resumed at.
fn resumed(project: &Project) -> Option<u64> {
    let run = project.runs().pop()?;
    events(&run).iter().find(|event| event["event"] == "resumed").and_then(|event| event["step"].as_u64())
}

#[test]
fn an_interrupted_training_ends_with_the_same_bytes() {
    let seed = std::env::var("RETUNE_KILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_125);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let undisturbed = project();
    let started = Instant::now();
    let record = undisturbed.run(&[]);
    let lasts = started.elapsed();
    let metrics = &record["stages"]["tuned"]["outcome"]["metrics"];
    let total = steps(&undisturbed.runs()[0]).len() as u64;
    assert_eq!(metrics["steps"].as_f64(), Some(total as f64));
    let summary = record["stages"]["tuned"]["outcome"]["summary"].as_str().unwrap();
    assert!(summary.contains("ended early"), "patience is at work: {summary}");
    let expected = yielded(&undisturbed);
    assert!(expected.contains_key("model/model.safetensors") && expected.contains_key("curves/curves.svg"));

    let project = project();
    let (mut kills, mut signals, mut resumes) = (0, 0, Vec::new());
    while kills + signals < 10 {
        let mut child = start(&project);
        let before = project.runs().len();
        let begun = || project.runs().get(before).is_some_and(|run| !steps(run).is_empty());
        // At any instant, and three times of four once it is at work.
        let patient = rng.random_ratio(3, 4);
        while patient && !begun() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(lasts.mul_f64(rng.random_range(0.0..0.2)));
        if rng.random_ratio(1, 3) {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        } else {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        resumes.extend(resumed(&project));
        match status.code() {
            Some(0) => break,
            Some(130) => signals += 1,
            Some(code) => panic!("seed {seed}: status {code}"),
            None => kills += 1,
        }
    }
    let ended = start(&project).wait().unwrap();
    assert!(ended.success(), "seed {seed}");
    resumes.extend(resumed(&project));
    assert!(
        resumes.len() > 2 && kills > 1,
        "{kills} kills and {signals} signals, resumed at {resumes:?} of {total}; seed {seed}"
    );
    let found = yielded(&project);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let differing: Vec<&String> = expected.keys().filter(|name| found[*name] != expected[*name]).collect();
    assert!(differing.is_empty(), "{differing:?} differ after {kills} kills and {signals} signals; seed {seed}");
    assert!(!project.path(".retune/checkpoints").exists() || files(&project.path(".retune/checkpoints")).is_empty());
    eprintln!("{kills} kills, {signals} signals, resumed at {resumes:?} of {total} steps; seed {seed}");
}

#[test]
fn ctrl_c_loses_no_step_and_a_damaged_checkpoint_one_stretch() {
    let project = project();
    let mut child = start(&project);
    let run = loop {
        std::thread::sleep(Duration::from_millis(20));
        match project.runs().pop() {
            Some(run) if steps(&run).len() > 50 => break run,
            _ => assert!(child.try_wait().unwrap().is_none(), "the training ended at once"),
        }
    };
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let last = *steps(&run).last().unwrap();
    let checkpoints = files(&project.path(".retune/checkpoints"));
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
    let newest = project.path(".retune/checkpoints").join(checkpoints.last().unwrap());
    assert!(newest.to_string_lossy().contains(&format!("/{last:08}-")), "{newest:?} after {last} steps");

    fs::write(&newest, &fs::read(&newest).unwrap()[..1000]).unwrap();
    let output = project.command(&["run", "pipelines/p.yaml"]).output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("is damaged and not used"), "{told}");
    assert!(told.contains("resumed at step "), "{told}");
    let resumed = resumed(&project).unwrap();
    assert!(resumed < last && resumed.is_multiple_of(20), "{resumed} of {last}");
    assert_eq!(steps(&project.runs().pop().unwrap())[0], resumed + 1);
}

#[test]
fn what_is_forced_begins_anew() {
    let project = project();
    let mut child = start(&project);
    while !project.path(".retune/checkpoints").exists() || files(&project.path(".retune/checkpoints")).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the training ended at once");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    project.run(&["--force", "tuned"]);
    assert_eq!(steps(&project.runs().pop().unwrap())[0], 1);
}

/// The largest memory of a training of so many epochs, each a step of the same two triplets, in kB.
#[cfg(target_os = "linux")]
fn largest_memory(epochs: usize) -> u64 {
    let project = Project::new(&format!(
        "name: even
stages:
  base: {{ uses: model, with: {{ source: all-MiniLM-L6-v2 }} }}
  rows: {{ uses: examples, with: {{ path: ../rows.jsonl }} }}
  tuned: {{ uses: train, inputs: {{ model: base, triplets: rows }}, with: {{ epochs: {epochs}, batch_size: 2, dropout: 0 }} }}
"
    ));
    let row = |i: usize| {
        let text = |word: &str| format!("{i} {}", word.repeat(300));
        format!("{}\n", serde_json::json!({ "anchor": text("one "), "positive": text("two "), "negative": text("three ") }))
    };
    project.write("rows.jsonl", row(1) + &row(2));
    let mut child = start(&project);
    let status = format!("/proc/{}/status", child.id());
    let mut largest = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        largest = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(largest);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(steps(&project.runs()[0]).len(), epochs);
    largest
}

#[test]
#[cfg(target_os = "linux")]
fn steps_of_the_same_size_need_no_more_memory_than_one() {
    let (one, four) = (largest_memory(1), largest_memory(4));
    // A second piece of memory for what a step computes would be half as much again.
    assert!(four < one + one / 4, "{one} kB for one step, {four} kB for four");
}
