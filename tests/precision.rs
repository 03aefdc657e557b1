//! `precision` of stages that encode: what it changes, and what it does not.

mod common;

use common::Project;

const PIPELINE: &str = r#"name: precision
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  base: { uses: model, with: { source: all-MiniLM-L6-v2 } }
  mined: { uses: mine, inputs: { judgements: judged, model: base }, with: { scores: true, precision: PRECISION, device: cpu } }
  before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { precision: PRECISION, device: cpu } }
"#;

#[test]
fn each_precision_has_results_of_its_own() {
    let project = Project::new(PIPELINE);
    let run = |precision: &str| {
        project.write("pipelines/p.yaml", PIPELINE.replace("PRECISION", precision));
        let ended = project.retune(&["run", "pipelines/p.yaml", "--json"]);
        assert_eq!(ended.status(), 0, "{}", ended.stderr());
        ended.json()["stages"].clone()
    };
    let (exact, rounded, again) = (run("fp32"), run("bf16"), run("fp32"));
    for stage in ["mined", "before"] {
        assert_eq!(
            (&exact[stage]["status"], &rounded[stage]["status"], &again[stage]["status"]),
            (&"done".into(), &"done".into(), &"cached".into())
        );
        assert_ne!(exact[stage]["key"], rounded[stage]["key"]);
    }
    let ndcg = |stages: &serde_json::Value| stages["before"]["outcome"]["metrics"]["ndcg@10"].as_f64().unwrap();
    assert!((ndcg(&exact) - ndcg(&rounded)).abs() < 0.05, "{} and {}", ndcg(&exact), ndcg(&rounded));
    project.write("pipelines/p.yaml", PIPELINE.replace("PRECISION", "fp16"));
    let ended = project.retune(&["run", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 1, "{}", ended.stderr());
    let expected = "`precision: fp16` is for GPUs; take `bf16`, `fp32` or `auto` on the processor";
    assert!(ended.stderr().contains(expected), "{}", ended.stderr());
}
