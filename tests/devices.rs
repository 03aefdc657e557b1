//! Where models run: what is said of devices, and that CUDA which is not there is an error.

mod common;

use common::Project;

const WITH_A_MODEL: &str = r#"name: device
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  base: { uses: model, with: { source: all-MiniLM-L6-v2 } }
  before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { device: cuda } }
"#;

#[test]
fn cuda_that_is_not_there_ends_a_run_before_it_begins() {
    let project = Project::new(WITH_A_MODEL);
    let devices = project.retune(&["devices", "--json"]).json();
    let Some(why) = devices["no_cuda"].as_str() else {
        eprintln!("skipped: this machine has CUDA");
        return;
    };
    assert_eq!(devices["auto"], "cpu");
    assert_eq!(devices["devices"][0]["device"], "cpu");
    assert!(why.starts_with("`device: cuda` cannot be had: "), "{why}");
    for command in ["plan", "run"] {
        let ended = project.retune(&[command, "pipelines/p.yaml"]);
        assert_eq!(ended.status(), 2, "{}\n{}", ended.stdout(), ended.stderr());
        assert!(ended.stderr().contains("stage `before`: `device: cuda` cannot be had: "), "{}", ended.stderr());
        assert!(project.runs().is_empty(), "a run was made");
    }
    let ended = project.retune(&["devices", "--check", "cuda"]);
    assert_eq!(ended.status(), 1, "{}", ended.stdout());
}

#[test]
fn a_device_that_there_is_none_of_is_refused_where_it_is_written() {
    let project = Project::new(&WITH_A_MODEL.replace("device: cuda", "device: gpu"));
    let ended = project.retune(&["plan", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(project.anonymous(&ended.stderr()), @"
     × `gpu` is no device; there are `auto`, `cpu`, `cuda` and `cuda:1`
      ╭─[pipelines/p.yaml:7:90]
    6 │   base: { uses: model, with: { source: all-MiniLM-L6-v2 } }
    7 │   before: { uses: evaluate, inputs: { model: base, judgements: judged }, with: { device: gpu } }
      ·                                                                                          ───
      ╰────
    ");
}

#[test]
fn another_spelling_of_the_same_device_computes_nothing_again() {
    let project = Project::new(&WITH_A_MODEL.replace("device: cuda", "device: cpu"));
    if project.retune(&["devices", "--json"]).json()["auto"] != "cpu" {
        eprintln!("skipped: `auto` is not the processor here");
        return;
    }
    let first = project.retune(&["run", "pipelines/p.yaml"]);
    assert_eq!(first.status(), 0, "{}", first.stderr());
    project.write("pipelines/p.yaml", WITH_A_MODEL.replace("device: cuda", "device: auto"));
    let second = project.retune(&["run", "pipelines/p.yaml", "--json"]).json();
    assert_eq!(second["stages"]["before"]["status"], "cached", "{second}");
}
