//! What comes out of a pipeline that is right, and that nothing makes the reading panic.

mod declaring;
mod definitions;
mod escaping;
mod extending;
mod matrix;
mod matrix_messages;
mod messages;

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// References, overrides and awkward texts in the parameters of one kind of stage.
const VALID: &str = "\
description: two models
params:
  model: all-MiniLM-L6-v2
  rates: { low: 2e-5, all: [1e-5, \"${params.rates.low}\"] }
env:
  DATA: { default: data }
  DEPTH: { default: 100 }
  KEY: { secret: true }
stages:
  base:
    uses: model
    description: the baseline
    with: { source: \"${params.model}\" }
  # An escaped reference, and texts that look like something else.
  odd: { uses: model, with: { source: [\"$${x}\", 'no', '1e5', \"a\\x1b\\n# b: ${env.DATA}\", '${params.rates.all[1]} in a text'] } }
";

fn parse_with(text: &str, sets: &[&str], variables: &[(&str, &str)]) -> Result<Pipeline, PipelineError> {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set)).collect::<Result<_, _>>()?;
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    parse_in(text, Path::new("pipelines/a.yaml"), &overrides, &Allowed::anywhere(), &|name| variables.get(name).map(Into::into))
}

fn drawn(result: Result<Pipeline, PipelineError>) -> String {
    match result {
        Ok(pipeline) => format!("no problem:\n{}", pipeline.resolved()),
        Err(error) => error.render(false),
    }
}

fn parameters(pipeline: &Pipeline, id: &str) -> Value {
    pipeline.stages.iter().find(|stage| stage.id == id).unwrap().configured.parameters.clone()
}

#[test]
fn references_and_overrides_become_values() {
    let set = ["params.rates.low=5e-5", "stages.base.with.source=[x, '${env.DATA}']", "name=b"];
    let pipeline = parse_with(VALID, &set, &[("DATA", "elsewhere")]).unwrap();
    assert_eq!(pipeline.name, "b");
    assert_eq!(pipeline.base, Path::new("pipelines"));
    assert_eq!(parameters(&pipeline, "base"), json!({ "source": ["x", "elsewhere"] }));
    assert_eq!(
        parameters(&pipeline, "odd"),
        json!({ "source": ["${x}", "no", "1e5", "a\u{1b}\n# b: elsewhere", "0.00005 in a text"] })
    );
    assert_eq!(pipeline.parameters.get("rates"), Some(&json!({ "low": 5e-5, "all": [1e-5, 5e-5] })));
}

#[test]
fn a_resolved_pipeline_is_read_as_the_same_pipeline() {
    let first = parse_with(VALID, &[], &[("DATA", "- {odd: \"\u{2028}'\"} $${y}")]).unwrap();
    // The second time the variable is not set: nothing refers to it any more.
    let second = parse_with(&first.resolved(), &[], &[]).unwrap();
    assert_eq!(first.resolved(), second.resolved());
    assert_eq!(first.parameters, second.parameters);
    assert_eq!(first.environment, second.environment);
    assert_eq!((&first.name, &first.description), (&second.name, &second.description));
    for (a, b) in first.stages.iter().zip(&second.stages) {
        assert_eq!((&a.id, &a.description, &a.inputs), (&b.id, &b.description, &b.inputs));
        assert_eq!(a.configured.parameters, b.configured.parameters);
    }
    insta::assert_snapshot!(first.resolved(), @r#"
    name: a
    description: "two models"
    params:
      model: all-MiniLM-L6-v2
      rates: { all: [0.00001, 0.00002], low: 0.00002 }
    env:
      DATA: { default: data }
      DEPTH: { default: 100 }
      KEY: { secret: true }
    stages:
      base:
        description: "the baseline"
        uses: model
        with:
          source: all-MiniLM-L6-v2
      odd:
        uses: model
        with:
          source: ["$${x}", no, "1e5", "a\U0000001b\n# b: - {odd: \"\U00002028'\"} $$${y}", "0.00002 in a text"]
    "#);
}

/// The graph of a whole pipeline, whatever parameters its kinds have.
#[test]
fn edges_find_their_outputs_and_order_follows_them() {
    let text = "
stages:
  table: { uses: compare, inputs: { tuned: after, baseline: before.metrics } }
  after: { uses: evaluate, inputs: { judgements: judged, model: tuned } }
  before: { uses: evaluate, inputs: { model: base, judgements: judged } }
  tuned: { uses: train, inputs: { model: base, triplets: mined, eval: judged } }
  mined: { uses: mine, inputs: { judgements: judged } }
  base: { uses: model }
  judged: { uses: judge }
";
    let mut problems = Problems::new(vec![Source::new("a.yaml", text)]);
    let root = yaml::parse(text, 0, 0, &mut problems).unwrap();
    let document = document::read(&root, &mut problems).unwrap();
    let library = Library::default();
    let expanded = expand::expand(&document.stages, &library, &[], &mut problems);
    let feeds = graph::feeds(&expanded, &mut problems);
    assert!(problems.is_empty(), "{}", problems.into_error());
    let from = |feed: &graph::Feed| match feed.from {
        graph::Origin::Stage { member, output, .. } => (member, format!("{}.{output}", document.stages[member].id)),
        graph::Origin::Input { .. } => unreachable!("this is no definition"),
    };
    let needs: Vec<Vec<usize>> = feeds.iter().map(|feeds| feeds.iter().map(|feed| from(feed).0).collect()).collect();
    let order: Vec<&str> = order::order(&needs).into_iter().map(|i| document.stages[i].id.as_str()).collect();
    assert_eq!(order, ["base", "judged", "before", "mined", "tuned", "after", "table"]);
    let table: Vec<String> = feeds[0].iter().map(|feed| format!("{}: {}", feed.port, from(feed).1)).collect();
    assert_eq!(table, ["baseline: before.metrics", "tuned: after.metrics"]);
}

#[test]
fn references_cannot_blow_up() {
    let mut bomb = String::from("params:\n  a0: [x, x]\n  t0: xxxxxxxxxx\n");
    for i in 1..60 {
        bomb += &format!(
            "  a{i}: [\"${{params.a{0}}}\", \"${{params.a{0}}}\"]\n  t{i}: \"${{params.t{0}}}${{params.t{0}}}\"\n",
            i - 1
        );
    }
    let chain: String = (1..1000).map(|i| format!("  p{i}: \"${{params.p{}}}\"\n", i + 1)).collect();
    for text in [format!("{bomb}stages: {{}}\n"), format!("params:\n{chain}  p1000: 1\nstages: {{}}\n")] {
        let error = parse_with(&text, &[], &[]).err().unwrap().to_string();
        assert!(error.contains("more than"), "{error}");
    }
}

#[test]
fn a_name_comes_from_the_file_as_far_as_it_can() {
    for (file, name) in [("a.yaml", "a"), ("x/my docs.v2.yml", "my-docs.v2"), ("..yaml", "pipeline"), ("é.yaml", "pipeline")] {
        assert_eq!(name_of(Path::new(file)), name, "{file}");
    }
}

/// Any text, and a valid one with a few places changed.
fn texts(valid: &'static str) -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0..4usize, "[-a${}\\[\\]:,#&*!|>'\"%@` \n\t.0é\u{feff}\u{85}]{0,4}");
    let changed = prop::collection::vec(change, 1..6).prop_map(move |changes| {
        let mut text: Vec<char> = valid.chars().collect();
        for (at, removed, added) in changes {
            let at = at.index(text.len());
            text.splice(at..(at + removed).min(text.len()), added.chars());
        }
        text.into_iter().collect::<String>()
    });
    prop_oneof![any::<String>(), "[-a${}\\[\\]:,#&*!|>?'\"%@` \n\t.0~<é\u{feff}]{0,60}", changed]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_reading_panic(text in texts(VALID), set in "[a-z.\\[\\]0=${}'\" ]{0,20}") {
        let sets: Vec<&str> = if Override::parse(&set).is_ok() { vec![&set] } else { vec![] };
        match parse_with(&text, &sets, &[]) {
            Ok(pipeline) => prop_assert!(parse_with(&pipeline.resolved(), &[], &[]).is_ok(), "{}", pipeline.resolved()),
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                drawn(Err(error));
            }
        }
    }

    #[test]
    fn any_text_survives_being_written_and_read(text in any::<String>(), key in "[^\u{0}]{1,8}") {
        let mut pipeline = parse_with(VALID, &[], &[]).unwrap();
        let value = json!([text, { key.clone(): text }, text.len(), 0.1f32, -1.5e-7]);
        pipeline.parameters.insert("x".into(), value.clone());
        pipeline.description = Some(text.clone());
        let again = parse_with(&pipeline.resolved(), &[], &[]);
        let again = again.map_err(|e| TestCaseError::fail(format!("{e}\n{}", pipeline.resolved())))?;
        prop_assert_eq!(again.parameters.get("x"), Some(&value));
        prop_assert_eq!(again.description, Some(text));
    }
}
