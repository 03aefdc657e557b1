//! Matrices, from the file to what runs.
#![cfg(unix)]

mod common;

use std::fs;

use common::{Project, reasons};
use serde_json::Value;

/// Chunk sizes × overlaps, mined and collected.
const SWEEP: &str = r#"name: sweep
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks:
    uses: chunk
    matrix: { size: [12, 24], overlap: [0, 6] }
    inputs: { documents: docs }
    with: { chunk_size: "${matrix.size}", chunk_overlap: "${matrix.overlap}" }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2, seed: 7 } }
  counted:
    uses: command
    inputs: { all: "triplets[*]" }
    with:
      run: "for file in {inputs.all}; do wc -l < $file; done > {outputs.counts}"
      outputs: { counts: { file: counts.txt } }
"#;

/// How many stages of a record have a status, by the name before the brackets.
fn count(record: &Value, stage: &str, status: &str) -> usize {
    let stages = record["stages"].as_object().unwrap().iter();
    let is_one = |id: &str| id.split('[').next() == Some(stage);
    stages.filter(|(id, record)| is_one(id) && record["status"] == status).count()
}

fn total(record: &Value, status: &str) -> usize {
    record["stages"].as_object().unwrap().values().filter(|stage| stage["status"] == status).count()
}

#[test]
fn every_combination_is_a_stage_that_is_cached_by_itself() {
    let project = Project::new(SWEEP);
    let first = project.run(&[]);
    // Overlaps that make no difference to small documents yield the same chunks, and what comes after them is computed once.
    assert_eq!((count(&first, "chunks", "done"), total(&first, "done") + total(&first, "cached")), (4, 1 + 3 * 4 + 1));
    let run = project.runs().pop().unwrap();
    let counts = fs::read_to_string(run.join("artifacts/counted/counts.txt")).unwrap();
    assert_eq!(counts.lines().map(str::trim).collect::<Vec<_>>(), ["6"; 4], "three queries with two negatives each");
    assert!(run.join("artifacts/chunks[size=24,overlap=6]/chunks.jsonl").is_file());
    assert!(run.join("logs/chunks[size=24,overlap=6].log").is_file());
    assert_eq!(total(&project.run(&[]), "cached"), 14);
    // Another value computes its own combinations only.
    let more = project.run(&["--set", "stages.chunks.matrix.size=[12, 24, 18]"]);
    assert_eq!((count(&more, "chunks", "done"), count(&more, "chunks", "cached"), total(&more, "failed")), (2, 4, 0));
    assert!(reasons(&more, "counted").contains("all[size=18,overlap=0]"), "{}", reasons(&more, "counted"));
    let fewer = project.run(&["--set", "stages.chunks.matrix.size=[24]"]);
    assert_eq!((total(&fewer, "done"), count(&fewer, "counted", "done")), (1, 1));
}

#[test]
fn the_key_of_a_combination_is_that_of_the_stage_written_by_hand() {
    let project = Project::new(SWEEP);
    project.run(&[]);
    let lock = fs::read_to_string(project.runs()[0].join("pipeline.lock.yaml")).unwrap();
    project.write("pipelines/lock.yaml", lock);
    let again = project.retune(&["run", "pipelines/lock.yaml", "--json"]).succeeded().json();
    assert_eq!((total(&again, "cached"), total(&again, "done")), (14, 0));
    let by_hand = "stages:
  docs: { uses: load, with: { path: ../docs } }
  c: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 6 } }
  j: { uses: judge, inputs: { chunks: c }, with: { queries: ../queries.jsonl } }
";
    project.write("pipelines/hand.yaml", by_hand);
    let hand = project.retune(&["run", "pipelines/hand.yaml", "--json"]).succeeded().json();
    assert_eq!((total(&hand, "cached"), total(&hand, "done")), (3, 0));
}

#[test]
fn combinations_are_named_together_and_one_by_one() {
    let project = Project::new(SWEEP);
    project.run(&[]);
    let all = project.run(&["--force", "chunks"]);
    assert_eq!((count(&all, "chunks", "done"), total(&all, "done")), (4, 4));
    let one = project.run(&["--only", "triplets[size=24,overlap=6]", "--force", "triplets[size=24,overlap=6]"]);
    assert_eq!((count(&one, "triplets", "done"), total(&one, "done")), (1, 1));
}
