//! What a definition declares of its parameters, and what users see when a value does not fit.

use super::definitions::Folder;
use super::*;

/// A definition with parameters of every type.
const TYPED: &str = "\
inputs: { model: model, triplets: triplets }
params:
  lr: { type: number, default: 2e-5, minimum: 0, maximum: 0.1, description: peak learning rate }
  epochs: { type: integer, minimum: 1 }
  distance: { type: string, default: cosine, choices: [euclidean, cosine, manhattan] }
  loss: { type: mapping, default: { name: triplet, distance: \"${params.distance}\" } }
  cuts: { type: list, default: [10] }
  strict: { type: boolean, default: true }
  base_model: { type: string, default: ~ }
  anything: { default: \"${params.epochs}\" }
  doubled: { type: string, default: \"${params.epochs}\" }
outputs: { model: tuned }
stages:
  tuned:
    uses: train
    inputs: { model: inputs.model, triplets: inputs.triplets }
    with: { lr: \"${params.lr}\", epochs: \"${params.epochs}\", loss: \"${params.loss}\", base_model: \"${params.base_model}\" }
";

/// A pipeline that gives these values to the definition.
fn given(definition: &str, with: &str) -> Folder {
    let pipeline = format!(
        "params: {{ many: [1, 2], name: x }}
stages:
  base: {{ uses: model, with: {{ source: a }} }}
  judged: {{ uses: judge, with: {{ queries: q.jsonl }} }}
  mined: {{ uses: mine, inputs: {{ judgements: judged }} }}
  tuning:
    uses: ../stages/typed.yaml
    inputs: {{ model: base, triplets: mined }}
    with:
{with}"
    );
    Folder::new(&[("pipelines/a.yaml", &pipeline), ("stages/typed.yaml", definition)])
}

/// Without the default that does not fit when it is taken.
fn sound() -> String {
    TYPED.replace("  doubled: { type: string, default: \"${params.epochs}\" }\n", "")
}

#[test]
fn values_that_fit_are_taken() {
    let with = "      epochs: 2\n      lr: 0\n      distance: euclidean\n      base_model: \"${params.name}\"\n      strict: ~\n";
    let refused = given(&sound(), with).lines();
    insta::assert_snapshot!(refused, @"pipelines/a.yaml:14:15: `strict` must be `true` or `false`, not nothing, in stage `tuning`, declared at stages/typed.yaml:8:3");
    let pipeline = given(&sound(), &with.replace("lr: 0", "lr: 0.05").replace("      strict: ~\n", "")).load(&[]).unwrap();
    let tuned = parameters(&pipeline, "tuning/tuned");
    assert_eq!((&tuned["epochs"], &tuned["lr"], &tuned["base_model"]), (&json!(2), &json!(0.05), &json!("x")));
    assert_eq!(tuned["loss"]["distance"], json!("euclidean"));
    let pipeline = given(&sound(), "      epochs: 2\n      base_model: ~\n").load(&[]).unwrap();
    assert_eq!(parameters(&pipeline, "tuning/tuned").get("base_model"), None);
}

#[test]
fn values_that_do_not_fit_are_shown_with_their_declaration() {
    let with = "      epochs: 0
      lr: fast
      distance: cosin
      loss: [1]
      cuts: \"${params.many[0]}\"
      strict: no
      base_model: 3
      anything: ~
";
    insta::assert_snapshot!(given(&sound(), with).drawn(), @r#"
     × `epochs` must be at least 1, not 0, in stage `tuning`
       ╭─[pipelines/a.yaml:10:15]
     9 │     with:
    10 │       epochs: 0
       ·               ─
    11 │       lr: fast
       ╰────
     declared at stages/typed.yaml:4:3

     × `lr` must be a number, not the text `fast`, in stage `tuning`
       ╭─[pipelines/a.yaml:11:11]
    10 │       epochs: 0
    11 │       lr: fast
       ·           ────
    12 │       distance: cosin
       ╰────
     declared at stages/typed.yaml:3:3

     × the text `cosin` is no value of `distance`, in stage `tuning`
       ╭─[pipelines/a.yaml:12:17]
    11 │       lr: fast
    12 │       distance: cosin
       ·                 ─────
    13 │       loss: [1]
       ╰────
     help: did you mean `cosine`?
     declared at stages/typed.yaml:5:3

     × `loss` must be a mapping, not a list, in stage `tuning`
       ╭─[pipelines/a.yaml:13:7]
    12 │       distance: cosin
    13 │       loss: [1]
       ·       ────
    14 │       cuts: "${params.many[0]}"
       ╰────
     declared at stages/typed.yaml:6:3

     × `cuts` must be a list, not `1`, in stage `tuning`
       ╭─[pipelines/a.yaml:14:13]
    13 │       loss: [1]
    14 │       cuts: "${params.many[0]}"
       ·             ───────────────────
    15 │       strict: no
       ╰────
     declared at stages/typed.yaml:7:3

     × `strict` must be `true` or `false`, not the text `no`, in stage `tuning`
       ╭─[pipelines/a.yaml:15:15]
    14 │       cuts: "${params.many[0]}"
    15 │       strict: no
       ·               ──
    16 │       base_model: 3
       ╰────
     declared at stages/typed.yaml:8:3

     × `base_model` must be a text, not `3`, in stage `tuning`
       ╭─[pipelines/a.yaml:16:19]
    15 │       strict: no
    16 │       base_model: 3
       ·                   ─
    17 │       anything: ~
       ╰────
     declared at stages/typed.yaml:9:3
    "#);
    insta::assert_snapshot!(given(TYPED, "      epochs: 1.5\n").lines(), @"pipelines/a.yaml:10:15: `epochs` must be a whole number, not `1.5`, in stage `tuning`, declared at stages/typed.yaml:4:3");
    insta::assert_snapshot!(given(TYPED, "      epochs: 2\n").lines(), @"stages/typed.yaml:11:37: `doubled` must be a text, not `2`, used at pipelines/a.yaml:7:11");
}

#[test]
fn declarations_that_make_no_sense_are_shown() {
    let definition = "
params:
  a: { type: strnig }
  b: { type: integer, default: 2.5 }
  c: { type: string, choices: [x, 3, [y]], default: z }
  d: { type: string, minimum: 3 }
  e: { type: number, minimum: 3, maximum: 1, default: ~ }
  f: { type: number, minimum: low }
  g: { choices: [], maximum: 1 }
  h: { type: list, default: { x: 1 }, choises: [1] }
  i: { choices: red }
  j: { type: [string] }
stages:
  base: { uses: model, with: { source: x } }
";
    insta::assert_snapshot!(given(definition, "      a: x\n").lines(), @"
    stages/typed.yaml:3:14: there is no type `strnig`, used at pipelines/a.yaml:7:11
    stages/typed.yaml:4:32: the default does not fit: `b` must be a whole number, not `2.5`, used at pipelines/a.yaml:7:11
    stages/typed.yaml:5:35: a choice must be a text, not `3`, used at pipelines/a.yaml:7:11
    stages/typed.yaml:5:38: a choice must be a text, not a list, used at pipelines/a.yaml:7:11
    stages/typed.yaml:5:53: the default does not fit: the text `z` is no value of `c`, used at pipelines/a.yaml:7:11
    stages/typed.yaml:6:22: `minimum` is for numbers, used at pipelines/a.yaml:7:11
    stages/typed.yaml:7:31: no value of `e` is at least 3 and at most 1, used at pipelines/a.yaml:7:11
    stages/typed.yaml:8:31: `minimum` must be a number, not a text, used at pipelines/a.yaml:7:11
    stages/typed.yaml:9:8: there are no choices, used at pipelines/a.yaml:7:11
    stages/typed.yaml:9:21: `maximum` is for numbers, used at pipelines/a.yaml:7:11
    stages/typed.yaml:10:3: the default does not fit: `h` must be a list, not a mapping, used at pipelines/a.yaml:7:11
    stages/typed.yaml:10:39: unknown key `choises`, used at pipelines/a.yaml:7:11
    stages/typed.yaml:11:8: `choices` must be a list, not a text, used at pipelines/a.yaml:7:11
    stages/typed.yaml:12:14: `type` must be a word, not a list, used at pipelines/a.yaml:7:11
    ");
}
