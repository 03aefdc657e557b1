//! What runs again and why, what is recorded, and what differs between runs.

mod common;

use std::fs;

use common::{LIGHT, Project, files, reasons, statuses};

#[test]
fn the_second_run_computes_nothing() {
    let project = Project::new(LIGHT);
    let first = project.run(&[]);
    assert_eq!(statuses(&first), "chunks: done, docs: done, judged: done, triplets: done");
    assert_eq!(reasons(&first, "docs"), "it has no earlier result");
    let second = project.run(&[]);
    assert_eq!(statuses(&second), "chunks: cached, docs: cached, judged: cached, triplets: cached");
    for stage in ["docs", "chunks", "judged", "triplets"] {
        assert_eq!(first["stages"][stage]["outputs"], second["stages"][stage]["outputs"]);
        assert_eq!(second["stages"][stage]["computed_by"], first["id"]);
    }
}

#[test]
fn a_run_is_a_directory_that_says_what_happened() {
    let project = Project::new(LIGHT);
    let record = project.run(&[]);
    let runs = project.runs();
    assert_eq!(runs.len(), 1);
    assert!(runs[0].ends_with(record["id"].as_str().unwrap()));
    insta::assert_snapshot!(files(&runs[0]).join("\n"), @"
    .alive
    artifacts/chunks/chunks.jsonl
    artifacts/docs/documents.jsonl
    artifacts/judged/judgements/corpus.jsonl
    artifacts/judged/judgements/qrels/test.tsv
    artifacts/judged/judgements/queries.jsonl
    artifacts/triplets/triplets.jsonl
    events.jsonl
    logs/chunks.log
    logs/docs.log
    logs/judged.log
    logs/triplets.log
    metrics.csv
    metrics.json
    pipeline.lock.yaml
    run.json
    ");
    let chunks = fs::read_to_string(runs[0].join("artifacts/chunks/chunks.jsonl")).unwrap();
    assert!(chunks.lines().count() >= 6 && chunks.contains("A volume keeps data"), "{chunks}");
    let triplets = fs::read_to_string(runs[0].join("artifacts/triplets/triplets.jsonl")).unwrap();
    assert_eq!(triplets.lines().count(), 2 * 3);
    let events = fs::read_to_string(runs[0].join("events.jsonl")).unwrap();
    assert!(events.lines().count() >= 6 && events.contains(r#""event":"run_ended""#));
    assert!(record["stages"]["chunks"]["seconds"].as_f64().unwrap() > 0.0);
    assert!(record["environment"]["host"]["cores"].as_u64().unwrap() > 0);
}

#[test]
fn a_changed_parameter_runs_its_stage_and_what_depends_on_it() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let plan = project.retune(&["plan", "pipelines/p.yaml", "--set", "stages.chunks.with.chunk_size=32"]).succeeded();
    let (first, rest) = plan.stdout().split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(first.starts_with("docs      cached   took "), "{first}");
    insta::assert_snapshot!(rest, @"
    chunks    runs     parameter `chunk_size` 24 → 32
    judged    depends  input `chunks` comes from `chunks`, which runs
    triplets  depends  input `judgements` comes from `judged`, which runs

    1 cached, 1 run, 2 depend on what these yield
    ");
    let record = project.run(&["--set", "stages.chunks.with.chunk_size=32"]);
    assert_eq!(statuses(&record), "chunks: done, docs: cached, judged: done, triplets: done");
    assert_eq!(reasons(&record, "chunks"), "parameter `chunk_size` 24 → 32");
    assert_eq!(reasons(&record, "judged"), "input `chunks` changed");
    assert_eq!(reasons(&record, "triplets"), "input `judgements` changed (from `judged`)");
    // The old value is still in the store.
    assert_eq!(statuses(&project.run(&[])), "chunks: cached, docs: cached, judged: cached, triplets: cached");
}

#[test]
fn a_changed_file_is_named() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    project.write("docs/docker.md", "# Docker\n\nA volume keeps data when the container is removed.\n");
    project.write("docs/new.md", "# New\n\nSomething else.\n");
    let record = project.run(&[]);
    assert_eq!(reasons(&record, "docs"), "file `../docs/docker.md` changed; file `../docs/new.md` is new");
    assert_eq!(statuses(&record), "chunks: done, docs: done, judged: done, triplets: done");
}

#[test]
fn the_same_bytes_stop_the_wave() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let set = "stages.docs.with.include=['*.md', '*.txt']";
    let plan = project.retune(&["plan", "pipelines/p.yaml", "--json", "--set", set]).succeeded().json();
    let verdicts: Vec<&str> = plan["stages"].as_array().unwrap().iter().map(|s| s["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["runs", "depends", "depends", "depends"]);
    let record = project.run(&["--set", set]);
    assert_eq!(statuses(&record), "chunks: cached, docs: done, judged: cached, triplets: cached");
}

#[test]
fn what_is_forced_or_asked_for_alone() {
    let project = Project::new(LIGHT);
    let alone = project.retune(&["run", "pipelines/p.yaml", "--only", "judged"]);
    assert_eq!(alone.status(), 2);
    insta::assert_snapshot!(alone.stderr(), @"error: `--only` runs `judged` alone, and needs `docs`, `chunks` from the store, which does not have it; run without `--only`");
    assert!(project.runs().is_empty(), "nothing must have run");
    project.run(&[]);
    let forced = project.run(&["--force", "chunks"]);
    assert_eq!(statuses(&forced), "chunks: done, docs: cached, judged: cached, triplets: cached");
    assert_eq!(reasons(&forced, "chunks"), "forced by `--force`");
    let only = project.run(&["--only", "judged", "--force", "judged"]);
    assert_eq!(statuses(&only), "chunks: cached, docs: cached, judged: done, triplets: skipped");
    let unknown = project.retune(&["run", "pipelines/p.yaml", "--force", "chunk"]);
    assert_eq!(unknown.status(), 2);
    insta::assert_snapshot!(unknown.stderr(), @"error: there is no stage `chunk`; the pipeline has `docs`, `chunks`, `judged`, `triplets`");
}

#[test]
fn runs_are_listed_shown_and_compared() {
    let project = Project::new(LIGHT);
    let first = project.run(&[]);
    let second = project.run(&["--set", "stages.triplets.with.seed=8"]);
    let list = project.retune(&["runs", "--json"]).succeeded().json();
    let ids: Vec<&serde_json::Value> = list.as_array().unwrap().iter().map(|r| &r["id"]).collect();
    assert_eq!(ids, [&second["id"], &first["id"]], "the latest first, within a second too");
    let (a, b) = (first["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    let diff = project.retune(&["diff", a, b, "--json"]).succeeded().json();
    assert_eq!(diff["stages"][0]["stage"], "triplets");
    assert_eq!(diff["stages"][0]["changes"][0]["name"], "seed");
    let diff = project.retune(&["diff", "latest~1", "latest"]).succeeded().stdout();
    assert!(diff.contains("triplets  parameter `seed` 7 → 8"), "{diff}");
    let show = project.retune(&["show", &b[..b.len() - 1]]).succeeded().stdout();
    assert!(show.contains(b) && show.contains("parameter `seed` 7 → 8"), "{show}");
    let nothing = project.retune(&["show", "nothing"]);
    assert_eq!(nothing.status(), 2);
    assert!(nothing.stderr().contains("no run is called `nothing`"));
}

#[test]
fn two_processes_compute_each_stage_once() {
    let project = Project::new(LIGHT);
    let start = || project.command(&["run", "pipelines/p.yaml", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (a, b) = (start(), start());
    let ended = [a, b].map(|child| common::Ended(child.wait_with_output().unwrap()).succeeded().json());
    for stage in ["docs", "chunks", "judged", "triplets"] {
        let mut both = ended.clone().map(|r| r["stages"][stage]["status"].as_str().unwrap().to_owned());
        both.sort();
        assert_eq!(both, ["cached", "done"], "{stage}");
    }
}

#[test]
fn a_failing_stage_leaves_the_others_results() {
    let project = Project::new(LIGHT);
    project.write("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"nowhere to be found\"]}\n");
    let failed = project.retune(&["run", "pipelines/p.yaml", "--json"]);
    assert_eq!(failed.status(), 1);
    let record = failed.json();
    assert_eq!(record["status"], "failed");
    assert_eq!(statuses(&record), "chunks: done, docs: done, judged: failed, triplets: skipped");
    assert!(record["stages"]["judged"]["error"].as_str().unwrap().contains("q1"));
    project.write("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"volume\"]}\n");
    assert_eq!(statuses(&project.run(&[])), "chunks: cached, docs: cached, judged: done, triplets: done");
}
