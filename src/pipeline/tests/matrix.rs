//! What a matrix makes of a pipeline.

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

pub(super) fn ids(text: &str) -> String {
    match parse_with(text, &[], &[]) {
        Ok(pipeline) => pipeline.stages.iter().map(|node| node.id.as_str()).collect::<Vec<_>>().join("\n"),
        Err(error) => error.to_string(),
    }
}

/// The names of the combinations of one stage with the matrix.
pub(super) fn combinations(matrix: &str) -> String {
    let axes = ["a", "b", "c"].iter().filter(|axis| matrix.contains(&format!("{axis}:")));
    let source: String = axes.map(|axis| format!("-${{matrix.{axis}}}")).collect();
    ids(&format!("stages:\n  m: {{ uses: model, matrix: {{ {matrix} }}, with: {{ source: \"{source}\" }} }}\n"))
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
    insta::assert_snapshot!(graph(parse_with(TUNED, &[], &[])), @r#"
    base "b"
    judged
    mined[negatives=1] 1 <- judgements: judged
    mined[negatives=2] 2 <- judgements: judged
    tuned[negatives=1,lr=0.00001] 0.00001 <- model: base, triplets[mined]: mined[negatives=1]
    tuned[negatives=1,lr=0.00003] 0.00003 <- model: base, triplets[mined]: mined[negatives=1]
    tuned[negatives=2,lr=0.00001] 0.00001 <- model: base, triplets[mined]: mined[negatives=2]
    tuned[negatives=2,lr=0.00003] 0.00003 <- model: base, triplets[mined]: mined[negatives=2]
    before <- model: base, judgements: judged
    after[negatives=1,lr=0.00001] <- model: tuned[negatives=1,lr=0.00001], judgements: judged
    after[negatives=1,lr=0.00003] <- model: tuned[negatives=1,lr=0.00003], judgements: judged
    after[negatives=2,lr=0.00001] <- model: tuned[negatives=2,lr=0.00001], judgements: judged
    after[negatives=2,lr=0.00003] <- model: tuned[negatives=2,lr=0.00003], judgements: judged
    all <- baseline: before, runs[negatives=1,lr=0.00001]: after[negatives=1,lr=0.00001], runs[negatives=1,lr=0.00003]: after[negatives=1,lr=0.00003], runs[negatives=2,lr=0.00001]: after[negatives=2,lr=0.00001], runs[negatives=2,lr=0.00003]: after[negatives=2,lr=0.00003]
    each <- baseline: before, runs[lr=0.00001]: after[negatives=2,lr=0.00001], runs[lr=0.00003]: after[negatives=2,lr=0.00003]
    by_rate[lr=0.00001] <- baseline: after[negatives=1,lr=0.00001], runs[one]: before, runs[some[negatives=1]]: after[negatives=1,lr=0.00001], runs[some[negatives=2]]: after[negatives=2,lr=0.00001]
    by_rate[lr=0.00003] <- baseline: after[negatives=1,lr=0.00003], runs[one]: before, runs[some[negatives=1]]: after[negatives=1,lr=0.00003], runs[some[negatives=2]]: after[negatives=2,lr=0.00003]
    "#);
    let pipeline = parse_with(TUNED, &["stages.mined.matrix.negatives=[4, 2, 1]"], &[]).unwrap();
    let mined: Vec<&Node> = pipeline.stages.iter().filter(|node| node.kind.name == "mine").collect();
    assert_eq!((mined.len(), mined[0].id.as_str()), (3, "mined[negatives=4]"));
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
    insta::assert_snapshot!(graph(parse_with(text, &[], &[])), @r#"
    docs
    chunks[size=128] 128 <- documents: docs
    chunks[size=256] 256 <- documents: docs
    judged[size=128] <- chunks: chunks[size=128]
    judged[size=256] <- chunks: chunks[size=256]
    base[model=small] "s"
    base[model=large] "l"
    scores[model=small,size=128] <- model: base[model=small], judgements: judged[size=128]
    scores[model=small,size=256] <- model: base[model=small], judgements: judged[size=256]
    scores[model=large,size=128] <- model: base[model=large], judgements: judged[size=128]
    one <- baseline: scores[model=small,size=128], runs[model=small]: scores[model=small,size=128], runs[model=large]: scores[model=large,size=128]
    "#);
}

#[test]
fn include_and_exclude_are_those_of_github_actions() {
    // The example of GitHub's documentation on `include`, with other words.
    insta::assert_snapshot!(combinations("a: [x, y], b: [1, 2], include: [{ c: 7 }, { a: x, c: 8 }, { b: 2, c: 9 }]"), @"
    m[a=x,b=1,c=8]
    m[a=x,b=2,c=9]
    m[a=y,b=1,c=7]
    m[a=y,b=2,c=9]
    ");
    insta::assert_snapshot!(combinations("a: [x, y], b: [1, 2], exclude: [{ a: x, b: 1 }, { a: y, b: 2 }]"), @"
    m[a=x,b=2]
    m[a=y,b=1]
    ");
    insta::assert_snapshot!(combinations("a: [x, y], include: [{ a: z }]"), @"
    m[a=x]
    m[a=y]
    m[a=z]
    ");
    insta::assert_snapshot!(combinations("include: [{ a: x, b: 1 }, { a: y, b: 2 }]"), @"
    m[a=x,b=1]
    m[a=y,b=2]
    ");
}

#[test]
fn a_combination_without_an_axis_that_is_needed_is_an_error() {
    insta::assert_snapshot!(combinations("a: [x, y], b: [1], include: [{ a: z }]"), @"pipelines/a.yaml:2:103: the combination `a=z` has no `b`");
}

#[test]
fn names_are_short_readable_and_different() {
    let long = "x".repeat(60);
    insta::assert_snapshot!(combinations(&format!("a: [3e-5, 0.00010, true, org/name, '..', '', {long}, é, 'a b', a-b]")), @"
    m[a=3e-5]
    m[a=0.00010]
    m[a=true]
    m[a=org-name-0198bcd4]
    m[a=..]
    m[a=02aabfc9]
    m[a=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-77619a1d]
    m[a=é]
    m[a=a-b-42378e7c]
    m[a=a-b]
    ");
    let named = "stages:\n  m: { uses: model, matrix: { a: [{ name: x, v: 1 }, { name: x, v: 2 }, { v: 3 }, { name: 3, v: 4 }] }, with: { source: 'v${matrix.a.v}' } }\n";
    insta::assert_snapshot!(ids(named), @"
    m[a=x]
    m[a=x-6a026a90]
    m[a=3]
    m[a=3-a23c4eac]
    ");
    insta::assert_snapshot!(combinations("a: { low: 1, 'hi/gh': 2 }"), @"
    m[a=low]
    m[a=hi-gh-5733bf20]
    ");
    let many: Vec<String> = (0..9).map(|i| format!("x{i}: [v{i}{}]", "0".repeat(20))).collect();
    let refers: Vec<String> = (0..9).map(|i| format!("${{matrix.x{i}}}")).collect();
    let text = format!("stages:\n  m: {{ uses: model, matrix: {{ {} }}, with: {{ source: {refers:?} }} }}\n", many.join(", "));
    insta::assert_snapshot!(ids(&text), @"m[x0=v000000000000000000000,x1=v100000000000000000000,x2=v200000000000000000000,x3=v300000000000000000000-7e697f82bf73e6e3]");
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
    let pipeline = load(&folder.path().join("a.yaml"), &[], &crate::stage::Allowed::anywhere()).unwrap();
    let written = pipeline.resolved();
    insta::assert_snapshot!(graph(Ok(pipeline)), @r#"
    base[m=a] "a"
    base[m=b] "b"
    judged
    first[m=a] <- model: base[m=a], judgements: judged
    first[m=b] <- model: base[m=b], judgements: judged
    used[m=a,seed=7]/judged
    used[m=a,seed=8]/judged
    used[m=b,seed=7]/judged
    used[m=b,seed=8]/judged
    used[m=a,seed=7]/mined[k=1] 1 <- judgements: used[m=a,seed=7]/judged
    used[m=a,seed=7]/mined[k=2] 2 <- judgements: used[m=a,seed=7]/judged
    used[m=a,seed=8]/mined[k=1] 1 <- judgements: used[m=a,seed=8]/judged
    used[m=a,seed=8]/mined[k=2] 2 <- judgements: used[m=a,seed=8]/judged
    used[m=b,seed=7]/mined[k=1] 1 <- judgements: used[m=b,seed=7]/judged
    used[m=b,seed=7]/mined[k=2] 2 <- judgements: used[m=b,seed=7]/judged
    used[m=b,seed=8]/mined[k=1] 1 <- judgements: used[m=b,seed=8]/judged
    used[m=b,seed=8]/mined[k=2] 2 <- judgements: used[m=b,seed=8]/judged
    used[m=a,seed=7]/scores <- model: base[m=a], judgements: used[m=a,seed=7]/judged
    used[m=a,seed=8]/scores <- model: base[m=a], judgements: used[m=a,seed=8]/judged
    used[m=b,seed=7]/scores <- model: base[m=b], judgements: used[m=b,seed=7]/judged
    used[m=b,seed=8]/scores <- model: base[m=b], judgements: used[m=b,seed=8]/judged
    used[m=a,seed=7]/table <- baseline: used[m=a,seed=7]/scores, runs[m=a]: first[m=a], runs[m=b]: first[m=b]
    used[m=a,seed=8]/table <- baseline: used[m=a,seed=8]/scores, runs[m=a]: first[m=a], runs[m=b]: first[m=b]
    used[m=b,seed=7]/table <- baseline: used[m=b,seed=7]/scores, runs[m=a]: first[m=a], runs[m=b]: first[m=b]
    used[m=b,seed=8]/table <- baseline: used[m=b,seed=8]/scores, runs[m=a]: first[m=a], runs[m=b]: first[m=b]
    tuned[k=1] 0.00002 <- model: base[m=a], triplets[used[m=b,seed=8].mined]: used[m=b,seed=8]/mined[k=1]
    tuned[k=2] 0.00002 <- model: base[m=a], triplets[used[m=b,seed=8].mined]: used[m=b,seed=8]/mined[k=2]
    end <- baseline: first[m=a], runs[m=a,seed=7]: used[m=a,seed=7]/scores, runs[m=a,seed=8]: used[m=a,seed=8]/scores, runs[m=b,seed=7]: used[m=b,seed=7]/scores, runs[m=b,seed=8]: used[m=b,seed=8]/scores
    "#);
    assert_eq!(parse_with(&written, &[], &[]).map(|p| p.resolved()).unwrap(), written);
}

#[test]
fn thousands_of_stages_are_written_out_and_read_again() {
    let text = format!(
        "stages:
  docs: {{ uses: load, with: {{ path: docs }} }}
  chunks:
    uses: chunk
    matrix: {{ size: {:?}, overlap: {:?} }}
    inputs: {{ documents: docs }}
    with: {{ chunk_size: '${{matrix.size}}', chunk_overlap: '${{matrix.overlap}}' }}
  judged: {{ uses: judge, inputs: {{ chunks: chunks }}, with: {{ queries: q.jsonl }} }}
  triplets: {{ uses: mine, inputs: {{ judgements: judged }}, with: {{ negatives: 2 }} }}
  end: {{ uses: command, inputs: {{ all: 'triplets[*]' }}, with: {{ run: 'true', outputs: {{ x: {{ file: x }} }} }} }}
",
        (100..200).collect::<Vec<_>>(),
        (0..33).collect::<Vec<_>>()
    );
    let first = parse_with(&text, &[], &[]).unwrap();
    assert_eq!(first.stages.len(), 1 + 3 * 3300 + 1);
    let written = first.resolved();
    let second = parse_with(&written, &[], &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(second.resolved(), written);
}

#[test]
fn absurd_matrices_are_refused_before_they_are_made() {
    let axes = |count: usize, values: usize| {
        let values: Vec<String> = (0..values).map(|i| i.to_string()).collect();
        let axes: Vec<String> = (0..count).map(|i| format!("x{i}: [{}]", values.join(","))).collect();
        let refers: Vec<String> = (0..count).map(|i| format!("x${{matrix.x{i}}}")).collect();
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
    insta::assert_snapshot!(ids(&format!("stages:\n{three}")), @"
    pipelines/a.yaml:3:3: with the 9801 of stage `m1` there are more than 10000 stages
    pipelines/a.yaml:4:3: with the 9801 of stage `m2` there are more than 10000 stages
    ");
    let product = "stages:
  judged: { uses: judge, matrix: { s: AXIS }, with: { queries: 'q${matrix.s}' } }
  m: { uses: model, matrix: { t: AXIS }, with: { source: 'm${matrix.t}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
";
    let axis = format!("{:?}", (0..200).collect::<Vec<_>>());
    insta::assert_snapshot!(ids(&product.replace("AXIS", &axis)), @"pipelines/a.yaml:4:3: stage `one` would have 40000 combinations; a pipeline may have at most 10000 stages");
    let collected = "stages:
  judged: { uses: judge, with: { queries: q } }
  m: { uses: model, matrix: { t: AXIS }, with: { source: 'm${matrix.t}' } }
  one: { uses: evaluate, inputs: { model: m, judgements: judged } }
  all: { uses: compare, matrix: { u: AXIS }, inputs: { baseline: 'one[t=1]', runs: 'one[*]' }, with: { baseline_name: 'b${matrix.u}' } }
";
    let axis = format!("{:?}", (0..600).collect::<Vec<_>>());
    insta::assert_snapshot!(ids(&collected.replace("AXIS", &axis)), @"pipelines/a.yaml:5:2970: the stages have more than 200000 inputs in all");
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
