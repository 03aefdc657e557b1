//! Stages that use definitions: what they expand to, and what users see when something is wrong.

use std::fs;

use super::*;

/// A folder with a pipeline and definitions.
pub(super) struct Folder(pub tempfile::TempDir, pub Allowed);

impl Folder {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap(), Allowed::anywhere());
        for (name, text) in files {
            let path = folder.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    pub fn load(&self, sets: &[&str]) -> Result<Pipeline, PipelineError> {
        let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
        load(&self.0.path().join("pipelines/a.yaml"), &overrides, &self.1)
    }

    /// What is wrong, without the folder's own path.
    pub fn drawn(&self) -> String {
        self.shown(&self.load(&[]).err().unwrap().render(false))
    }

    pub fn lines(&self) -> String {
        self.shown(&self.load(&[]).err().unwrap().to_string())
    }

    pub fn shown(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// A definition of everything: two inputs, parameters with and without default, two outputs.
pub(super) const GAIN: &str = "\
inputs:
  baseline: model
  tuned: { kind: model, description: the better model }
  judgements: judgements
params: { k: { default: 10 }, name: {} }
outputs: { metrics: after.metrics, table: table }
stages:
  before: { uses: evaluate, inputs: { model: inputs.baseline, judgements: inputs.judgements }, with: { ndcg_at: [\"${params.k}\"] } }
  after: { uses: evaluate, inputs: { model: inputs.tuned, judgements: inputs.judgements }, with: { ndcg_at: [\"${params.k}\"] } }
  table: { uses: compare, inputs: { baseline: before, tuned: after }, with: { measures: [\"ndcg@${params.k}\"], tuned_name: \"${params.name}\" } }
";

/// The stages that the pipelines here feed to definitions.
const HEAD: &str = "\
params: { deep: 20, text: '$${x}' }
stages:
  base: { uses: model, with: { source: a } }
  other: { uses: model, with: { source: b } }
  judged: { uses: judge, with: { queries: q.jsonl } }
";

/// A pipeline of [`HEAD`] and more stages, beside the definitions.
fn folder(stages: &str, definitions: &[(&str, &str)]) -> Folder {
    let pipeline = format!("{HEAD}{stages}");
    Folder::new(&[&[("pipelines/a.yaml", pipeline.as_str())], definitions].concat())
}

/// Everything that decides the keys: kinds, parameters and edges.
pub(super) fn content(pipeline: &Pipeline) -> Vec<(&str, &Value, &Vec<Edge>)> {
    pipeline.stages.iter().map(|node| (node.kind.name, &node.configured.parameters, &node.inputs)).collect()
}

pub(super) fn ids(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.stages.iter().map(|node| node.id.as_str()).collect()
}

const USE: &str = "  gain: { uses: ../stages/gain.yaml, inputs: { baseline: base, tuned: other, judgements: judged }, with: { k: \"${params.deep}\", name: \"${params.text}\" } }\n";

#[test]
fn a_definition_is_the_same_as_its_stages_written_out() {
    let used = folder(
        &format!("{USE}  both: {{ uses: compare, inputs: {{ baseline: gain, tuned: gain.metrics }} }}\n"),
        &[("stages/gain.yaml", GAIN)],
    );
    let by_hand = folder(
        "  before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { ndcg_at: [20] } }
  after: { uses: evaluate, inputs: { model: other, judgements: judged }, with: { ndcg_at: [20] } }
  table: { uses: compare, inputs: { baseline: before, tuned: after }, with: { measures: [ndcg@20], tuned_name: '$${x}' } }
  both: { uses: compare, inputs: { baseline: after, tuned: after } }\n",
        &[],
    );
    let (used, by_hand) = (used.load(&[]).unwrap(), by_hand.load(&[]).unwrap());
    assert_eq!(content(&used), content(&by_hand));
    assert_eq!(ids(&used), ["base", "other", "judged", "gain/before", "gain/after", "gain/table", "both"]);
    assert_eq!(parameters(&used, "gain/table")["tuned_name"], json!("${x}"));
}

#[test]
fn a_pipeline_with_definitions_is_written_out_without_them() {
    let folder = folder(USE, &[("stages/gain.yaml", GAIN)]);
    let pipeline = folder.load(&["stages.gain.with.k=5"]).unwrap();
    assert_eq!(parameters(&pipeline, "gain/before")["ndcg_at"], json!([5]));
    let lock = pipeline.resolved();
    let again = parse(&lock, Path::new("elsewhere/lock.yaml"), &[], &Allowed::anywhere()).unwrap();
    assert_eq!((content(&again), ids(&again), again.resolved()), (content(&pipeline), ids(&pipeline), lock));
    assert!(again.resolved().contains("baseline: gain/before.metrics"), "{}", again.resolved());
    let set = [Override::parse("stages.gain/after.with.map_at=[7]").unwrap()];
    let again = parse(&pipeline.resolved(), Path::new("elsewhere/lock.yaml"), &set, &Allowed::anywhere()).unwrap();
    assert_eq!(parameters(&again, "gain/after")["map_at"], json!([7]));
}

#[test]
fn definitions_use_definitions() {
    let outer = "
inputs: { first: model, second: model, judged: judgements }
params: { depth: {}, label: { default: \"at ${params.depth}\" } }
outputs: { comparison: inner.table }
stages:
  inner:
    uses: ./deeper/gain.yaml
    inputs: { baseline: inputs.first, tuned: inputs.second, judgements: inputs.judged }
    with: { k: \"${params.depth}\", name: \"${params.label}\" }
";
    let stages =
        "  outer: { uses: ../stages/outer.yaml, inputs: { first: base, second: other, judged: judged }, with: { depth: 3 } }\n";
    let folder = folder(stages, &[("stages/outer.yaml", outer), ("stages/deeper/gain.yaml", GAIN)]);
    let pipeline = folder.load(&[]).unwrap();
    assert_eq!(ids(&pipeline)[3..], ["outer/inner/before", "outer/inner/after", "outer/inner/table"]);
    assert_eq!(parameters(&pipeline, "outer/inner/after")["ndcg_at"], json!([3]));
    assert_eq!(parameters(&pipeline, "outer/inner/table")["tuned_name"], json!("at 3"));
}

#[test]
fn optional_inputs_may_be_left_out() {
    let definition = "
inputs: { model: model, triplets: triplets, eval: { kind: judgements, optional: true } }
outputs: { model: tuned }
stages:
  tuned: { uses: train, inputs: { model: inputs.model, triplets: inputs.triplets, eval: inputs.eval } }
";
    let stages = "  mined: { uses: mine, inputs: { judgements: judged } }
  with: { uses: ../stages/tune.yaml, inputs: { model: base, triplets: mined, eval: judged } }
  without: { uses: ../stages/tune.yaml, inputs: { model: with, triplets: mined } }\n";
    let pipeline = folder(stages, &[("stages/tune.yaml", definition)]).load(&[]).unwrap();
    let ports = |id: &str| -> Vec<&str> {
        pipeline.stages.iter().find(|node| node.id == id).unwrap().inputs.iter().map(|edge| edge.port.as_str()).collect()
    };
    assert_eq!(ports("with/tuned"), ["model", "triplets[triplets]", "eval"]);
    assert_eq!(ports("without/tuned"), ["model", "triplets[triplets]"]);
}

#[test]
fn what_does_not_fit_the_definition_is_shown_in_the_pipeline() {
    let folder = folder(
        "  lost: { uses: ../stages/gian.yaml }
  gain:
    uses: ../stages/gain.yaml
    inputs: { baseline: judged, tunde: other, judgements: judged }
    with: { kk: 3 }
  after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
  self: { uses: ../stages/gain.yaml, inputs: { baseline: self, tuned: base, judgements: judged }, with: { name: x } }
",
        &[("stages/gain.yaml", GAIN)],
    );
    insta::assert_snapshot!(folder.drawn(), @"
     × there is no file `stages/gian.yaml`
      ╭─[pipelines/a.yaml:6:17]
    5 │   judged: { uses: judge, with: { queries: q.jsonl } }
    6 │   lost: { uses: ../stages/gian.yaml }
      ·                 ───────────────────
    7 │   gain:
      ╰────
     help: did you mean `gain.yaml`?

     × input `baseline` wants model, but stage `judged` yields judgements
       ╭─[pipelines/a.yaml:9:25]
     8 │     uses: ../stages/gain.yaml
     9 │     inputs: { baseline: judged, tunde: other, judgements: judged }
       ·                         ──────
    10 │     with: { kk: 3 }
       ╰────
     help: model can come from `base` and `other`

     × `../stages/gain.yaml` has no input `tunde`
       ╭─[pipelines/a.yaml:9:33]
     8 │     uses: ../stages/gain.yaml
     9 │     inputs: { baseline: judged, tunde: other, judgements: judged }
       ·                                 ─────
    10 │     with: { kk: 3 }
       ╰────
     help: did you mean `tuned`?

     × the parameter `name` of stage `gain` is missing
       ╭─[pipelines/a.yaml:10:5]
     9 │     inputs: { baseline: judged, tunde: other, judgements: judged }
    10 │     with: { kk: 3 }
       ·     ────
    11 │   after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
       ╰────
     help: add `name: …`

     × unknown parameter `kk` of stage `gain`
       ╭─[pipelines/a.yaml:10:13]
     9 │     inputs: { baseline: judged, tunde: other, judgements: judged }
    10 │     with: { kk: 3 }
       ·             ──
    11 │   after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
       ╰────
     help: did you mean `k`?

     × stage `gain` has no output `metric`
       ╭─[pipelines/a.yaml:11:47]
    10 │     with: { kk: 3 }
    11 │   after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
       ·                                               ───────────
    12 │   self: { uses: ../stages/gain.yaml, inputs: { baseline: self, tuned: base, judgements: judged }, with: { name: x } }
       ╰────
     help: did you mean `metrics`?

     × there is no stage `gain/after`
       ╭─[pipelines/a.yaml:11:67]
    10 │     with: { kk: 3 }
    11 │   after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
       ·                                                                   ──────────
    12 │   self: { uses: ../stages/gain.yaml, inputs: { baseline: self, tuned: base, judgements: judged }, with: { name: x } }
       ╰────
     help: the stages are `base`, `other`, `judged`, `lost`, `gain`, `after` and `self`

     × stage `self` cannot be its own input
       ╭─[pipelines/a.yaml:12:58]
    11 │   after: { uses: compare, inputs: { baseline: gain.metric, tuned: gain/after } }
    12 │   self: { uses: ../stages/gain.yaml, inputs: { baseline: self, tuned: base, judgements: judged }, with: { name: x } }
       ·                                                          ────
       ╰────
     help: model can come from `base` and `other`
    ");
}

#[test]
fn what_is_wrong_in_the_definition_is_shown_there() {
    let definition = "
description: [wrong ones]
inputs: { model: model, docs: { kind: document }, corpus: { optional: maybe } }
params: { k: 10, lr: { defualt: 3 } }
outputs: { model: [tuned] }
stages:
  inputs: { uses: model, wiht: {} }
";
    let folder = folder("  tuned: { uses: ../stages/tune.yaml }\n", &[("stages/tune.yaml", definition)]);
    insta::assert_snapshot!(folder.lines(), @"
    stages/tune.yaml:2:14: `description` must be a text, not a list, used at pipelines/a.yaml:6:18
    stages/tune.yaml:3:39: there is no kind of artifact `document`, used at pipelines/a.yaml:6:18
    stages/tune.yaml:3:51: input `corpus` does not say of which kind it is, used at pipelines/a.yaml:6:18
    stages/tune.yaml:4:11: the declaration of `k` must be a mapping, not `10`, used at pipelines/a.yaml:6:18
    stages/tune.yaml:4:24: unknown key `defualt`, used at pipelines/a.yaml:6:18
    stages/tune.yaml:5:20: output `model` must name one stage alone, used at pipelines/a.yaml:6:18
    stages/tune.yaml:7:3: `inputs` cannot be the name of a stage here: it names the inputs of the definition, used at pipelines/a.yaml:6:18
    stages/tune.yaml:7:26: unknown key `wiht`, used at pipelines/a.yaml:6:18
    ");
}

#[test]
fn wrong_edges_and_values_in_the_definition_are_shown_with_their_use() {
    let definition = "
inputs: { model: model, triplets: { kind: triplets, optional: true } }
params: { lr: { default: 2e-5 }, seed: {} }
outputs: { model: tuned, other: tuend, more: measured, worse: tuned.modle }
stages:
  tuned:
    uses: train
    inputs: { model: inputs.triplets, triplets: inputs.triplets }
    with: { lr: \"${params.lr}\", seed: \"${params.sede}\" }
  measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
  seen: { uses: evaluate, inputs: { model: tuned, judgements: inputs }, with: { depth: \"${env.DEPTH}\" } }
";
    let stages = "  good: { uses: ../stages/tune.yaml, inputs: { model: base }, with: { seed: 1 } }
  bad: { uses: ../stages/tune.yaml, inputs: { model: base }, with: { lr: fast, seed: 1 } }\n";
    let folder = folder(stages, &[("stages/tune.yaml", definition)]);
    insta::assert_snapshot!(folder.drawn(), @r#"
     × there is no stage `tuend`
      ╭─[stages/tune.yaml:4:33]
    3 │ params: { lr: { default: 2e-5 }, seed: {} }
    4 │ outputs: { model: tuned, other: tuend, more: measured, worse: tuned.modle }
      ·                                 ─────
    5 │ stages:
      ╰────
     help: did you mean `tuned`?
     used at pipelines/a.yaml:7:16

     × stage `measured` has several outputs
      ╭─[stages/tune.yaml:4:46]
    3 │ params: { lr: { default: 2e-5 }, seed: {} }
    4 │ outputs: { model: tuned, other: tuend, more: measured, worse: tuned.modle }
      ·                                              ────────
    5 │ stages:
      ╰────
     help: name one: `measured.metrics` and `measured.ranking`
     used at pipelines/a.yaml:7:16

     × stage `tuned` has no output `modle`
      ╭─[stages/tune.yaml:4:63]
    3 │ params: { lr: { default: 2e-5 }, seed: {} }
    4 │ outputs: { model: tuned, other: tuend, more: measured, worse: tuned.modle }
      ·                                                               ───────────
    5 │ stages:
      ╰────
     help: did you mean `model`?
     used at pipelines/a.yaml:7:16

     × input `model` wants model, but `inputs.triplets` is of kind triplets
      ╭─[stages/tune.yaml:8:22]
    7 │     uses: train
    8 │     inputs: { model: inputs.triplets, triplets: inputs.triplets }
      ·                      ───────────────
    9 │     with: { lr: "${params.lr}", seed: "${params.sede}" }
      ╰────
     help: model can come from `inputs.model`
     used at pipelines/a.yaml:6:17

     × input `triplets` must be connected, but `inputs.triplets` is optional
      ╭─[stages/tune.yaml:8:49]
    7 │     uses: train
    8 │     inputs: { model: inputs.triplets, triplets: inputs.triplets }
      ·                                                 ───────────────
    9 │     with: { lr: "${params.lr}", seed: "${params.sede}" }
      ╰────
     help: declare `triplets` without `optional`
     used at pipelines/a.yaml:6:17

     × there is no parameter `sede`
       ╭─[stages/tune.yaml:9:40]
     8 │     inputs: { model: inputs.triplets, triplets: inputs.triplets }
     9 │     with: { lr: "${params.lr}", seed: "${params.sede}" }
       ·                                        ──────────────
    10 │   measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
       ╰────
     help: did you mean `seed`?
     used at pipelines/a.yaml:6:17

     × the definition has no input `modle`
       ╭─[stages/tune.yaml:10:48]
     9 │     with: { lr: "${params.lr}", seed: "${params.sede}" }
    10 │   measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
       ·                                                ────────────
    11 │   seen: { uses: evaluate, inputs: { model: tuned, judgements: inputs }, with: { depth: "${env.DEPTH}" } }
       ╰────
     help: did you mean `model`?
     used at pipelines/a.yaml:6:17

     × input `judgements` wants judgements, but stage `tuned` yields model and file
       ╭─[stages/tune.yaml:10:74]
     9 │     with: { lr: "${params.lr}", seed: "${params.sede}" }
    10 │   measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
       ·                                                                          ─────
    11 │   seen: { uses: evaluate, inputs: { model: tuned, judgements: inputs }, with: { depth: "${env.DEPTH}" } }
       ╰────
     help: add a stage that uses `judge`
     used at pipelines/a.yaml:6:17

     × `inputs` alone names no input
       ╭─[stages/tune.yaml:11:63]
    10 │   measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
    11 │   seen: { uses: evaluate, inputs: { model: tuned, judgements: inputs }, with: { depth: "${env.DEPTH}" } }
       ·                                                               ──────
       ╰────
     help: write `inputs.NAME`
     used at pipelines/a.yaml:6:17

     × a definition has no `env`
       ╭─[stages/tune.yaml:11:89]
    10 │   measured: { uses: evaluate, inputs: { model: inputs.modle, judgements: tuned } }
    11 │   seen: { uses: evaluate, inputs: { model: tuned, judgements: inputs }, with: { depth: "${env.DEPTH}" } }
       ·                                                                                         ────────────
       ╰────
     help: declare a parameter, and let the pipeline give it `${env.DEPTH}`
     used at pipelines/a.yaml:6:17
    "#);
    let error = folder.load(&[]).err().unwrap();
    let last = error.reports().pop().unwrap();
    assert_eq!(
        last.places.iter().map(|place| folder.shown(&place.to_string())).collect::<Vec<_>>(),
        ["used at pipelines/a.yaml:6:17"]
    );
}

#[test]
fn values_are_checked_where_the_definition_uses_them() {
    let stages = USE.replace("${params.deep}", "many").replace("text}", "text} ${params.deep}");
    insta::assert_snapshot!(folder(&stages, &[("stages/gain.yaml", GAIN)]).drawn(), @r#"
     × `ndcg_at[0]` must be a whole number that is not negative, not the text `many`
      ╭─[stages/gain.yaml:8:114]
    7 │ stages:
    8 │   before: { uses: evaluate, inputs: { model: inputs.baseline, judgements: inputs.judgements }, with: { ndcg_at: ["${params.k}"] } }
      ·                                                                                                                  ─────────────
    9 │   after: { uses: evaluate, inputs: { model: inputs.tuned, judgements: inputs.judgements }, with: { ndcg_at: ["${params.k}"] } }
      ╰────
     used at pipelines/a.yaml:6:17

     × `ndcg_at[0]` must be a whole number that is not negative, not the text `many`
       ╭─[stages/gain.yaml:9:110]
     8 │   before: { uses: evaluate, inputs: { model: inputs.baseline, judgements: inputs.judgements }, with: { ndcg_at: ["${params.k}"] } }
     9 │   after: { uses: evaluate, inputs: { model: inputs.tuned, judgements: inputs.judgements }, with: { ndcg_at: ["${params.k}"] } }
       ·                                                                                                              ─────────────
    10 │   table: { uses: compare, inputs: { baseline: before, tuned: after }, with: { measures: ["ndcg@${params.k}"], tuned_name: "${params.name}" } }
       ╰────
     used at pipelines/a.yaml:6:17

     × the cut-off `many` of `ndcg@many` is no whole number above 0
       ╭─[stages/gain.yaml:10:90]
     9 │   after: { uses: evaluate, inputs: { model: inputs.tuned, judgements: inputs.judgements }, with: { ndcg_at: ["${params.k}"] } }
    10 │   table: { uses: compare, inputs: { baseline: before, tuned: after }, with: { measures: ["ndcg@${params.k}"], tuned_name: "${params.name}" } }
       ·                                                                                          ──────────────────
       ╰────
     used at pipelines/a.yaml:6:17
    "#);
}

#[test]
fn circles_of_definitions_and_through_definitions_are_named() {
    let file = |uses: &str| format!("stages:\n  in: {{ uses: {uses} }}\n");
    let files =
        [("stages/a.yaml", file("./b.yaml")), ("stages/b.yaml", file("../stages/./c.yaml")), ("stages/c.yaml", file("./b.yaml"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    insta::assert_snapshot!(folder("  x: { uses: ../stages/a.yaml }\n", &files).lines(), @"stages/c.yaml:2:15: definitions use each other in a circle: `stages/b.yaml` → `stages/c.yaml` → `stages/b.yaml`, used at stages/b.yaml:2:15, used at stages/a.yaml:2:15, used at pipelines/a.yaml:6:14");
    let tune = "
inputs: { model: model, triplets: triplets }
outputs: { model: tuned }
stages:
  tuned: { uses: train, inputs: { model: inputs.model, triplets: inputs.triplets } }
";
    let stages = "  mined: { uses: mine, inputs: { judgements: judged } }
  one: { uses: ../stages/tune.yaml, inputs: { model: two, triplets: mined } }
  two: { uses: ../stages/tune.yaml, inputs: { model: one.model, triplets: mined } }\n";
    insta::assert_snapshot!(folder(stages, &[("stages/tune.yaml", tune)]).drawn(), @"
     × stages feed each other in a circle: one/tuned → two/tuned → one/tuned
      ╭─[pipelines/a.yaml:7:54]
    6 │   mined: { uses: mine, inputs: { judgements: judged } }
    7 │   one: { uses: ../stages/tune.yaml, inputs: { model: two, triplets: mined } }
      ·                                                      ───
    8 │   two: { uses: ../stages/tune.yaml, inputs: { model: one.model, triplets: mined } }
      ·                                                      ─────────
      ╰────
     help: take one of these inputs from another stage
    ");
}

#[test]
fn hostile_definitions_are_refused() {
    let chain: Vec<(String, String)> = (1..=9)
        .map(|i| (format!("stages/d{i}.yaml"), format!("stages:\n  s: {{ uses: ./d{}.yaml }}\n", i + 1)))
        .chain([("stages/d10.yaml".into(), "stages: { base: { uses: model, with: { source: x } } }".into())])
        .collect();
    let many: String = (0..40).map(|i| format!("  s{i}: {{ uses: ./half.yaml }}\n")).collect();
    let half: String = (0..300).map(|i| format!("  s{i}: {{ uses: model, with: {{ source: x }} }}\n")).collect();
    let (many, half) = (format!("stages:\n{many}"), format!("stages:\n{half}"));
    let long = "a".repeat(60);
    let long = format!("stages: {{ {long}: {{ uses: model, with: {{ source: x }} }} }}");
    let mut files: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.extend([("stages/many.yaml", many.as_str()), ("stages/half.yaml", &half), ("stages/long.yaml", &long)]);
    files.extend([("stages/empty.yaml", ""), ("stages/list.yaml", "- a"), ("stages/broken.yaml", "a: [")]);
    files.push(("stages/dir.yaml/x", ""));
    let uses = [
        "/etc/x.yaml",
        "../stages/d1.yaml",
        "../stages/empty.yaml",
        "../stages/list.yaml",
        "../stages/broken.yaml",
        "../stages/dir.yaml",
        "../stages/latin.yaml",
        "../stages/large.yaml",
        "../stages/gone.txt",
        "gone.yaml",
        "./a.yaml",
        "\"./\\0.yaml\"",
    ];
    let stages: String = uses.iter().enumerate().map(|(i, uses)| format!("  s{i}: {{ uses: {uses} }}\n")).collect();
    let name = "b".repeat(60);
    let folder = folder(
        &format!(
            "{stages}  {name}: {{ uses: ../stages/long.yaml }}
  s1/x: {{ uses: model, with: {{ source: x }} }}
  large: {{ uses: ../stages/many.yaml }}\n"
        ),
        &files,
    );
    fs::write(folder.0.path().join("stages/latin.yaml"), b"# caf\xe9\n").unwrap();
    fs::File::create(folder.0.path().join("stages/large.yaml")).unwrap().set_len(33 << 20).unwrap();
    insta::assert_snapshot!(folder.lines(), @r"
    pipelines/a.yaml:6:15: the path of a definition must be relative
    pipelines/a.yaml:11:15: `stages/dir.yaml` is no file
    pipelines/a.yaml:13:15: `stages/large.yaml` is larger than the 32 MiB that such a file may have
    pipelines/a.yaml:14:15: `../stages/gone.txt` is no definition
    pipelines/a.yaml:15:15: there is no kind of stage `gone.yaml`
    pipelines/a.yaml:16:16: `pipelines/a.yaml` is the pipeline itself
    pipelines/a.yaml:17:16: `pipelines/\u{0}.yaml` cannot be read: file name contained an unexpected NUL byte
    pipelines/a.yaml:19:3: stage `s1/x` would lie inside of stage `s1`
    stages/d8.yaml:2:14: definitions use definitions more than 8 deep, used at stages/d7.yaml:2:14, used at stages/d6.yaml:2:14, used at stages/d5.yaml:2:14, used at stages/d4.yaml:2:14, used at stages/d3.yaml:2:14, used at stages/d2.yaml:2:14, used at stages/d1.yaml:2:14, used at pipelines/a.yaml:7:15
    stages/empty.yaml:1:1: the definition is empty, used at pipelines/a.yaml:8:15
    stages/list.yaml:1:1: a definition must be a mapping, not a list, used at pipelines/a.yaml:9:15
    stages/broken.yaml:1:4: this is not YAML: while parsing a node, did not find expected node content, used at pipelines/a.yaml:10:15
    stages/latin.yaml:1:6: `stages/latin.yaml` is not UTF-8: byte 0xE9 at offset 5, used at pipelines/a.yaml:12:15
    stages/long.yaml:1:11: the name `bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` is longer than 100 characters, used at pipelines/a.yaml:18:73
    stages/half.yaml:41:3: with what its definitions hold, the pipeline has more than 10000 stages, used at stages/many.yaml:35:16, used at pipelines/a.yaml:20:18
    ");
}

/// A file of this repository.
fn shipped(name: &str) -> Pipeline {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let project = Allowed::only(Path::new(env!("CARGO_MANIFEST_DIR")), []);
    load(&file, &[], &project).unwrap_or_else(|error| panic!("{error}"))
}

/// What a definition does not say is what its stages say.
#[test]
fn shipped_definitions_have_the_defaults_of_their_stages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = format!(
        "{HEAD}  tuning: {{ uses: ../stages/triplet-tuning.yaml, inputs: {{ model: base, judgements: judged, eval: judged }}, with: {{ margin: 0.5 }} }}
  gain: {{ uses: ../stages/before-and-after.yaml, inputs: {{ baseline: base, tuned: tuning, judgements: judged }} }}
  corpus: {{ uses: ../stages/corpus.yaml, with: {{ path: x }} }}
  answers: {{ uses: ../stages/answers-side-by-side.yaml, inputs: {{ baseline: base, tuned: tuning, judgements: judged }} }}\n"
    );
    let pipeline =
        parse(&text, &folder.join("pipelines/a.yaml"), &[], &Allowed::anywhere()).unwrap_or_else(|error| panic!("{error}"));
    let default = |name: &str| {
        let kind = crate::stage::registry::find(name).unwrap();
        (kind.configure)(if name == "load" { json!({ "path": "x" }) } else { json!({}) }).unwrap().parameters
    };
    for (id, kind) in [
        ("gain/before", "evaluate"),
        ("gain/after", "evaluate"),
        ("gain/table", "compare"),
        ("tuning/mined", "mine"),
        ("corpus/documents", "load"),
        ("corpus/chunks", "chunk"),
        ("answers/retrieved", "retrieve"),
        ("answers/answers", "generate"),
        ("answers/projection", "project"),
    ] {
        assert_eq!(parameters(&pipeline, id), default(kind), "{id}");
    }
    let mut train = default("train");
    train["loss"]["margin"] = json!(0.5);
    assert_eq!(parameters(&pipeline, "tuning/tuned"), train);
}

/// The example, and the same put together from definitions.
#[test]
fn shipped_definitions_make_the_shipped_pipeline() {
    let sorted = |pipeline: &Pipeline| {
        let mut stages: Vec<String> =
            pipeline.stages.iter().map(|node| format!("{} {}", node.kind.name, node.configured.parameters)).collect();
        stages.sort();
        stages
    };
    let by_hand = shipped("pipelines/tech-docs.yaml");
    assert_eq!(sorted(&shipped("pipelines/tech-docs-definitions.yaml")), sorted(&by_hand));
    let short = shipped("pipelines/tech-docs-short.yaml");
    assert_eq!((short.name.as_str(), short.stages.len()), ("tech-docs-short", by_hand.stages.len() - 4));
    assert_eq!(parameters(&short, "tuned")["epochs"], json!(1));
    assert_eq!(parameters(&short, "triplets"), parameters(&by_hand, "triplets"));
}

#[test]
fn every_shipped_definition_is_used_by_a_pipeline_and_listed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let pipelines = read("pipelines/tech-docs-definitions.yaml");
    let listed = read("stages/README.md");
    for entry in fs::read_dir(folder.join("stages")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if file::is_yaml(&name) && name != "triplet-tuning.yaml" {
            assert!(pipelines.contains(&format!("../stages/{name}")), "`{name}` is not used");
        }
        assert!(listed.contains(&name) || !file::is_yaml(&name), "`{name}` is not listed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_definition_makes_reading_panic(text in texts(GAIN)) {
        let folder = folder(USE, &[("stages/gain.yaml", &text)]);
        match folder.load(&[]) {
            Ok(pipeline) => prop_assert!(parse(&pipeline.resolved(), Path::new("a.yaml"), &[], &Allowed::anywhere()).is_ok(), "{}", pipeline.resolved()),
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                drawn(Err(error));
            }
        }
    }
}
