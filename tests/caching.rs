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
    chunks    runs     under 1 s  parameter `chunk_size` 24 → 32
    judged    depends  under 1 s  input `chunks` comes from `chunks`, which runs
    triplets  depends  under 1 s  input `judgements` comes from `judged`, which runs

    1 cached, 1 run, 2 depend on what these yield; under 1 s
    ");
    let record = project.run(&["--set", "stages.chunks.with.chunk_size=32"]);
    assert_eq!(statuses(&record), "chunks: done, docs: cached, judged: done, triplets: done");
    assert_eq!(reasons(&record, "chunks"), "parameter `chunk_size` 24 → 32");
    assert_eq!(reasons(&record, "judged"), "input `chunks` changed: 4 changed, 2 gone of 6 chunks");
    assert_eq!(reasons(&record, "triplets"), "input `judgements` changed (from `judged`): 2 of 3 files");
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
    insta::assert_snapshot!(unknown.stderr(), @"error: there is no stage `chunk`; did you mean `chunks`?");
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

/// The stage, verdict and first reason of each line of a plan.
fn planned(project: &Project, arguments: &[&str]) -> String {
    let all = [&["plan", "pipelines/p.yaml", "--json"], arguments].concat();
    let plan = project.retune(&all).succeeded().json();
    let line = |s: &serde_json::Value| {
        format!("{} {} {}\n", s["stage"], s["verdict"], s["reasons"][0]["words"].as_str().unwrap_or_default()).replace('"', "")
    };
    plan["stages"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn how_much_of_an_input_changed_is_told() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    project.write("docs/docker.md", "# Docker\n\nA volume keeps data when the container is removed.\n");
    project.write("docs/new.md", "# New\n\nSomething else.\n");
    let until = project.run(&["--until", "chunks"]);
    assert_eq!(statuses(&until), "chunks: done, docs: done, judged: skipped, triplets: skipped");
    assert_eq!(reasons(&until, "chunks"), "input `documents` changed (from `docs`): 1 changed, 1 new of 4 documents");
    insta::assert_snapshot!(planned(&project, &[]), @"
    docs cached 
    chunks cached 
    judged runs input `chunks` changed: 1 changed, 1 new, 2 gone of 7 chunks
    triplets depends input `judgements` comes from `judged`, which runs
    ");
}

#[test]
fn a_collected_result_is_said_to_be() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    fs::remove_dir_all(project.path(".retune/results")).unwrap();
    insta::assert_snapshot!(planned(&project, &["--until", "docs"]), @"
    docs runs its result was collected, or the store was cleared
    chunks skipped 
    judged skipped 
    triplets skipped
    ");
}

#[test]
fn a_frozen_stage_yields_what_it_did() {
    let frozen = LIGHT.replace("  judged: { uses", "  judged: { freeze: true, uses");
    let project = Project::new(&frozen);
    let refused = project.retune(&["run", "pipelines/p.yaml"]);
    assert_eq!(refused.status(), 2);
    insta::assert_snapshot!(refused.stderr(), @"error: stage `judged` is frozen, but the store has no earlier result of it; run it once with `--force 'judged'`");
    let first = project.run(&["--force", "judged"]);
    let set = ["--set", "stages.chunks.with.chunk_size=32"];
    insta::assert_snapshot!(planned(&project, &set), @"
    docs cached 
    chunks runs parameter `chunk_size` 24 → 32
    judged frozen input `chunks` comes from `chunks`, which runs
    triplets cached
    ");
    let second = project.run(&set);
    assert_eq!(statuses(&second), "chunks: done, docs: cached, judged: frozen, triplets: cached");
    insta::assert_snapshot!(reasons(&second, "judged"), @"input `chunks` changed: 4 changed, 2 gone of 6 chunks");
    for field in ["key", "fingerprint", "outputs"] {
        assert_eq!(first["stages"]["judged"][field], second["stages"]["judged"][field], "it says what made it");
    }
    assert!(fs::read_to_string(project.runs()[1].join("pipeline.lock.yaml")).unwrap().contains("freeze: true"));
    // Without `freeze` the same call computes it: what was frozen is not taken for the result of the new chunks.
    project.write("pipelines/p.yaml", LIGHT);
    assert_eq!(statuses(&project.run(&set)), "chunks: cached, docs: cached, judged: done, triplets: done");
    project.write("pipelines/p.yaml", frozen);
    assert_eq!(statuses(&project.run(&["--from", "chunks"])), "chunks: done, docs: cached, judged: frozen, triplets: cached");
}

#[test]
fn a_run_can_begin_and_end_at_a_stage() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let from = project.run(&["--from", "judged"]);
    assert_eq!(statuses(&from), "chunks: cached, docs: cached, judged: done, triplets: done");
    assert_eq!(reasons(&from, "triplets"), "forced by `--from judged`");
    let both = project.run(&["--from", "chunks", "--until", "judged"]);
    assert_eq!(statuses(&both), "chunks: done, docs: cached, judged: done, triplets: skipped");
    let unknown = project.retune(&["plan", "pipelines/p.yaml", "--from", "chunk", "--until", "nothing"]);
    assert_eq!(unknown.status(), 2);
    insta::assert_snapshot!(unknown.stderr(), @"
    error: there is no stage `chunk`; did you mean `chunks`?
    there is no stage `nothing`; the stages are `docs`, `chunks`, `judged` and `triplets`
    ");
}

#[test]
fn the_graph_is_drawn() {
    let project = Project::new(LIGHT);
    project.run(&["--until", "chunks"]);
    let graph = |form: &str| project.retune(&["plan", "pipelines/p.yaml", form]).succeeded().stdout();
    insta::assert_snapshot!(graph("--graph"), @"
    ● docs      cached
    ● chunks    cached
    ● judged    runs    it has no earlier result
    ● triplets  runs    it has no earlier result
    ");
    insta::assert_snapshot!(graph("--graph=dot"), @r##"
    digraph "light" {
      node [shape=box, style="rounded,filled", fontname="sans-serif"];
      edge [fontname="sans-serif", fontsize=10];
      "docs" [label="docs\nload, cached", fillcolor="#eeeeee", color="#999999"];
      "chunks" [label="chunks\nchunk, cached", fillcolor="#eeeeee", color="#999999"];
      "judged" [label="judged\njudge, runs", fillcolor="#cfe8cf", color="#2e7d32"];
      "triplets" [label="triplets\nmine, runs", fillcolor="#cfe8cf", color="#2e7d32"];
      "docs" -> "chunks" [label="documents"];
      "chunks" -> "judged" [label="chunks"];
      "judged" -> "triplets" [label="judgements"];
    }
    "##);
    insta::assert_snapshot!(graph("--graph=mermaid"), @r#"
    flowchart TB
      s0("docs<br/>load, cached"):::cached
      s1("chunks<br/>chunk, cached"):::cached
      s2("judged<br/>judge, runs"):::runs
      s3("triplets<br/>mine, runs"):::runs
      s0 -->|"documents"| s1
      s1 -->|"chunks"| s2
      s2 -->|"judgements"| s3
      classDef cached fill:#eeeeee,stroke:#999999,color:#222222
      classDef runs fill:#cfe8cf,stroke:#2e7d32,color:#222222
    "#);
    let json = project.retune(&["plan", "pipelines/p.yaml", "--graph", "--json"]).succeeded().json();
    assert_eq!(
        json["edges"][0],
        serde_json::json!({ "from": "docs", "output": "documents", "to": "chunks", "port": "documents" })
    );
}

#[test]
fn the_record_is_whole_when_the_program_is_killed() {
    // Long enough to be killed in the middle.
    let stages: String =
        (0..400).map(|i| format!("  s{i}: {{ uses: load, with: {{ path: ../docs, exclude: [\"x{i}\"] }} }}\n")).collect();
    let project = Project::new(&format!("name: many\nstages:\n{stages}"));
    let mut child = project.command(&["run", "pipelines/p.yaml"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    let told = loop {
        let events = project.runs().first().map(|run| fs::read_to_string(run.join("events.jsonl")).unwrap_or_default());
        let told = events.unwrap_or_default().matches("stage_ended").count();
        if told >= 20 {
            break told;
        }
        assert!(began.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none(), "it ended with {told} stages");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let show = project.retune(&["show", "latest", "--json"]).succeeded().json();
    assert_eq!(show["status"], "interrupted");
    assert_eq!(show["stages"].as_object().unwrap().len(), 400);
    let cached = project.run(&[])["stages"].as_object().unwrap().values().filter(|s| s["status"] == "cached").count();
    assert!(cached >= told, "{cached} of {told} stages that had ended are cached");
}
