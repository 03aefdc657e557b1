//! What users see when a pipeline is wrong.

use std::fs;

use super::*;

/// What is drawn of the problems whose message has these words: other stages' parameters are no matter of this test.
fn drawn_about(words: &str, text: &str) -> String {
    let Err(mut error) = parse_with(text, &[], &[]) else { return "no problem".into() };
    error.problems.retain(|problem| problem.message().contains(words));
    drawn(Err(error))
}

#[test]
fn unknown_keys_are_shown_at_every_level() {
    let text = "
nmae: a
stages:
  base: { uses: model, wiht: {}, with: { source: x, sha265: y } }
  tuned:
    uses: train
    inputs: { model: base, triplets: base }
    with:
      learning_rate: 1
      loss: { name: triplet, marign: 1.0 }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @r"
     × unknown key `nmae`
      ╭─[pipelines/a.yaml:2:1]
    1 │
    2 │ nmae: a
      · ────
    3 │ stages:
      ╰────
     help: did you mean `name`?

     × unknown key `wiht`
      ╭─[pipelines/a.yaml:4:24]
    3 │ stages:
    4 │   base: { uses: model, wiht: {}, with: { source: x, sha265: y } }
      ·                        ────
    5 │   tuned:
      ╰────
     help: did you mean `with`?

     × unknown parameter `sha265` of stage `base`
      ╭─[pipelines/a.yaml:4:53]
    3 │ stages:
    4 │   base: { uses: model, wiht: {}, with: { source: x, sha265: y } }
      ·                                                     ──────
    5 │   tuned:
      ╰────
     help: did you mean `sha256`?

     × input `triplets` wants triplets, but stage `base` yields model
      ╭─[pipelines/a.yaml:7:38]
    6 │     uses: train
    7 │     inputs: { model: base, triplets: base }
      ·                                      ────
    8 │     with:
      ╰────
     help: add a stage that uses `examples` and `mine`

     × unknown parameter `learning_rate` of stage `tuned`
       ╭─[pipelines/a.yaml:9:7]
     8 │     with:
     9 │       learning_rate: 1
       ·       ─────────────
    10 │       loss: { name: triplet, marign: 1.0 }
       ╰────
     help: the parameters of `train` are `loss`, `losses`, `epochs`, `batch_size`,
           `mini_batch_tokens`, `sampler`, `mixing`, `accumulation`, `precision`, `lr`, `schedule`,
           `warmup_steps`, `warmup_ratio`, `lr_groups`, `layer_decay`, `weight_decay`, `no_decay`,
           `max_grad_norm`, `dropout`, `train` and 9 more

     × unknown key `marign` in `loss` of stage `tuned`
       ╭─[pipelines/a.yaml:10:30]
     9 │       learning_rate: 1
    10 │       loss: { name: triplet, marign: 1.0 }
       ·                              ──────
       ╰────
     help: did you mean `margin`?
    ");
}

#[test]
fn bad_values_are_shown_where_they_stand() {
    let text = "
stages:
  base: { uses: model }
  tuned:
    uses: train
    inputs: { model: base }
    with:
      lr: 7
      epochs: many
      batch_size: -1
      metric: ndgc@10
      loss: { name: triplet, distance: cosin }
  before:
    uses: evaluate
    with: { convention: beir, ndcg_at: [10, 0], map_at: [x] }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @r"
     × the parameter `source` of stage `base` is missing
      ╭─[pipelines/a.yaml:3:17]
    2 │ stages:
    3 │   base: { uses: model }
      ·                 ─────
    4 │   tuned:
      ╰────
     help: add `with: { source: … }`

     × stage `tuned` lacks its input `triplets` (what to learn from: one data set of pairs, triplets
     │ or tuples, or several)
      ╭─[pipelines/a.yaml:4:3]
    3 │   base: { uses: model }
    4 │   tuned:
      ·   ─────
    5 │     uses: train
      ╰────
     help: add `triplets: STAGE` to `inputs`

     × the learning rate must lie between 0 and 1, for example 2e-5, not 7
      ╭─[pipelines/a.yaml:8:11]
    7 │     with:
    8 │       lr: 7
      ·           ─
    9 │       epochs: many
      ╰────

     × `epochs` must be a whole number that is not negative, not the text `many`
       ╭─[pipelines/a.yaml:9:15]
     8 │       lr: 7
     9 │       epochs: many
       ·               ────
    10 │       batch_size: -1
       ╰────

     × `batch_size` must be a whole number that is not negative, not `-1`
       ╭─[pipelines/a.yaml:10:19]
     9 │       epochs: many
    10 │       batch_size: -1
       ·                   ──
    11 │       metric: ndgc@10
       ╰────

     × `ndgc` is no known measure; did you mean `ndcg`?
       ╭─[pipelines/a.yaml:11:15]
    10 │       batch_size: -1
    11 │       metric: ndgc@10
       ·               ───────
    12 │       loss: { name: triplet, distance: cosin }
       ╰────

     × `cosin` is no value of `loss.distance`
       ╭─[pipelines/a.yaml:12:40]
    11 │       metric: ndgc@10
    12 │       loss: { name: triplet, distance: cosin }
       ·                                        ─────
    13 │   before:
       ╰────
     help: did you mean `cosine`?

     × stage `before` lacks its input `model` (the model to measure)
       ╭─[pipelines/a.yaml:13:3]
    12 │       loss: { name: triplet, distance: cosin }
    13 │   before:
       ·   ──────
    14 │     uses: evaluate
       ╰────
     help: add `inputs: { model: base }`

     × stage `before` lacks its input `judgements` (queries, corpus and judgements)
       ╭─[pipelines/a.yaml:13:3]
    12 │       loss: { name: triplet, distance: cosin }
    13 │   before:
       ·   ──────
    14 │     uses: evaluate
       ╰────
     help: add `inputs: { judgements: STAGE }`

     × `beir` is no value of `convention`
       ╭─[pipelines/a.yaml:15:25]
    14 │     uses: evaluate
    15 │     with: { convention: beir, ndcg_at: [10, 0], map_at: [x] }
       ·                         ────
       ╰────
     help: the values are `trec` and `sentence-transformers`

     × a cut-off must be at least 1
       ╭─[pipelines/a.yaml:15:31]
    14 │     uses: evaluate
    15 │     with: { convention: beir, ndcg_at: [10, 0], map_at: [x] }
       ·                               ───────
       ╰────

     × `map_at[0]` must be a whole number that is not negative, not the text `x`
       ╭─[pipelines/a.yaml:15:58]
    14 │     uses: evaluate
    15 │     with: { convention: beir, ndcg_at: [10, 0], map_at: [x] }
       ·                                                          ─
       ╰────
    ");
}

#[test]
fn unknown_kinds_stages_and_outputs_are_shown() {
    let text = "
stages:
  base: { uses: modle, with: { x: 1 } }
  real: { uses: model, with: { source: x } }
  before: { uses: evaluate, inputs: { model: rael, judgement: real } }
  table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
  self: { uses: compare, inputs: { baseline: self, tuned: real } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × there is no kind of stage `modle`
      ╭─[pipelines/a.yaml:3:17]
    2 │ stages:
    3 │   base: { uses: modle, with: { x: 1 } }
      ·                 ─────
    4 │   real: { uses: model, with: { source: x } }
      ╰────
     help: did you mean `model`?

     × there is no stage `rael`
      ╭─[pipelines/a.yaml:5:46]
    4 │   real: { uses: model, with: { source: x } }
    5 │   before: { uses: evaluate, inputs: { model: rael, judgement: real } }
      ·                                              ────
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
      ╰────
     help: did you mean `real`?

     × `evaluate` has no input `judgement`
      ╭─[pipelines/a.yaml:5:52]
    4 │   real: { uses: model, with: { source: x } }
    5 │   before: { uses: evaluate, inputs: { model: rael, judgement: real } }
      ·                                                    ─────────
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
      ╰────
     help: did you mean `judgements`?

     × stage `before` has no output `metric`
      ╭─[pipelines/a.yaml:6:47]
    5 │   before: { uses: evaluate, inputs: { model: rael, judgement: real } }
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
      ·                                               ─────────────
    7 │   self: { uses: compare, inputs: { baseline: self, tuned: real } }
      ╰────
     help: did you mean `metrics`?

     × input `tuned` wants metrics, but `before.ranking` is of kind ranking
      ╭─[pipelines/a.yaml:6:69]
    5 │   before: { uses: evaluate, inputs: { model: rael, judgement: real } }
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
      ·                                                                     ──────────────
    7 │   self: { uses: compare, inputs: { baseline: self, tuned: real } }
      ╰────
     help: did you mean `before.metrics`?

     × stage `self` cannot be its own input
      ╭─[pipelines/a.yaml:7:46]
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
    7 │   self: { uses: compare, inputs: { baseline: self, tuned: real } }
      ·                                              ────
      ╰────
     help: metrics can come from `before`

     × input `tuned` wants metrics, but stage `real` yields model
      ╭─[pipelines/a.yaml:7:59]
    6 │   table: { uses: compare, inputs: { baseline: before.metric, tuned: before.ranking } }
    7 │   self: { uses: compare, inputs: { baseline: self, tuned: real } }
      ·                                                           ────
      ╰────
     help: metrics can come from `before`
    ");
}

#[test]
fn wrong_edges_name_both_kinds() {
    let text = "
stages:
  docs: { uses: load }
  judged: { uses: judge, inputs: { chunks: docs } }
";
    insta::assert_snapshot!(drawn_about("wants", text), @"
     × input `chunks` wants chunks, but stage `docs` yields documents
      ╭─[pipelines/a.yaml:4:44]
    3 │   docs: { uses: load }
    4 │   judged: { uses: judge, inputs: { chunks: docs } }
      ·                                            ────
      ╰────
     help: add a stage that uses `chunk`
    ");
}

#[test]
fn circles_are_named() {
    let text = "
stages:
  a: { uses: train, inputs: { model: c } }
  b:
    uses: train
    inputs:
      model: a
  c: { uses: train, inputs: { model: b.model } }
";
    insta::assert_snapshot!(drawn_about("circle", text), @"
     × stages feed each other in a circle: a → b → c → a
      ╭─[pipelines/a.yaml:3:38]
    2 │ stages:
    3 │   a: { uses: train, inputs: { model: c } }
      ·                                      ─
    4 │   b:
    5 │     uses: train
    6 │     inputs:
    7 │       model: a
      ·              ─
    8 │   c: { uses: train, inputs: { model: b.model } }
      ·                                      ───────
      ╰────
     help: take one of these inputs from another stage
    ");
}

#[test]
fn keys_given_twice_and_broken_yaml_are_shown() {
    insta::assert_snapshot!(drawn(parse_with("stages:\n  a: { uses: model, with: { source: x } }\n  a: {}\n", &[], &[])), @"
     × the key `a` is given twice
      ╭─[pipelines/a.yaml:2:3]
    1 │ stages:
    2 │   a: { uses: model, with: { source: x } }
      ·   ┬
      ·   ╰── first here
    3 │   a: {}
      ·   ┬
      ·   ╰── again here
      ╰────
     help: remove or rename one of them
    ");
    insta::assert_snapshot!(drawn(parse_with("stages:\n  a:\n    uses: model\n   with: {}\n", &[], &[])), @"
     × this is not YAML: while parsing a block mapping, did not find expected key
      ╭─[pipelines/a.yaml:4:4]
    3 │     uses: model
    4 │    with: {}
      ·    ─
      ╰────
     help: check the indentation, the colons and the quotes here and in the line above
    ");
    insta::assert_snapshot!(drawn(parse_with("stages:\n  a: { uses: model, with: { source: ${params.x} } }\n", &[], &[])), @r#"
     × this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'
      ╭─[pipelines/a.yaml:2:38]
    1 │ stages:
    2 │   a: { uses: model, with: { source: ${params.x} } }
      ·                                      ─
      ╰────
     help: inside of `{ … }` and `[ … ]` quote it: `"${params.x}"`
    "#);
    insta::assert_snapshot!(drawn(parse_with("# nothing\n", &[], &[])), @"
     × the pipeline is empty
      ╭─[pipelines/a.yaml:1:1]
    1 │ # nothing
      · ▲
      ╰────
     help: a minimal pipeline is

           stages:
             base:
               uses: model
               with: { source: all-MiniLM-L6-v2 }
    ");
    insta::assert_snapshot!(drawn(parse_with("stages: [a]\nparams: 3\nname: ../a\nenv: X\n", &[], &[])), @"
     × `stages` must be a mapping, not a list
      ╭─[pipelines/a.yaml:1:1]
    1 │ stages: [a]
      · ──────
    2 │ params: 3
      ╰────
     help: write `key: value` pairs, indented or in `{ … }`

     × `params` must be a mapping, not `3`
      ╭─[pipelines/a.yaml:2:9]
    1 │ stages: [a]
    2 │ params: 3
      ·         ─
    3 │ name: ../a
      ╰────
     help: write `key: value` pairs, indented or in `{ … }`

     × `../a` cannot be a name
      ╭─[pipelines/a.yaml:3:7]
    2 │ params: 3
    3 │ name: ../a
      ·       ────
    4 │ env: X
      ╰────
     help: use letters, digits, `.`, `_` and `-`, with a letter or digit first, at most 100

     × `env` must be a list or a mapping, not a text
      ╭─[pipelines/a.yaml:4:6]
    3 │ name: ../a
    4 │ env: X
      ·      ─
      ╰────
     help: write `env: [NAME]` or `env: { NAME: { default: … } }`
    ");
}

#[test]
fn overrides_are_checked() {
    let text = "params: { rate: 1 }\nstages:\n  base: { uses: model, with: { source: x } }\n";
    let sets = [
        "stages.bsae.with.source=y",
        "params.rat=2",
        "base.source=y",
        "stages.base.with.source.x=1",
        "stages.base.with.sorce=y",
        "stages.base=y",
        "params.rate=[1",
        "seed=1",
    ];
    insta::assert_snapshot!(drawn(parse_with(text, &sets, &[])), @"
     × there is no stage `bsae`
      ╭─[--set:1:1]
    1 │ stages.bsae.with.source=y
      · ───────────────────────
      ╰────
     help: did you mean `base`?

     × there is no parameter `rat`
      ╭─[--set:1:1]
    1 │ params.rat=2
      · ──────────
      ╰────
     help: did you mean `rate`?

     × `base` cannot be set
      ╭─[--set:1:1]
    1 │ base.source=y
      · ───────────
      ╰────
     help: did you mean `stages.base.with.source`?

     × `stages.base.with.source` is a text, so it has no key `x`
      ╭─[--set:1:1]
    1 │ stages.base.with.source.x=1
      · ─────────────────────────
      ╰────
     help: an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`,
           `stages.STAGE.matrix.AXIS`, `params.NAME`, `matrix.AXIS` or `name`

     × unknown parameter `sorce` of stage `base`
      ╭─[--set:1:1]
    1 │ stages.base.with.sorce=y
      · ──────────────────────
      ╰────
     help: did you mean `source`?
     the stage uses `model` at pipelines/a.yaml:3:17

     × `stages.base` cannot be set
      ╭─[--set:1:1]
    1 │ stages.base=y
      · ───────────
      ╰────
     help: an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`,
           `stages.STAGE.matrix.AXIS`, `params.NAME`, `matrix.AXIS` or `name`

     × this is not YAML: while parsing a flow sequence, expected ',' or ']'
      ╭─[--set:1:14]
    1 │ params.rate=[1
      ·              ─
      ╰────
     help: check the indentation, the colons and the quotes here and in the line above

     × `seed` cannot be set
      ╭─[--set:1:1]
    1 │ seed=1
      · ────
      ╰────
     help: an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`,
           `stages.STAGE.matrix.AXIS`, `params.NAME`, `matrix.AXIS` or `name`
    ");
    insta::assert_snapshot!(drawn(Err(Override::parse("params.rate").unwrap_err())), @"
     × an override is written as `PATH=VALUE`
      ╭─[--set:1:1]
    1 │ params.rate
      · ───────────
      ╰────
     help: an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`,
           `stages.STAGE.matrix.AXIS`, `params.NAME`, `matrix.AXIS` or `name`
    ");
    insta::assert_snapshot!(drawn(Err(Override::parse("params..rate=1").unwrap_err())), @"
     × the path `params..rate` has an empty part
      ╭─[--set:1:1]
    1 │ params..rate=1
      · ────────────
      ╰────
     help: an override sets `stages.STAGE.with.PARAMETER`, `stages.STAGE.inputs.PORT`,
           `stages.STAGE.matrix.AXIS`, `params.NAME`, `matrix.AXIS` or `name`
    ");
}

#[test]
fn references_are_checked() {
    let text = r#"
params: { rate: 1, list: [1, 2], a: "${params.b}", b: "x ${params.a}", deep: { low: 1 } }
env: { SET: {}, UNSET: {}, KEY: { secret: true }, DEPTH: { default: 1 } }
stages:
  base:
    uses: model
    with:
      source:
        - ${params.rat}
        - ${param.rate}
        - ${rate}
        - ${env.SETT}
        - ${env.UNSET}
        - ${env.KEY}
        - ${env.OTHER}
        - ${params.deep.lo}
        - ${params.rate.x}
        - a ${params.list} b
        - a ${params.rate
        - ${env.DEPTH}
"#;
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[("SET", "x"), ("DEPTH", "deep")])), @r#"
     × parameters refer to each other in a circle: `a` → `b` → `a`
      ╭─[pipelines/a.yaml:2:58]
    1 │
    2 │ params: { rate: 1, list: [1, 2], a: "${params.b}", b: "x ${params.a}", deep: { low: 1 } }
      ·                                                          ───────────
    3 │ env: { SET: {}, UNSET: {}, KEY: { secret: true }, DEPTH: { default: 1 } }
      ╰────
     help: give one of them a value of its own

     × there is no parameter `rat`
       ╭─[pipelines/a.yaml:9:11]
     8 │       source:
     9 │         - ${params.rat}
       ·           ─────────────
    10 │         - ${param.rate}
       ╰────
     help: did you mean `rate`?

     × `param.rate` names nothing
       ╭─[pipelines/a.yaml:10:11]
     9 │         - ${params.rat}
    10 │         - ${param.rate}
       ·           ─────────────
    11 │         - ${rate}
       ╰────
     help: did you mean `params`?

     × `rate` names nothing
       ╭─[pipelines/a.yaml:11:11]
    10 │         - ${param.rate}
    11 │         - ${rate}
       ·           ───────
    12 │         - ${env.SETT}
       ╰────
     help: did you mean `${params.rate}`?

     × the environment variable `SETT` is not declared under `env`
       ╭─[pipelines/a.yaml:12:11]
    11 │         - ${rate}
    12 │         - ${env.SETT}
       ·           ───────────
    13 │         - ${env.UNSET}
       ╰────
     help: did you mean `SET`?

     × the environment variable `UNSET` is not set
       ╭─[pipelines/a.yaml:13:11]
    12 │         - ${env.SETT}
    13 │         - ${env.UNSET}
       ·           ────────────
    14 │         - ${env.KEY}
       ╰────
     help: set it, or give it a default: `env: { UNSET: { default: … } }`

     × the secret `KEY` cannot be put into a value
       ╭─[pipelines/a.yaml:14:11]
    13 │         - ${env.UNSET}
    14 │         - ${env.KEY}
       ·           ──────────
    15 │         - ${env.OTHER}
       ╰────
     help: secrets are never stored: give the stage the variable's name, and it reads the value when
           it runs

     × the environment variable `OTHER` is not declared under `env`
       ╭─[pipelines/a.yaml:15:11]
    14 │         - ${env.KEY}
    15 │         - ${env.OTHER}
       ·           ────────────
    16 │         - ${params.deep.lo}
       ╰────
     help: declare it: `env: [OTHER]`

     × the parameter `deep` has no `lo`
       ╭─[pipelines/a.yaml:16:11]
    15 │         - ${env.OTHER}
    16 │         - ${params.deep.lo}
       ·           ─────────────────
    17 │         - ${params.rate.x}
       ╰────
     help: did you mean `low`?

     × the parameter `rate` has no `x`
       ╭─[pipelines/a.yaml:17:11]
    16 │         - ${params.deep.lo}
    17 │         - ${params.rate.x}
       ·           ────────────────
    18 │         - a ${params.list} b
       ╰────

     × `params.list` is a list and cannot be a part of a text
       ╭─[pipelines/a.yaml:18:13]
    17 │         - ${params.rate.x}
    18 │         - a ${params.list} b
       ·             ──────────────
    19 │         - a ${params.rate
       ╰────
     help: let the reference be the whole value

     × this `${` is not closed
       ╭─[pipelines/a.yaml:19:13]
    18 │         - a ${params.list} b
    19 │         - a ${params.rate
       ·             ─────────────
    20 │         - ${env.DEPTH}
       ╰────
     help: close it with `}`; write `$${` for a `${` that is meant as it stands

     × the environment variable `DEPTH` has the value `deep`
       ╭─[pipelines/a.yaml:20:11]
    19 │         - a ${params.rate
    20 │         - ${env.DEPTH}
       ·           ────────────
       ╰────
     help: it must be of the same type as its default under `env`
    "#);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("tech.yaml"), "stages: {}").unwrap();
    fs::write(file("latin.yaml"), b"# comment\nname: caf\xe9\n").unwrap();
    let shown =
        |name: &str| drawn(load(&file(name), &[], &Allowed::anywhere())).replace(&folder.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(shown("tehc.yaml"), @"
    × there is no file `FOLDER/tehc.yaml`
    help: did you mean `tech.yaml`?
    ");
    insta::assert_snapshot!(shown("latin.yaml"), @"
     × `FOLDER/latin.yaml` is not UTF-8: byte 0xE9 at offset 19
      ╭─[FOLDER/latin.yaml:2:10]
    1 │ # comment
    2 │ name: caf�
      ·          ─
      ╰────
     help: save the file as UTF-8
    ");
    insta::assert_snapshot!(shown(""), @"
    × `FOLDER/` is a folder
    help: the pipelines in `FOLDER` are `latin.yaml` and `tech.yaml`
    ");
}

#[test]
fn problems_are_data_for_programs() {
    let error = parse_with("stages:\n  é: {}\n", &[], &[]).err().unwrap();
    insta::assert_json_snapshot!(error.to_json(), @r#"
    [
      {
        "column": 3,
        "file": "pipelines/a.yaml",
        "help": "use letters, digits, `_` and `-`, at most 100",
        "line": 2,
        "message": "`é` cannot be a stage's name"
      },
      {
        "column": 3,
        "file": "pipelines/a.yaml",
        "help": "add `uses: KIND`",
        "line": 2,
        "message": "stage `é` does not say which kind of stage it is"
      }
    ]
    "#);
}
