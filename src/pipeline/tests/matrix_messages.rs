//! What is said of a matrix that is wrong.

use super::matrix::{combinations, ids};
use super::*;

#[test]
fn what_is_wrong_with_a_matrix_is_shown() {
    let text = "
matrix: { unused: [1] }
stages:
  a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
  b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
  c: { uses: model, matrix: { x: [1, 1, 2] }, with: { source: '${matrix.xs}' } }
  d: { uses: model, matrix: { size: [128, 256], exclude: [{ sise: 1 }, { size: 12 }], include: { a: 1 } }, with: { source: '${matrix.size}' } }
  e: { uses: model, with: { source: '${matrix.x}' } }
  f: { uses: model, matrix: {}, with: { source: x } }
  g: { uses: model, matrix: { x: [1], include: [{ x: 1 }, 5] }, with: { source: '${matrix.x}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × no stage refers to `${matrix.unused}`
      ╭─[pipelines/a.yaml:2:11]
    1 │
    2 │ matrix: { unused: [1] }
      ·           ──────
    3 │ stages:
      ╰────
     help: use `${matrix.unused}` in the `with` of a stage, or remove the axis

     × `y.z` cannot be an axis's name
      ╭─[pipelines/a.yaml:4:42]
    3 │ stages:
    4 │   a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
      ·                                          ───
    5 │   b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
      ╰────
     help: use letters, digits, `_` and `-`, at most 100

     × axis `w` has no values
      ╭─[pipelines/a.yaml:4:52]
    3 │ stages:
    4 │   a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
      ·                                                    ─
    5 │   b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
      ╰────
     help: write `NAME: [VALUE, VALUE]`, or `NAME: { LABEL: VALUE }`

     × axis `v` must be a list of values, or a mapping of labels to values, not `3`
      ╭─[pipelines/a.yaml:4:62]
    3 │ stages:
    4 │   a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
      ·                                                              ─
    5 │   b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
      ╰────
     help: write `v: [VALUE, VALUE]`

     × stage `b` does not refer to `${matrix.y}`, so its combinations would be equal
      ╭─[pipelines/a.yaml:5:42]
    4 │   a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
    5 │   b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
      ·                                          ─
    6 │   c: { uses: model, matrix: { x: [1, 1, 2] }, with: { source: '${matrix.xs}' } }
      ╰────
     help: use `${matrix.y}` in `with`, or remove the axis

     × axis `x` has this value twice
      ╭─[pipelines/a.yaml:6:38]
    5 │   b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: 'x${matrix.x}' } }
    6 │   c: { uses: model, matrix: { x: [1, 1, 2] }, with: { source: '${matrix.xs}' } }
      ·                                      ─
    7 │   d: { uses: model, matrix: { size: [128, 256], exclude: [{ sise: 1 }, { size: 12 }], include: { a: 1 } }, with: { source: '${matrix.size}' } }
      ╰────
     help: remove one of them

     × `include` must be a list of combinations, not a mapping
      ╭─[pipelines/a.yaml:7:87]
    6 │   c: { uses: model, matrix: { x: [1, 1, 2] }, with: { source: '${matrix.xs}' } }
    7 │   d: { uses: model, matrix: { size: [128, 256], exclude: [{ sise: 1 }, { size: 12 }], include: { a: 1 } }, with: { source: '${matrix.size}' } }
      ·                                                                                       ───────
    8 │   e: { uses: model, with: { source: '${matrix.x}' } }
      ╰────
     help: write `include: [{ AXIS: VALUE, AXIS: VALUE }]`

     × there is no matrix here
      ╭─[pipelines/a.yaml:8:38]
    7 │   d: { uses: model, matrix: { size: [128, 256], exclude: [{ sise: 1 }, { size: 12 }], include: { a: 1 } }, with: { source: '${matrix.size}' } }
    8 │   e: { uses: model, with: { source: '${matrix.x}' } }
      ·                                      ───────────
    9 │   f: { uses: model, matrix: {}, with: { source: x } }
      ╰────
     help: give the stage a `matrix: { x: [ … ] }`, or take an input from a stage that has one

     × the matrix has no axes
       ╭─[pipelines/a.yaml:9:21]
     8 │   e: { uses: model, with: { source: '${matrix.x}' } }
     9 │   f: { uses: model, matrix: {}, with: { source: x } }
       ·                     ──────
    10 │   g: { uses: model, matrix: { x: [1], include: [{ x: 1 }, 5] }, with: { source: '${matrix.x}' } }
       ╰────
     help: write `NAME: [VALUE, VALUE]`, or `NAME: { LABEL: VALUE }`

     × each entry of `include` must be a mapping of axes to values, not `5`
       ╭─[pipelines/a.yaml:10:59]
     9 │   f: { uses: model, matrix: {}, with: { source: x } }
    10 │   g: { uses: model, matrix: { x: [1], include: [{ x: 1 }, 5] }, with: { source: '${matrix.x}' } }
       ·                                                           ─
       ╰────
     help: write `include: [{ AXIS: VALUE, AXIS: VALUE }]`
    ");
    let text = "
stages:
  base: { uses: model, with: { source: x } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  m: { uses: model, matrix: { size: [{ name: small, n: 1 }, { name: large }] }, with: { source: 'n${matrix.size.n}' } }
  one: { uses: evaluate, inputs: { model: 'm[*]', judgements: judged } }
  two: { uses: evaluate, inputs: { model: 'm[sise=small]', judgements: judged } }
  three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
  four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
  five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
  six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × the value `large` of axis `size` has no `n`
      ╭─[pipelines/a.yaml:5:99]
    4 │   judged: { uses: judge, with: { queries: q.jsonl } }
    5 │   m: { uses: model, matrix: { size: [{ name: small, n: 1 }, { name: large }] }, with: { source: 'n${matrix.size.n}' } }
      ·                                                                                                   ────────────────
    6 │   one: { uses: evaluate, inputs: { model: 'm[*]', judgements: judged } }
      ╰────
     help: the keys are `name`

     × input `model` takes one stage alone, and `m[*]` means several
      ╭─[pipelines/a.yaml:6:43]
    5 │   m: { uses: model, matrix: { size: [{ name: small, n: 1 }, { name: large }] }, with: { source: 'n${matrix.size.n}' } }
    6 │   one: { uses: evaluate, inputs: { model: 'm[*]', judgements: judged } }
      ·                                           ──────
    7 │   two: { uses: evaluate, inputs: { model: 'm[sise=small]', judgements: judged } }
      ╰────
     help: write `m`, and there is one such stage for each combination

     × stage `m` has no axis `sise`
      ╭─[pipelines/a.yaml:7:43]
    6 │   one: { uses: evaluate, inputs: { model: 'm[*]', judgements: judged } }
    7 │   two: { uses: evaluate, inputs: { model: 'm[sise=small]', judgements: judged } }
      ·                                           ───────────────
    8 │   three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
      ╰────
     help: did you mean `size`?

     × axis `size` has no value `smal`
      ╭─[pipelines/a.yaml:8:45]
    7 │   two: { uses: evaluate, inputs: { model: 'm[sise=small]', judgements: judged } }
    8 │   three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
      ·                                             ──────────────
    9 │   four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
      ╰────
     help: did you mean `small`?

     × input `model` takes one stage alone, and `base[*]` means several
       ╭─[pipelines/a.yaml:9:44]
     8 │   three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
     9 │   four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
       ·                                            ─────────
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
       ╰────
     help: write `base`, and there is one such stage for each combination

     × `[]` does not say which combinations are meant
       ╭─[pipelines/a.yaml:9:67]
     8 │   three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
     9 │   four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
       ·                                                                   ──────────
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
       ╰────
     help: write `[*]` for all, or `[AXIS=VALUE,AXIS=*]`

     × there is no stage `n`
       ╭─[pipelines/a.yaml:10:44]
     9 │   four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
       ·                                            ───────────────
    11 │   six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
       ╰────
     help: the stages are `base`, `judged`, `m`, `one`, `two`, `three`, `four`, `five` and `six`

     × input `baseline` takes one stage alone, and `three[*]` means several
       ╭─[pipelines/a.yaml:11:45]
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
    11 │   six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
       ·                                             ──────────
       ╰────
     help: write `three`, and there is one such stage for each combination

     × stage `one` has no matrix, so there is only one
       ╭─[pipelines/a.yaml:11:64]
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
    11 │   six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
       ·                                                                ────────
       ╰────
     help: write `one`

     × input `runs` names `one[*]` twice
       ╭─[pipelines/a.yaml:11:74]
    10 │   five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
    11 │   six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
       ·                                                                          ────────
       ╰────
     help: remove one of them
    ");
}

#[test]
fn slips_in_include_and_exclude_are_found() {
    insta::assert_snapshot!(combinations("a: [x, y], exclude: [{ d: x }]"), @"pipelines/a.yaml:2:54: `exclude` names the axis `d`, which the matrix does not have");
    insta::assert_snapshot!(combinations("a: [x, y], exclude: [{ a: z }]"), @"pipelines/a.yaml:2:57: `exclude` names the value `z`, which the axis `a` does not have");
    insta::assert_snapshot!(combinations("a: [x, y], exclude: [{ a: x }, { a: x }]"), @"pipelines/a.yaml:2:64: this entry of `exclude` matches no combination that is left");
    insta::assert_snapshot!(combinations("a: [x, y], exclude: [{ a: x }, { a: y }]"), @"pipelines/a.yaml:2:21: `exclude` leaves no combination");
    insta::assert_snapshot!(combinations("a: [x, y], b: [1], include: [{ a: x, b: 1 }]"), @"pipelines/a.yaml:2:62: this entry of `include` adds nothing: its combinations are there already");
    insta::assert_snapshot!(combinations("a: [x, y], include: [{ exclude: x }]"), @"pipelines/a.yaml:2:54: `exclude` cannot be an axis's name");
    let typo = "stages:\n  m: { uses: model, matrix: { size: [1] }, with: { source: '${matrix.size}${matrix.sise}' } }\n";
    let values = "stages: { m: { uses: load, matrix: { p: [a, [b], { c: d }] }, with: { path: '${matrix.p}' } } }";
    insta::assert_snapshot!(ids(values), @"
    pipelines/a.yaml:1:77: `path` must be a text, not a list, where `p=2`
    pipelines/a.yaml:1:77: `path` must be a text, not a mapping, where `p=3`
    ");
    insta::assert_snapshot!(drawn(parse_with(typo, &[], &[])), @"
     × the matrix has no axis `sise`
      ╭─[pipelines/a.yaml:2:75]
    1 │ stages:
    2 │   m: { uses: model, matrix: { size: [1] }, with: { source: '${matrix.size}${matrix.sise}' } }
      ·                                                                           ──────────────
      ╰────
     help: did you mean `size`?
    ");
}

#[test]
fn what_selectors_leave_is_checked() {
    let text = "
stages:
  judged: { uses: judge, with: { queries: q.jsonl } }
  m: { uses: model, matrix: { s: [a, b], t: [1, 2], exclude: [{ s: b, t: 2 }] }, with: { source: '${matrix.s}${matrix.t}' } }
  one: { uses: evaluate, inputs: { model: 'm[sise=a]', judgements: judged } }
  two: { uses: evaluate, inputs: { model: 'm[s=bb]', judgements: judged } }
  three: { uses: evaluate, inputs: { model: 'm[s=b,t=2]', judgements: judged } }
  four: { uses: evaluate, inputs: { model: m, judgements: 'judged[*]' } }
  five: { uses: evaluate, inputs: { model: m, judgements: 'judged[x=1]' } }
  six: { uses: evaluate, matrix: { s: [1] }, inputs: { model: m, judgements: judged }, with: { top_k: '${matrix.s}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × stage `m` has no axis `sise`
      ╭─[pipelines/a.yaml:5:43]
    4 │   m: { uses: model, matrix: { s: [a, b], t: [1, 2], exclude: [{ s: b, t: 2 }] }, with: { source: '${matrix.s}${matrix.t}' } }
    5 │   one: { uses: evaluate, inputs: { model: 'm[sise=a]', judgements: judged } }
      ·                                           ───────────
    6 │   two: { uses: evaluate, inputs: { model: 'm[s=bb]', judgements: judged } }
      ╰────
     help: the axes are `s` and `t`

     × axis `s` has no value `bb`
      ╭─[pipelines/a.yaml:6:43]
    5 │   one: { uses: evaluate, inputs: { model: 'm[sise=a]', judgements: judged } }
    6 │   two: { uses: evaluate, inputs: { model: 'm[s=bb]', judgements: judged } }
      ·                                           ─────────
    7 │   three: { uses: evaluate, inputs: { model: 'm[s=b,t=2]', judgements: judged } }
      ╰────
     help: did you mean `b`?

     × stage `m` has no combination `s=b,t=2`
      ╭─[pipelines/a.yaml:7:45]
    6 │   two: { uses: evaluate, inputs: { model: 'm[s=bb]', judgements: judged } }
    7 │   three: { uses: evaluate, inputs: { model: 'm[s=b,t=2]', judgements: judged } }
      ·                                             ────────────
    8 │   four: { uses: evaluate, inputs: { model: m, judgements: 'judged[*]' } }
      ╰────
     help: choose values that come together

     × input `judgements` takes one stage alone, and `judged[*]` means several
      ╭─[pipelines/a.yaml:8:59]
    7 │   three: { uses: evaluate, inputs: { model: 'm[s=b,t=2]', judgements: judged } }
    8 │   four: { uses: evaluate, inputs: { model: m, judgements: 'judged[*]' } }
      ·                                                           ───────────
    9 │   five: { uses: evaluate, inputs: { model: m, judgements: 'judged[x=1]' } }
      ╰────
     help: write `judged`, and there is one such stage for each combination

     × stage `judged` has no matrix, so there is only one
       ╭─[pipelines/a.yaml:9:59]
     8 │   four: { uses: evaluate, inputs: { model: m, judgements: 'judged[*]' } }
     9 │   five: { uses: evaluate, inputs: { model: m, judgements: 'judged[x=1]' } }
       ·                                                           ─────────────
    10 │   six: { uses: evaluate, matrix: { s: [1] }, inputs: { model: m, judgements: judged }, with: { top_k: '${matrix.s}' } }
       ╰────
     help: write `judged`

     × a stage that feeds this one has an axis `s` too
       ╭─[pipelines/a.yaml:10:36]
     9 │   five: { uses: evaluate, inputs: { model: m, judgements: 'judged[x=1]' } }
    10 │   six: { uses: evaluate, matrix: { s: [1] }, inputs: { model: m, judgements: judged }, with: { top_k: '${matrix.s}' } }
       ·                                    ─
       ╰────
     help: rename it, or leave it out: the stage has that one already
    ");
    let text = "
stages:
  judged: { uses: judge, matrix: { s: [a], t: [1] }, with: { queries: '${matrix.s}${matrix.t}' } }
  m: { uses: model, matrix: { s: [b] }, with: { source: '${matrix.s}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × stage `one` has no combination: its inputs have none in common
      ╭─[pipelines/a.yaml:5:3]
    4 │   m: { uses: model, matrix: { s: [b] }, with: { source: '${matrix.s}' } }
    5 │   one: { uses: evaluate, inputs: { model: m, judgements: judged } }
      ·   ───
      ╰────
     help: stages are joined on the axes that they share; give them values that they share
    ");
    let text = "
stages:
  judged: { uses: judge, with: { queries: q.jsonl } }
  'm[s=a]': { uses: model, with: { source: x } }
  m: { uses: model, matrix: { s: [a] }, with: { source: '${matrix.s}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"
     × two stages would be called `m[s=a]`
      ╭─[pipelines/a.yaml:4:3]
    3 │   judged: { uses: judge, with: { queries: q.jsonl } }
    4 │   'm[s=a]': { uses: model, with: { source: x } }
      ·   ────┬───
      ·       ╰── the other one
    5 │   m: { uses: model, matrix: { s: [a] }, with: { source: '${matrix.s}' } }
      ·   ─
      ╰────
     help: rename one of them
    ");
}
