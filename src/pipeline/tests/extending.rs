//! Pipelines that extend others: what they are then, and what users see when something is wrong.

use std::fs;

use super::definitions::{Folder, GAIN, content, ids};
use super::*;

const BASE: &str = "\
name: base
description: two models and what sets them apart
params: { source: all-MiniLM-L6-v2, rates: { low: 1e-5, high: 5e-5 }, unused: 1 }
env: { DEPTH: { default: 100 } }
stages:
  base: { uses: model, with: { source: \"${params.source}\" } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  mined: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2, seed: 1 } }
  tuned:
    uses: train
    inputs: { model: base, triplets: mined, eval: judged }
    with:
      lr: \"${params.rates.low}\"
      epochs: 3
      loss: { name: triplet, distance: cosine, margin: 0.1 }
  before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { ndcg_at: [5, 10] } }
  after: { uses: evaluate, inputs: { model: tuned, judgements: judged }, with: { ndcg_at: [5, 10] } }
";

/// A pipeline over [`BASE`].
fn over(text: &str) -> Folder {
    Folder::new(&[("pipelines/base.yaml", BASE), ("pipelines/a.yaml", &format!("extends: ./base.yaml\n{text}"))])
}

#[test]
fn an_extending_pipeline_is_the_base_with_other_parts() {
    let folder = over(
        "
params: { rates: { low: 3e-5 }, unused: ~ }
stages:
  tuned:
    inputs: { eval: ~ }
    with: { epochs: 1, loss: { margin: 0.5 } }
  before: { with: { ndcg_at: [3] } }
  mined: ~
  after: ~
  triplets: { uses: mine, inputs: { judgements: judged } }
",
    );
    let error = folder.shown(&folder.load(&[]).err().unwrap().to_string());
    let gone = "there is no stage `mined`, taken out at pipelines/a.yaml:9:3, extended at pipelines/a.yaml:1:10";
    assert!(error.contains(gone), "{error}");
    let pipeline = folder.load(&["stages.tuned.inputs.triplets=triplets", "params.rates.low=4e-5"]).unwrap();
    insta::assert_snapshot!(pipeline.resolved(), @r#"
    name: a
    description: "two models and what sets them apart"
    params:
      rates: { high: 0.00005, low: 0.00004 }
      source: all-MiniLM-L6-v2
    env:
      DEPTH: { default: 100 }
    stages:
      base:
        uses: model
        with:
          source: all-MiniLM-L6-v2
      judged:
        uses: judge
        with:
          match: substring
          queries: q.jsonl
          split: test
          without_judgements: fail
      before:
        uses: evaluate
        inputs:
          model: base.model
          judgements: judged.judgements
        with:
          accuracy_at: [1, 3, 5, 10]
          convention: trec
          depth: 100
          device: auto
          map_at: [100]
          mrr_at: [10]
          ndcg_at: [3]
          precision: fp32
          precision_recall_at: [1, 3, 5, 10]
      triplets:
        uses: mine
        inputs:
          judgements: judged.judgements
        with:
          device: auto
          format: triplet
          negatives: 1
          negatives_from: random
          precision: fp32
          range_max: 20
          range_min: 0
          scores: false
          seed: 42
      tuned:
        uses: train
        inputs:
          model: base.model
          triplets:
            triplets: triplets.triplets
        with:
          accumulation: 1
          batch_size: 8
          checkpoint_steps: 100
          device: auto
          epochs: 1
          eval_steps: 50
          layer_decay: 1.0
          loss: { distance: cosine, margin: 0.5, name: triplet }
          lr: 0.00004
          max_grad_norm: 1.0
          metric: ndcg@10
          mini_batch_tokens: 0
          mixing: proportional
          patience: 0
          precision: auto
          schedule: linear
          seed: 42
          train: all
          warmup_steps: 10
          weight_decay: 0.01
    "#);
    let again = parse(&pipeline.resolved(), Path::new("elsewhere/lock.yaml"), &[], &Allowed::anywhere()).unwrap();
    assert_eq!((content(&again), ids(&again)), (content(&pipeline), ids(&pipeline)));
}

#[test]
fn what_uses_or_a_name_chooses_is_not_mixed_with_the_bases() {
    let folder = over(
        "
stages:
  judged: { uses: judge, with: { match: word } }
  mined: { uses: judge, with: { queries: r.jsonl } }
  tuned: { inputs: { triplets: other }, with: { loss: { name: triplet, margin: 2 } } }
  before: { uses: ../pipelines/gain.yaml, with: { name: x }, inputs: { baseline: base, tuned: tuned, judgements: judged } }
  other: { uses: mine, inputs: { judgements: mined } }
",
    );
    fs::write(folder.0.path().join("pipelines/gain.yaml"), GAIN).unwrap();
    let pipeline = folder.load(&[]).unwrap();
    assert_eq!(parameters(&pipeline, "judged")["queries"], json!("q.jsonl"));
    assert_eq!(parameters(&pipeline, "judged")["match"], json!("word"));
    assert_eq!(parameters(&pipeline, "mined")["queries"], json!("r.jsonl"));
    // The same name: the rest holds.
    assert_eq!(parameters(&pipeline, "tuned")["loss"], json!({ "name": "triplet", "distance": "cosine", "margin": 2.0 }));
    assert_eq!(parameters(&pipeline, "before/table")["tuned_name"], json!("x"));
    let folder = over("stages: { tuned: { with: { loss: { name: other } } } }");
    insta::assert_snapshot!(folder.lines(), @"pipelines/a.yaml:2:42: `other` is no value of `loss.name`, the stage uses `train` at pipelines/base.yaml:10:11");
}

#[test]
fn bases_extend_bases_and_use_definitions_from_where_they_lie() {
    let folder = Folder::new(&[
        ("pipelines/a.yaml", "extends: ../shared/middle.yaml\nstages: { base: { with: { source: c } } }\n"),
        ("shared/middle.yaml", "extends: ./deep/base.yaml\nstages: { gain: { with: { name: middle } } }\n"),
        (
            "shared/deep/base.yaml",
            "stages:
  base: { uses: model, with: { source: a } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  gain: { uses: ../gain.yaml, inputs: { baseline: base, tuned: base, judgements: judged }, with: { k: 3 } }\n",
        ),
        ("shared/gain.yaml", GAIN),
    ]);
    let pipeline = folder.load(&[]).unwrap();
    assert_eq!((pipeline.name.as_str(), pipeline.description.as_deref()), ("a", None));
    assert_eq!(ids(&pipeline), ["base", "judged", "gain/before", "gain/after", "gain/table"]);
    assert_eq!(parameters(&pipeline, "base")["source"], json!("c"));
    assert_eq!(parameters(&pipeline, "gain/table")["tuned_name"], json!("middle"));
    // The same definition by another path is the same use.
    let again = "extends: ../shared/middle.yaml\nstages: { gain: { uses: ../shared/gain.yaml } }\n";
    fs::write(folder.0.path().join("pipelines/a.yaml"), again).unwrap();
    assert_eq!(ids(&folder.load(&[]).unwrap()).len(), 5);
}

#[test]
fn what_is_wrong_is_shown_in_the_file_that_says_it() {
    let folder = over(
        "
parms: {}
stages:
  tuned: { with: { epoch: 1, lr: fast }, inputs: { triplet: mined } }
  tunde: ~
  before: { with: { depth: \"${params.depth}\" } }
  base: ~
",
    );
    insta::assert_snapshot!(folder.drawn(), @r#"
     × unknown key `parms`
      ╭─[pipelines/a.yaml:3:1]
    2 │
    3 │ parms: {}
      · ─────
    4 │ stages:
      ╰────
     help: did you mean `params`?

     × unknown parameter `epoch` of stage `tuned`
      ╭─[pipelines/a.yaml:5:20]
    4 │ stages:
    5 │   tuned: { with: { epoch: 1, lr: fast }, inputs: { triplet: mined } }
      ·                    ─────
    6 │   tunde: ~
      ╰────
     help: did you mean `epochs`?
     the stage uses `train` at pipelines/base.yaml:10:11

     × `lr` must be a number, not the text `fast`
      ╭─[pipelines/a.yaml:5:34]
    4 │ stages:
    5 │   tuned: { with: { epoch: 1, lr: fast }, inputs: { triplet: mined } }
      ·                                  ────
    6 │   tunde: ~
      ╰────
     the stage uses `train` at pipelines/base.yaml:10:11

     × `train` has no input `triplet`
      ╭─[pipelines/a.yaml:5:52]
    4 │ stages:
    5 │   tuned: { with: { epoch: 1, lr: fast }, inputs: { triplet: mined } }
      ·                                                    ───────
    6 │   tunde: ~
      ╰────
     help: did you mean `triplets`?

     × there is no stage `tunde` to take out of what this pipeline extends
      ╭─[pipelines/a.yaml:6:3]
    5 │   tuned: { with: { epoch: 1, lr: fast }, inputs: { triplet: mined } }
    6 │   tunde: ~
      ·   ─────
    7 │   before: { with: { depth: "${params.depth}" } }
      ╰────
     help: did you mean `tuned`?

     × there is no parameter `depth`
      ╭─[pipelines/a.yaml:7:29]
    6 │   tunde: ~
    7 │   before: { with: { depth: "${params.depth}" } }
      ·                             ───────────────
    8 │   base: ~
      ╰────
     help: the parameters are `source`, `rates` and `unused`

     × there is no stage `base`
       ╭─[pipelines/base.yaml:11:22]
    10 │     uses: train
    11 │     inputs: { model: base, triplets: mined, eval: judged }
       ·                      ────
    12 │     with:
       ╰────
     help: the stages are `judged`, `mined`, `tuned`, `before` and `after`
     taken out at pipelines/a.yaml:8:3
     extended at pipelines/a.yaml:1:10

     × there is no stage `base`
       ╭─[pipelines/base.yaml:16:46]
    15 │       loss: { name: triplet, distance: cosine, margin: 0.1 }
    16 │   before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { ndcg_at: [5, 10] } }
       ·                                              ────
    17 │   after: { uses: evaluate, inputs: { model: tuned, judgements: judged }, with: { ndcg_at: [5, 10] } }
       ╰────
     help: the stages are `judged`, `mined`, `tuned`, `before` and `after`
     taken out at pipelines/a.yaml:8:3
     extended at pipelines/a.yaml:1:10
    "#);
    let places = folder.load(&[]).err().unwrap().reports().pop().unwrap().places;
    insta::assert_snapshot!(folder.shown(&serde_json::to_string(&places).unwrap()), @r#"[{"what":"taken out","file":"pipelines/a.yaml","line":8,"column":3},{"what":"extended","file":"pipelines/a.yaml","line":1,"column":10}]"#);
}

#[test]
fn bases_that_cannot_be_used_are_named() {
    let file = |extends: &str| format!("extends: {extends}\n");
    let deep: Vec<(String, String)> =
        (0..10).map(|i| (format!("pipelines/d{i}.yaml"), file(&format!("./d{}.yaml", i + 1)))).collect();
    let mut files: Vec<(&str, &str)> = deep.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.extend([
        ("pipelines/base.yaml", BASE),
        ("pipelines/one.yaml", "extends: ./two.yaml"),
        ("pipelines/two.yaml", "extends: ../pipelines/one.yaml"),
        ("pipelines/self.yaml", "extends: ./a.yaml"),
        ("pipelines/list.yaml", "- a"),
        ("pipelines/empty.yaml", ""),
        ("pipelines/broken.yaml", "a: ["),
        ("pipelines/uses-a.yaml", "stages: { a: { uses: ./a.yaml } }"),
    ]);
    let folder = Folder::new(&files);
    let mut lines = Vec::new();
    for extends in [
        "./bsae.yaml",
        "base.yaml",
        "/etc/passwd",
        "./list.yaml",
        "./empty.yaml",
        "./broken.yaml",
        "./one.yaml",
        "./self.yaml",
        "./a.yaml",
        "./d0.yaml",
        "[./base.yaml]",
        "''",
        "./uses-a.yaml",
        "./base.txt",
    ] {
        fs::write(folder.0.path().join("pipelines/a.yaml"), file(extends)).unwrap();
        lines.push(folder.lines());
    }
    insta::assert_snapshot!(lines.join("\n"), @"
    pipelines/a.yaml:1:10: there is no file `pipelines/bsae.yaml`
    pipelines/a.yaml:1:10: `base.yaml` is no path
    pipelines/a.yaml:1:10: the path of a pipeline must be relative
    pipelines/list.yaml:1:1: a pipeline must be a mapping, not a list, extended at pipelines/a.yaml:1:10
    pipelines/empty.yaml:1:1: a pipeline must be a mapping, not nothing, extended at pipelines/a.yaml:1:10
    pipelines/broken.yaml:1:4: this is not YAML: while parsing a node, did not find expected node content, extended at pipelines/a.yaml:1:10
    pipelines/two.yaml:1:10: pipelines extend each other in a circle: `pipelines/one.yaml` → `pipelines/two.yaml` → `pipelines/one.yaml`, extended at pipelines/one.yaml:1:10, extended at pipelines/a.yaml:1:10
    pipelines/self.yaml:1:10: pipelines extend each other in a circle: `pipelines/a.yaml` → `pipelines/self.yaml` → `pipelines/a.yaml`, extended at pipelines/a.yaml:1:10
    pipelines/a.yaml:1:10: pipelines extend each other in a circle: `pipelines/a.yaml` → `pipelines/a.yaml`
    pipelines/d7.yaml:1:10: pipelines extend each other more than 8 deep, extended at pipelines/d6.yaml:1:10, extended at pipelines/d5.yaml:1:10, extended at pipelines/d4.yaml:1:10, extended at pipelines/d3.yaml:1:10, extended at pipelines/d2.yaml:1:10, extended at pipelines/d1.yaml:1:10, extended at pipelines/d0.yaml:1:10, extended at pipelines/a.yaml:1:10
    pipelines/a.yaml:1:10: `extends` must be a word, not a list
    pipelines/a.yaml:1:10: `extends` must be a word, not a text
    pipelines/uses-a.yaml:1:22: `pipelines/a.yaml` is the pipeline itself, extended at pipelines/a.yaml:1:10
    pipelines/a.yaml:1:10: `./base.txt` is no pipeline
    ");
}
