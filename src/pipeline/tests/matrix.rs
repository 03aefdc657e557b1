//! What a matrix makes of a pipeline, and what users see when something is wrong with it.

use super::*;

/// A line a node: its name, one parameter that tells it apart, and what feeds it.
fn graph(result: Result<Pipeline, PipelineError>) -> String {
    let pipeline = match result {
        Ok(pipeline) => pipeline,
        Err(error) => return error.render(false),
    };
    let line = |node: &Node| {
        let parameters = &node.configured.parameters;
        let told = ["source", "chunk_size", "negatives", "lr"].iter().find_map(|name| parameters.get(*name));
        let told = told.map(|value| format!(" {value}")).unwrap_or_default();
        let inputs: Vec<String> =
            node.inputs.iter().map(|edge| format!("{}: {}", edge.port, pipeline.stages[edge.from].id)).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(", ")) };
        format!("{}{told}{inputs}", node.id)
    };
    pipeline.stages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn ids(text: &str) -> String {
    match parse_with(text, &[], &[]) {
        Ok(pipeline) => pipeline.stages.iter().map(|node| node.id.as_str()).collect::<Vec<_>>().join("\n"),
        Err(error) => error.to_string(),
    }
}

/// The names of the combinations of one stage with the matrix.
fn combinations(matrix: &str) -> String {
    let axes = ["a", "b", "c"].iter().filter(|axis| matrix.contains(&format!("{axis}:")));
    let source: Vec<String> = axes.map(|axis| format!("${{matrix.{axis}}}")).collect();
    let source = if source.len() == 1 { format!("\"{}\"", source[0]) } else { format!("{source:?}") };
    ids(&format!("stages:\n  m: {{ uses: model, matrix: {{ {matrix} }}, with: {{ source: {source} }} }}\n"))
}

/// A matrix on a stage, fanning out, joining and collecting.
const TUNED: &str = "\
params: { rates: [1e-5, 3e-5] }
stages:
  base: { uses: model, with: { source: b } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  mined:
    uses: mine
    description: '${matrix.negatives} negatives, ${params.x}'
    matrix: { negatives: [1, 2] }
    inputs: { judgements: judged }
    with: { negatives: '${matrix.negatives}' }
  tuned:
    uses: train
    matrix: { lr: '${params.rates}' }
    inputs: { model: base, triplets: mined }
    with: { lr: '${matrix.lr}' }
  before: { uses: evaluate, inputs: { model: base, judgements: judged } }
  after: { uses: evaluate, inputs: { model: tuned, judgements: judged } }
  all: { uses: compare, inputs: { baseline: before, runs: 'after[*]' } }
  each: { uses: compare, inputs: { baseline: before, runs: 'after[negatives=2,lr=*].metrics' } }
  by_rate: { uses: compare, inputs: { baseline: 'after[negatives=1]', runs: { one: before, some: 'after[negatives=*]' } } }
";

#[test]
fn stages_fan_out_join_and_collect() {
    insta::assert_snapshot!(graph(parse_with(TUNED, &[], &[])), @"");
    let pipeline = parse_with(TUNED, &["stages.mined.matrix.negatives=[4]"], &[]).unwrap();
    let mined: Vec<&Node> = pipeline.stages.iter().filter(|node| node.kind.name == "mine").collect();
    assert_eq!((mined.len(), mined[0].id.as_str()), (1, "mined[negatives=4]"));
    assert_eq!(mined[0].description.as_deref(), Some("4 negatives, ${params.x}"));
}

#[test]
fn a_written_out_pipeline_has_the_same_nodes() {
    let first = parse_with(TUNED, &[], &[]).unwrap();
    let written = first.resolved();
    assert!(!written.contains("matrix") && written.contains("  \"tuned[negatives=1,lr=0.00001]\":"), "{written}");
    let second = parse_with(&written, &[], &[]).unwrap();
    assert_eq!(second.resolved(), written);
    assert_eq!(first.stages.len(), second.stages.len());
    for (a, b) in first.stages.iter().zip(&second.stages) {
        assert_eq!((&a.id, &a.description, a.kind.name, &a.inputs), (&b.id, &b.description, b.kind.name, &b.inputs));
        assert_eq!(a.configured.parameters, b.configured.parameters);
    }
}

#[test]
fn the_axes_of_the_pipeline_are_for_the_stages_that_refer_to_them() {
    let text = "
matrix:
  model: [{ name: small, path: s }, { name: large, path: l }]
  size: [128, 256]
  exclude: [{ model: large, size: 256 }]
stages:
  docs: { uses: load, with: { path: d } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: '${matrix.size}' } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: q.jsonl } }
  base: { uses: model, with: { source: '${matrix.model.path}' } }
  scores: { uses: evaluate, inputs: { model: base, judgements: judged } }
  one: { uses: compare, inputs: { baseline: 'scores[model=small,size=128]', runs: 'scores[size=128,*]' } }
";
    insta::assert_snapshot!(graph(parse_with(text, &[], &[])), @"");
}

#[test]
fn include_and_exclude_are_those_of_github_actions() {
    // The example of GitHub's documentation on `include`, with other words.
    insta::assert_snapshot!(combinations("a: [x, y], b: [1, 2], include: [{ c: 7 }, { a: x, c: 8 }, { b: 2, c: 9 }]"), @"");
    insta::assert_snapshot!(combinations("a: [x, y], b: [1, 2], exclude: [{ a: x, b: 1 }, { a: y, b: 2 }]"), @"");
    insta::assert_snapshot!(combinations("a: [x, y], include: [{ a: z }]"), @"");
    insta::assert_snapshot!(combinations("include: [{ a: x, b: 1 }, { a: y, b: 2 }]"), @"");
}

#[test]
fn a_combination_without_an_axis_that_is_needed_is_an_error() {
    insta::assert_snapshot!(combinations("a: [x, y], b: [1], include: [{ a: z }]"), @"");
}

#[test]
fn names_are_short_readable_and_different() {
    let long = "x".repeat(60);
    insta::assert_snapshot!(combinations(&format!("a: [3e-5, 0.00010, true, ~, org/name, '..', '', {long}, é, 'a b', a-b]")), @"");
    insta::assert_snapshot!(combinations("a: [{ name: x, v: 1 }, { name: x, v: 2 }, { v: 3 }, [1], 3]"), @"");
    insta::assert_snapshot!(combinations("a: { low: 1, 'hi/gh': 2 }"), @"");
    let many: Vec<String> = (0..9).map(|i| format!("x{i}: [{i}{}]", "0".repeat(20))).collect();
    let refers: Vec<String> = (0..9).map(|i| format!("${{matrix.x{i}}}")).collect();
    let text = format!("stages:\n  m: {{ uses: model, matrix: {{ {} }}, with: {{ source: {refers:?} }} }}\n", many.join(", "));
    insta::assert_snapshot!(ids(&text), @"");
}

#[test]
fn a_definition_fans_out_with_the_stage_that_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("d.yaml"),
        "inputs: { model: model, runs: { kind: metrics, many: true } }
params: { sizes: {}, seed: {} }
outputs: { metrics: scores.metrics, mined: mined }
stages:
  judged: { uses: judge, with: { queries: q.jsonl } }
  mined: { uses: mine, matrix: { k: '${params.sizes}' }, inputs: { judgements: judged }, with: { negatives: '${matrix.k}', seed: '${params.seed}' } }
  scores: { uses: evaluate, inputs: { model: inputs.model, judgements: judged } }
  table: { uses: compare, inputs: { baseline: scores, runs: inputs.runs } }
",
    )
    .unwrap();
    let text = "
stages:
  base: { uses: model, matrix: { m: [a, b] }, with: { source: '${matrix.m}' } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  first: { uses: evaluate, inputs: { model: base, judgements: judged } }
  used:
    uses: ./d.yaml
    matrix: { seed: [7, 8] }
    inputs: { model: base, runs: 'first[*]' }
    with: { sizes: [1, 2], seed: '${matrix.seed}' }
  tuned: { uses: train, inputs: { model: 'base[m=a]', triplets: 'used[m=b,seed=8].mined' } }
  end: { uses: compare, inputs: { baseline: 'first[m=a]', runs: 'used[*].metrics' } }
";
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    let pipeline = load(&folder.path().join("a.yaml"), &[]).unwrap();
    let written = pipeline.resolved();
    insta::assert_snapshot!(graph(Ok(pipeline)), @"");
    assert_eq!(parse_with(&written, &[], &[]).map(|p| p.resolved()).unwrap(), written);
}

#[test]
fn what_is_wrong_with_a_matrix_is_shown() {
    let text = "
matrix: { unused: [1] }
stages:
  a: { uses: model, matrix: { x: [1, 2], y.z: [1], w: [], v: 3 }, with: { source: '${matrix.x}' } }
  b: { uses: model, matrix: { x: [1, 2], y: [1, 2] }, with: { source: '${matrix.x}' } }
  c: { uses: model, matrix: { x: [1, 1, 2] }, with: { source: '${matrix.xs}' } }
  d: { uses: model, matrix: { size: [128, 256], exclude: [{ sise: 1 }, { size: 12 }], include: { a: 1 } }, with: { source: '${matrix.size}' } }
  e: { uses: model, with: { source: '${matrix.x}' } }
  f: { uses: model, matrix: {}, with: { source: x } }
  g: { uses: model, matrix: { x: [1], include: [{ x: 1 }, 5] }, with: { source: '${matrix.x}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"");
    let text = "
stages:
  base: { uses: model, with: { source: x } }
  judged: { uses: judge, with: { queries: q.jsonl } }
  m: { uses: model, matrix: { size: [{ name: small, n: 1 }, { name: large }] }, with: { source: '${matrix.size.n}' } }
  one: { uses: evaluate, inputs: { model: 'm[*]', judgements: judged } }
  two: { uses: evaluate, inputs: { model: 'm[sise=small]', judgements: judged } }
  three: { uses: evaluate, inputs: { model: 'm[size=smal]', judgements: judged } }
  four: { uses: evaluate, inputs: { model: 'base[*]', judgements: 'judged[]' } }
  five: { uses: evaluate, inputs: { model: 'n[size=small]', judgements: judged } }
  six: { uses: compare, inputs: { baseline: 'three[*]', runs: ['one[*]', 'one[*]'] } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"");
}

#[test]
fn what_selectors_leave_is_checked() {
    let text = "
stages:
  judged: { uses: judge, with: { queries: q.jsonl } }
  m: { uses: model, matrix: { s: [a, b], t: [1, 2], exclude: [{ s: b, t: 2 }] }, with: { source: ['${matrix.s}', '${matrix.t}'] } }
  one: { uses: evaluate, inputs: { model: 'm[sise=a]', judgements: judged } }
  two: { uses: evaluate, inputs: { model: 'm[s=bb]', judgements: judged } }
  three: { uses: evaluate, inputs: { model: 'm[s=b,t=2]', judgements: judged } }
  four: { uses: evaluate, inputs: { model: m, judgements: 'judged[*]' } }
  five: { uses: evaluate, inputs: { model: m, judgements: 'judged[x=1]' } }
  six: { uses: evaluate, matrix: { s: [1] }, inputs: { model: m, judgements: judged }, with: { top_k: '${matrix.s}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"");
    let text = "
stages:
  judged: { uses: judge, matrix: { s: [a], t: [1] }, with: { queries: '${matrix.s}${matrix.t}' } }
  m: { uses: model, matrix: { s: [b] }, with: { source: '${matrix.s}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"");
    let text = "
stages:
  judged: { uses: judge, with: { queries: q.jsonl } }
  'm[s=a]': { uses: model, with: { source: x } }
  m: { uses: model, matrix: { s: [a] }, with: { source: '${matrix.s}' } }
";
    insta::assert_snapshot!(drawn(parse_with(text, &[], &[])), @"");
}

#[test]
fn absurd_matrices_are_refused_before_they_are_made() {
    let axes = |count: usize, values: usize| {
        let values: Vec<String> = (0..values).map(|i| i.to_string()).collect();
        let axes: Vec<String> = (0..count).map(|i| format!("x{i}: [{}]", values.join(","))).collect();
        let refers: Vec<String> = (0..count).map(|i| format!("${{matrix.x{i}}}")).collect();
        format!("matrix: {{ {} }}, with: {{ source: {refers:?} }}", axes.join(", "))
    };
    for (count, values, message) in
        [(2, 101, "the matrix has 10201 combinations"), (30, 1000, "the matrix has more than can be counted combinations")]
    {
        let text = format!("stages:\n  m: {{ uses: model, {} }}\n", axes(count, values));
        assert!(ids(&text).contains(message), "{}", ids(&text));
    }
    // Three times 99 × 99 is too much for all stages together, and so is the product of two.
    let three: String = (0..3).map(|i| format!("  m{i}: {{ uses: model, {} }}\n", axes(2, 99))).collect();
    insta::assert_snapshot!(ids(&format!("stages:\n{three}")), @"");
    let product = "stages:
  judged: { uses: judge, matrix: { s: AXIS }, with: { queries: 'q${matrix.s}' } }
  m: { uses: model, matrix: { t: AXIS }, with: { source: 'm${matrix.t}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
";
    let axis = format!("{:?}", (0..200).collect::<Vec<_>>());
    insta::assert_snapshot!(ids(&product.replace("AXIS", &axis)), @"");
    let collected = "stages:
  judged: { uses: judge, with: { queries: q } }
  m: { uses: model, matrix: { t: AXIS }, with: { source: 'm${matrix.t}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
  all: { uses: compare, matrix: { u: AXIS }, inputs: { baseline: 'one[t=1]', runs: 'one[*]' }, with: { baseline_name: 'b${matrix.u}' } }
";
    let axis = format!("{:?}", (0..600).collect::<Vec<_>>());
    insta::assert_snapshot!(ids(&collected.replace("AXIS", &axis)), @"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever a pipeline with a matrix becomes by a few changes, it is refused, or written out and read again.
    #[test]
    fn no_matrix_makes_reading_panic(text in texts(TUNED)) {
        match parse_with(&text, &[], &[]) {
            Ok(pipeline) => prop_assert!(parse_with(&pipeline.resolved(), &[], &[]).is_ok(), "{}", pipeline.resolved()),
            Err(error) => prop_assert!(!error.problems().is_empty()),
        }
    }
}
