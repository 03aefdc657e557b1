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
    insta::assert_snapshot!(refused(&project), @"
     × unknown parameter `chunk_sise` of stage `chunks`
      ╭─[pipelines/p.yaml:4:63]
    3 │   docs: { uses: load, with: { path: ../docs } }
    4 │   chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_sise: 24, chunk_overlap: 4 } }
      ·                                                               ──────────
    5 │   judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
      ╰────
     help: did you mean `chunk_size`?
    ");
}

#[test]
fn an_edge_of_the_wrong_type() {
    let project = Project::new(&LIGHT.replace("{ chunks: chunks }", "{ chunks: docs }"));
    insta::assert_snapshot!(refused(&project), @"
     × input `chunks` wants chunks, but stage `docs` yields documents
      ╭─[pipelines/p.yaml:5:44]
    4 │   chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
    5 │   judged: { uses: judge, inputs: { chunks: docs }, with: { queries: ../queries.jsonl } }
      ·                                            ────
    6 │   triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2, seed: 7 } }
      ╰────
     help: chunks can come from `chunks`
    ");
}

#[test]
fn a_cycle() {
    let text = "stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs } }
  triplets: { uses: mine, inputs: { chunks: chunks }, with: { rules: ../rules.jsonl } }
  a: { uses: train, inputs: { model: b, triplets: triplets } }
  b: { uses: train, inputs: { model: a, triplets: triplets } }
";
    let ended = Project::new(text).retune(&["plan", "pipelines/p.yaml", "--json"]);
    assert_eq!(ended.status(), 2);
    assert!(ended.stdout().contains("a → b → a"), "{}", ended.stdout());
}

#[test]
fn a_pipeline_that_is_not_there_or_not_utf8() {
    let project = Project::new(LIGHT);
    let ended = project.retune(&["run", "pipelines/q.yaml"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(ended.stderr(), @"
    × there is no file `pipelines/q.yaml`
    help: did you mean `p.yaml`?
    ");
    project.write("pipelines/p.yaml", b"name: caf\xe9\n");
    insta::assert_snapshot!(refused(&project), @"
     × `pipelines/p.yaml` is not UTF-8: byte 0xE9 at offset 9
      ╭─[pipelines/p.yaml:1:10]
    1 │ name: caf�
      ·          ─
      ╰────
     help: save the file as UTF-8
    ");
}

#[test]
fn documents_that_are_not_there() {
    let project = Project::new(&LIGHT.replace("../docs", "../dosc"));
    insta::assert_snapshot!(refused(&project), @"error: stage `docs`: there are no documents at `../dosc`; correct `path`: `pipelines/../dosc` cannot be read: No such file or directory (os error 2)");
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
    insta::assert_snapshot!(failed(&project, "docs"), @"`../docs/latin.txt` cannot be read: line 1 is not UTF-8; save the file as UTF-8");
    let text = LIGHT.replace("{ path: ../docs }", "{ path: ../docs, on_error: skip }");
    project.write("pipelines/p.yaml", text);
    let record = project.run(&[]);
    insta::assert_snapshot!(record["stages"]["docs"]["outcome"]["warnings"][0].as_str().unwrap(), @"left out because they cannot be read: 1 (`../docs/latin.txt` (line 1 is not UTF-8; save the file as UTF-8))");
}

#[test]
fn a_query_without_judgements() {
    let project = Project::new(LIGHT);
    project.write("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"x\", \"keywords\": [\"nowhere\"]}\n");
    insta::assert_snapshot!(failed(&project, "judged"), @"../queries.jsonl:1: no chunk answers query `q1` (x): none contains `nowhere`; correct the rule, or set `without_judgements: skip`");
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
    insta::assert_snapshot!(failed(&project, "base"), @"`pipelines/../model/model.safetensors` is not what it should be: no intact safetensors file (invalid header length); get the file again, it may have been cut off while it was fetched");
}

#[test]
fn a_wrong_sha256() {
    let digest = "0".repeat(64);
    let project =
        Project::new(&format!("stages:\n  base: {{ uses: model, with: {{ source: ../model, sha256: '{digest}' }} }}\n"));
    model(&project, b"other weights");
    insta::assert_snapshot!(failed(&project, "base"), @"the model cannot be had: `pipelines/../model`: the weights have sha256 53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0 instead of 0000000000000000000000000000000000000000000000000000000000000000: the download is damaged or the source was changed; nothing was kept. If the new weights are wanted, put their digest into `sha256`");
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
    insta::assert_snapshot!(project.anonymous(&ended.stderr()), @"error: the run's directory `file/runs` cannot be written: Not a directory (os error 20); free the disk or its permissions, or name another folder with `--runs`");
    let ended = project.retune(&["run", "pipelines/p.yaml", "--store", "file/store"]);
    assert_eq!(ended.status(), 2);
    insta::assert_snapshot!(project.anonymous(&ended.stderr()), @"error: the store at `file/store` cannot be used: `file/store/format`: Not a directory (os error 20); free the disk or its permissions, or name another folder with `--store`");
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
    let documents =
        std::fs::read_to_string(project.path("runs").join(record["id"].as_str().unwrap()).join("artifacts/docs/documents.jsonl"))
            .unwrap();
    assert_eq!(documents.lines().count(), 4);
}

#[test]
fn output_that_nobody_reads() {
    let project = Project::new(LIGHT);
    let mut child = project.command(&["stages", "--markdown"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
