//! Sweeps: sharing, going on, failing, and what is reported.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use common::{LIGHT, Project};
use serde_json::Value;

/// How often each stage was computed, over all runs.
fn computed(project: &Project) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for run in project.runs() {
        let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
        for (stage, _) in record["stages"].as_object().unwrap().iter().filter(|(_, s)| s["status"] == "done") {
            *counts.entry(stage.clone()).or_default() += 1;
        }
    }
    counts
}

/// The record of the one sweep of a project.
fn record(project: &Project) -> Option<Value> {
    let files = fs::read_dir(project.path("runs/sweeps")).ok()?.flatten().map(|e| e.path());
    let file = files.into_iter().find(|f| f.extension().is_some_and(|e| e == "json"))?;
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn count(record: &Value, status: &str) -> usize {
    record["points"].as_array().unwrap().iter().filter(|p| p["status"] == status).count()
}

const SIX: &[&str] = &["sweep", "pipelines/p.yaml", "--over", "chunks.chunk_size=16,24", "--over", "seed=1..3"];

#[test]
fn what_no_axis_changes_is_computed_once() {
    let project = Project::new(LIGHT);
    let ended = project.retune(SIX).succeeded();
    assert_eq!(project.runs().len(), 6);
    let counts = computed(&project);
    assert_eq!(counts["docs"], 1);
    assert_eq!((counts["chunks"], counts["judged"], counts["triplets"]), (2, 2, 6));
    // Each point is an ordinary run with its values.
    let runs = project.retune(&["runs", "--json"]).succeeded().json();
    assert_eq!(runs[0]["overrides"].to_string(), r#"["stages.chunks.with.chunk_size=24","stages.triplets.with.seed=3"]"#);
    let name = record(&project).unwrap()["name"].as_str().unwrap().to_owned();
    let printed = ended.stdout().replace(&name, "NAME");
    insta::assert_snapshot!(printed, @r"
    sweep NAME of pipelines/p.yaml: 6 points, 6 done

      chunks.chunk_size  n  status
      16                 3  done
      24                 3  done
    mean ± standard deviation (n − 1) over seed
    ");
    assert!(ended.stderr().contains("[6/6] chunks.chunk_size=24 seed=3  done  "), "{}", ended.stderr());
    assert!(ended.stderr().contains("1 run, 3 cached"), "{}", ended.stderr());

    // The same command has nothing to do; a changed document is noticed.
    let again = project.retune(SIX).succeeded();
    assert_eq!((again.stderr().matches("done before").count(), project.runs().len()), (6, 6));
    project.write("docs/new.md", "# New\n\nSomething else.\n");
    let changed = project.retune(SIX).succeeded();
    assert_eq!((changed.stderr().matches("runs again, for what it reads has changed").count(), project.runs().len()), (6, 12));

    let shown = project.retune(&["sweep", "--show", &name]).succeeded();
    assert!(shown.stdout().contains("6 points, 6 done"), "{}", shown.stdout());
    let csv = project.retune(&["sweep", "--show", "latest", "--csv"]).succeeded().stdout();
    assert!(csv.starts_with("chunks.chunk_size,seed,best,status,run,seconds\n16,1,false,done,2"), "{csv}");
    assert_eq!(csv.lines().count(), 7);
}

#[test]
fn a_killed_sweep_goes_on() {
    let project = Project::new(LIGHT);
    let arguments = ["sweep", "pipelines/p.yaml", "--over", "triplets.seed=1..60", "--name", "many"];
    let mut child =
        project.command(&arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while record(&project).is_none_or(|record| count(&record, "done") < 5) {
        assert!(started.elapsed() < Duration::from_secs(120), "the sweep did not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = record(&project).unwrap();
    let (done, runs) = (count(&killed, "done"), project.runs().len());
    assert!((5..60).contains(&done) && (done..=done + 1).contains(&runs), "{done} done, {runs} runs");
    let ended = project.retune(&arguments).succeeded();
    assert_eq!(ended.stderr().matches("done before").count(), done);
    assert_eq!(project.runs().len(), runs + 60 - done);
    let whole = record(&project).unwrap();
    assert_eq!(count(&whole, "done"), 60);
    assert_eq!(whole["points"][0]["run"], killed["points"][0]["run"], "what was done is kept");
    assert_eq!(computed(&project).values().copied().max(), Some(60));
}

#[test]
fn a_point_that_fails_does_not_stop_the_others_and_is_tried_again() {
    let project = Project::new(LIGHT);
    project.write("bad.jsonl", r#"{"_id": "q", "text": "unanswered", "keywords": ["zzz"]}"#);
    let over = "judged.queries=../missing.jsonl,../bad.jsonl,../queries.jsonl";
    let arguments = ["sweep", "pipelines/p.yaml", "--over", over, "--name", "queries"];
    let ended = project.retune(&arguments);
    assert_eq!(ended.status(), 1, "{}", ended.stderr());
    let sweep = record(&project).unwrap();
    let statuses: Vec<&str> = sweep["points"].as_array().unwrap().iter().map(|p| p["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["failed", "failed", "done"]);
    let first: Vec<String> =
        project.anonymous(&ended.stderr()).lines().filter(|l| l.starts_with('[')).map(str::to_owned).collect();
    assert!(first[0].contains("judged.queries=../missing.jsonl  failed") && first[0].contains("missing.jsonl"), "{first:?}");
    assert!(first[2].contains("bad.jsonl  failed") && first[2].contains("no chunk answers query `q`"), "{first:?}");
    assert!(ended.stdout().contains("3 points, 1 done, 2 failed"), "{}", ended.stdout());

    let queries = fs::read(project.path("queries.jsonl")).unwrap();
    project.write("missing.jsonl", &queries);
    project.write("bad.jsonl", r#"{"_id": "q", "text": "too many requests", "keywords": ["429"]}"#);
    let mended = project.retune(&arguments).succeeded();
    assert_eq!(mended.stderr().matches("done before").count(), 1);
    assert_eq!(count(&record(&project).unwrap(), "done"), 3);
}

#[test]
fn every_point_is_checked_before_the_first_runs() {
    let project = Project::new(LIGHT);
    let message = |arguments: &[&str]| {
        let ended = project.retune(&[&["sweep", "pipelines/p.yaml"], arguments].concat());
        assert_eq!(ended.status(), 2, "{}", ended.stderr());
        ended.stderr()
    };
    let messages = [
        message(&["--over", "chunk_size=16,zero"]),
        message(&["--over", "chunk_sise=16"]),
        message(&["--over", "triplets.sede=1"]),
        message(&["--over", "stages.chunk.with.chunk_size=16"]),
        message(&["--over", "chunk_size=16", "--over", "chunks.chunk_size=24"]),
        message(&["--over", "chunk_size=1..200", "--over", "seed=1..200"]),
        message(&["--over", "chunk_size=uniform(1,2)"]),
        message(&["--over", "seed=1,2", "--random", "3"]),
        message(&["--over", "seed=1", "--repeat", "sed"]),
        message(&["--over", "seed=1", "--name", "../x"]),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
      × `chunk_size` must be a whole number that is not negative, not the text `zero`
       ╭─[--set:1:31]
     1 │ stages.chunks.with.chunk_size=zero
       ·                               ────
       ╰────
      the stage uses `chunk` at pipelines/p.yaml:4:19

    error: `--over chunk_sise=16`: the pipeline has no stage or parameter `chunk_sise`; did you mean `chunk_size`?

    error: `--over triplets.sede=1`: stage `triplets` has no parameter `sede`; did you mean `seed`?

      × there is no stage `chunk`
       ╭─[--set:1:1]
     1 │ stages.chunk.with.chunk_size=16
       · ────────────────────────────
       ╰────
      help: did you mean `chunks`?

    error: two axes set `stages.chunks.with.chunk_size`; put all of its values into one `--over`

    error: these axes have 40000 points, and a sweep may have 10000; give fewer values, or draw some with `--random N`

    error: axis `chunk_size` is drawn at random; say how many points with `--random N`

    error: these axes have only 2 different points, not 3; draw fewer

    error: `--repeat`: there is no axis `sed`; the axes are `seed`

    error: `../x` cannot be the name of a sweep; use up to 100 letters, digits, `.`, `_` and `-`
    ");
    assert_eq!(project.runs().len(), 0);
    let unknown = project.retune(&["sweep", "--show", "nope"]);
    assert_eq!(unknown.status(), 2);
    insta::assert_snapshot!(project.anonymous(&unknown.stderr()), @"error: there are no sweeps in `PROJECT/runs/sweeps`; `retune sweep PIPELINE --over …` makes one");
}

const TUNED: &str = r#"name: tiny
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2 } }
  base: { uses: model, with: { source: all-MiniLM-L6-v2 } }
  tuned: { uses: train, inputs: { model: base, triplets: triplets }, with: { epochs: 1, batch_size: 2, warmup_steps: 0, loss: { name: triplet, margin: 0.5 } } }
  after: { uses: evaluate, inputs: { model: tuned, judgements: judged } }
"#;

#[test]
fn seeds_are_reported_as_mean_and_standard_deviation() {
    let project = Project::new(TUNED);
    let over = ["--over", "tuned.lr=1e-5,5e-4", "--over", "tuned.seed=1..2", "--by", "tuned.loss"];
    let ended = project.retune(&[&["sweep", "pipelines/p.yaml", "--json"], over.as_slice()].concat()).succeeded();
    let summary = ended.json();
    let mut means = Vec::new();
    for group in summary["groups"].as_array().unwrap() {
        let losses: Vec<f64> = group["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| {
                let path = project.path("runs").join(run.as_str().unwrap()).join("metrics.json");
                let metrics: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
                metrics["tuned.loss"].as_f64().unwrap()
            })
            .collect();
        let [a, b] = losses.as_slice() else { panic!("{summary}") };
        let (mean, sd) = ((a + b) / 2.0, (a - b).abs() / 2f64.sqrt());
        let figure = &group["metrics"]["tuned.loss"];
        assert!((figure["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{figure}");
        assert!((figure["sd"].as_f64().unwrap() - sd).abs() < 1e-9, "{figure}");
        assert_eq!(figure["n"], 2);
        means.push(mean);
    }
    assert!(means[0] < means[1] && summary["by"]["minimize"] == true, "{means:?}");
    assert_eq!(summary["groups"][0]["best"], true);
    let table = project.retune(&["sweep", "--show", "latest"]).succeeded().stdout();
    assert!(table.contains("after.ndcg@10") && table.contains(" ± "), "{table}");
    let wrong = project.retune(&["sweep", "--show", "latest", "--by", "after.ndgc@10"]);
    assert_eq!(wrong.status(), 2);
    insta::assert_snapshot!(wrong.stderr(), @"error: no point has a metric `after.ndgc@10`; did you mean `after.ndcg@10`?");
}
