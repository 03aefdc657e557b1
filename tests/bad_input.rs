//! Input that is wrong in the ways that happen, and what the program says to it.

mod common;

use std::net::TcpListener;

use common::{Ended, LIGHT, Project, statuses};

/// What is said to a pipeline that cannot be run; nothing may have been run.
fn refused(project: &Project) -> String {
    let ended = project.retune(&["run", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 2, "{}\n{}", ended.stdout(), ended.stderr());
    assert!(project.runs().is_empty(), "a run was made");
    project.anonymous(&ended.stderr())
}

/// The error of the stage that fails.
fn failed(project: &Project, stage: &str) -> String {
    let ended = project.retune(&["run", "pipelines/p.yaml", "--json"]);
    assert_eq!(ended.status(), 1, "{}\n{}", ended.stdout(), ended.stderr());
    project.anonymous(ended.json()["stages"][stage]["error"].as_str().unwrap())
}

#[test]
fn an_unknown_key() {
    let project = Project::new(&LIGHT.replace("chunk_size", "chunk_sise"));
    insta::assert_snapshot!(refused(&project), @"");
}

#[test]
fn an_edge_of_the_wrong_type() {
    let project = Project::new(&LIGHT.replace("{ chunks: chunks }", "{ chunks: docs }"));
    insta::assert_snapshot!(refused(&project), @"");
}

#[test]
fn a_cycle() {
    let text = "stages:\n  a: { uses: chunk, inputs: { documents: b } }\n  b: { uses: chunk, inputs: { documents: a } }\n";
    let ended = Project::new(text).retune(&["plan", "pipelines/p.yaml", "--json"]);
    assert_eq!(ended.status(), 2);
    assert!(ended.stdout().contains("a → b → a"), "{}", ended.stdout());
}

#[test]
fn a_pipeline_that_is_not_there_or_not_utf8() {
    let project = Project::new(LIGHT);
    let ended = project.retune(&["run", "pipelines/q.yaml"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(ended.stderr(), @"");
    project.write("pipelines/p.yaml", b"name: caf\xe9\n");
    insta::assert_snapshot!(refused(&project), @"");
}

#[test]
fn documents_that_are_not_there() {
    let project = Project::new(&LIGHT.replace("../docs", "../dosc"));
    insta::assert_snapshot!(refused(&project), @"");
}

#[test]
fn an_empty_corpus() {
    let project = Project::new(&LIGHT.replace("{ path: ../docs }", "{ path: ../docs, include: ['**/*.pdf'] }"));
    let ended = project.retune(&["run", "pipelines/p.yaml"]);
    assert!(ended.status() == 1 || ended.status() == 2);
    assert!(ended.stderr().contains("3 files"), "{}", ended.stderr());
}

#[test]
fn a_document_that_is_not_utf8() {
    let project = Project::new(LIGHT);
    project.write("docs/latin.txt", b"caf\xe9 au lait");
    insta::assert_snapshot!(failed(&project, "docs"), @"");
    let text = LIGHT.replace("{ path: ../docs }", "{ path: ../docs, on_error: skip }");
    project.write("pipelines/p.yaml", text);
    let record = project.run(&[]);
    insta::assert_snapshot!(record["stages"]["docs"]["outcome"]["warnings"][0].as_str().unwrap(), @"");
}

#[test]
fn a_query_without_judgements() {
    let project = Project::new(LIGHT);
    project.write("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"nowhere\"]}\n");
    insta::assert_snapshot!(failed(&project, "judged"), @"");
}

/// A folder that looks like a model.
fn model(project: &Project, weights: &[u8]) {
    let config = r#"{"model_type": "bert", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8,
        "vocab_size": 10, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    project.write("model/config.json", config);
    project.write("model/model.safetensors", weights);
}

#[test]
fn corrupt_weights() {
    let project = Project::new("stages:\n  base: { uses: model, with: { source: ../model } }\n");
    model(&project, b"\x20\0\0\0\0\0\0\0{\"a\": cut off");
    insta::assert_snapshot!(failed(&project, "base"), @"");
}

#[test]
fn a_wrong_sha256() {
    let digest = "0".repeat(64);
    let project =
        Project::new(&format!("stages:\n  base: {{ uses: model, with: {{ source: ../model, sha256: '{digest}' }} }}\n"));
    model(&project, b"other weights");
    insta::assert_snapshot!(failed(&project, "base"), @"");
}

#[test]
fn a_server_that_cannot_be_reached() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/model.zip");
    let project = Project::new(&format!("stages:\n  base: {{ uses: model, with: {{ source: '{url}' }} }}\n"));
    let cache = project.path("cache");
    let ended = Ended(project.command(&["run", "pipelines/p.yaml"]).env("RETUNE_CACHE", &cache).output().unwrap());
    assert_eq!(ended.status(), 1);
    let told = ended.stderr();
    assert!(told.contains(&format!("`{url}` cannot be reached")), "{told}");
}

#[test]
fn a_runs_folder_that_cannot_be_written() {
    let project = Project::new(LIGHT);
    project.write("file", "");
    let ended = project.retune(&["run", "pipelines/p.yaml", "--runs", "file/runs"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(project.anonymous(&ended.stderr()), @"");
    let ended = project.retune(&["run", "pipelines/p.yaml", "--store", "file/store"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(project.anonymous(&ended.stderr()), @"");
}

/// A limit on the size of files makes writing fail in the middle, as a full disk does.
#[test]
#[cfg(unix)]
fn a_full_disk() {
    let project = Project::new(LIGHT);
    let long: String = (0..6000).map(|i| format!("Sentence number {i} of a long document.\n\n")).collect();
    project.write("docs/long.md", &long);
    let run = format!("trap '' XFSZ; ulimit -f 200; exec '{}' run pipelines/p.yaml --json", env!("CARGO_BIN_EXE_retune"));
    let limited = std::process::Command::new("sh").args(["-c", &run]).current_dir(project.path("")).output().unwrap();
    let ended = Ended(limited);
    assert_eq!(ended.status(), 1, "{}\n{}", ended.stdout(), ended.stderr());
    let record = ended.json();
    assert_eq!(record["status"], "failed");
    let error = record["stages"]["docs"]["error"].as_str().unwrap();
    assert!(error.contains("documents.jsonl"), "{error}");
    // With room again, the run goes on, and nothing that was cut is taken for whole.
    let record = project.run(&[]);
    assert_eq!(statuses(&record), "chunks: done, docs: done, judged: done, triplets: done");
    let documents = std::fs::read_to_string(project.runs()[1].join("artifacts/docs/documents.jsonl")).unwrap();
    assert_eq!(documents.lines().count(), 4);
}

#[test]
fn output_that_nobody_reads() {
    let project = Project::new(LIGHT);
    let mut child = project.command(&["stages", "--markdown"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
