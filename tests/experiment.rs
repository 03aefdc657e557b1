//! A whole experiment with a real model: trained, measured, compared, retrieved, answered, drawn; cached, changed, interrupted.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, Project, files, reasons, statuses};
use serde_json::Value;

const EXPERIMENT: &str = r#"name: small
params: { epochs: 1 }
stages:
  docs: { uses: load, with: { path: ../docs } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 2, seed: 7 } }
  base: { uses: model, with: { source: all-MiniLM-L6-v2 } }
  tuned:
    uses: train
    inputs: { model: base, triplets: triplets, eval: judged }
    with: { epochs: "${params.epochs}", batch_size: 2, warmup_steps: 1, eval_steps: 2, loss: { name: triplet, margin: 0.5 } }
  before: { uses: evaluate, inputs: { model: base, judgements: judged } }
  after: { uses: evaluate, inputs: { model: tuned, judgements: judged } }
  comparison: { uses: compare, inputs: { baseline: before, tuned: after } }
  retrieved: { uses: retrieve, inputs: { baseline: base, tuned: tuned, judgements: judged } }
  answers: { uses: generate, inputs: { retrieved: retrieved, baseline: base, tuned: tuned } }
  picture: { uses: project, inputs: { baseline: base, tuned: tuned, judgements: judged } }
"#;

fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_experiment_from_documents_to_answers() {
    let project = Project::new(EXPERIMENT);
    let ended = project.retune(&["run", "pipelines/p.yaml"]).succeeded();
    let printed = ended.stdout();
    for word in ["recall@3", "ndcg@10", "baseline", "fine-tuned", "improvement", "runs/"] {
        assert!(printed.contains(word), "{printed}");
    }
    let first = &project.runs()[0];
    let artifacts = first.join("artifacts");
    let model = files(&artifacts.join("tuned/model"));
    for file in ["model.safetensors", "onnx/model.onnx", "README.md", "modules.json", "1_Pooling/config.json", "tokenizer.json"] {
        assert!(model.contains(&file.to_owned()), "{model:?}");
    }
    assert_ne!(
        fs::read(artifacts.join("tuned/model/model.safetensors")).unwrap(),
        fs::read(artifacts.join("base/model/model.safetensors")).unwrap()
    );
    let ranking = fs::read_to_string(artifacts.join("after/ranking.trec")).unwrap();
    assert!(ranking.lines().all(|line| line.split(' ').count() == 6), "{ranking}");
    let retrieved = json_lines(&artifacts.join("retrieved/retrieved.jsonl"));
    assert_eq!(retrieved.len(), 3 * 2, "three queries under two models");
    let answers = json_lines(&artifacts.join("answers/answers.jsonl"));
    assert_eq!(answers.len(), 3 * 2);
    assert!(answers.iter().all(|a| !a["answer"].as_str().unwrap().is_empty()), "{answers:?}");
    let png = fs::read(artifacts.join("picture/plots/projection.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.windows(4).any(|w| w == b"pHYs"));
    let metrics: Value = serde_json::from_slice(&fs::read(first.join("metrics.json")).unwrap()).unwrap();
    assert!(metrics["before.ndcg@10"].as_f64().unwrap() > 0.0, "{metrics}");
    let steps = fs::read_to_string(first.join("events.jsonl")).unwrap().matches(r#""event":"step""#).count();
    assert_eq!(steps, 3, "six triplets in batches of two");

    let again = project.run(&[]);
    assert!(again["stages"].as_object().unwrap().values().all(|s| s["status"] == "cached"), "{}", statuses(&again));

    let changed = project.run(&["--set", "stages.tuned.with.lr=5e-5"]);
    let ran: Vec<&String> =
        changed["stages"].as_object().unwrap().iter().filter(|(_, s)| s["status"] == "done").map(|(id, _)| id).collect();
    for id in &ran {
        assert!(["tuned", "after", "comparison", "retrieved", "answers", "picture"].contains(&id.as_str()), "{id} ran");
    }
    assert_eq!(reasons(&changed, "tuned"), "parameter `lr` 2e-5 → 5e-5");
    let compared = fs::read_to_string(artifacts.join("comparison/comparison.json")).unwrap();
    let compared: Value = serde_json::from_str(&compared).unwrap();
    assert!(compared["measures"]["ndcg@10"]["p_holm"].as_f64().unwrap() <= 1.0, "{compared}");
    let ids = [&again, &changed].map(|r| r["id"].as_str().unwrap().to_owned());
    let bound = |text: &str| project.retune(&["diff", &ids[0], &ids[1], "--fail-if", text]).status();
    assert_eq!([bound("after.ndcg@10<-2"), bound("after.ndcg@10<2"), bound("nothing<0")], [0, 3, 2]);
    let diff = project.retune(&["diff", &ids[0], &ids[1], "--all"]).succeeded().stdout();
    assert!(diff.contains("parameter `lr` 2e-5 → 5e-5") && diff.contains("after.ndcg@10"), "{diff}");
    let best = project.retune(&["runs", "--json", "--where", "params.lr>2e-5", "--sort", "-metrics.ndcg@10"]).succeeded().json();
    assert_eq!((best.as_array().unwrap().len(), best[0]["id"].as_str()), (1, Some(ids[1].as_str())));
    let columns = project.retune(&["runs", "--columns", "metrics.ndcg@10"]).succeeded().stdout();
    assert!(columns.contains("`metrics.ndcg@10` is `metrics.after.ndcg@10`"), "the trained model's: {columns}");
    let moved = project.retune(&["diff", &ids[0], &ids[1], "--queries", "--by", "after.ndcg@10", "--json"]).succeeded().json();
    let counts: u64 = ["better", "same", "worse"].iter().map(|name| moved[name].as_u64().unwrap()).sum();
    assert_eq!((moved["stage"].as_str(), counts), (Some("after"), 3));
}

/// A language model's server that answers every question with the key it was sent.
fn indiscreet_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut key, mut length) = (String::new(), 0);
            for line in reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                let (name, value) = line.split_once(": ").unwrap_or_default();
                match name.to_ascii_lowercase().as_str() {
                    "authorization" => key = value.to_owned(),
                    "content-length" => length = value.parse().unwrap(),
                    _ => {}
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let body =
                serde_json::json!({ "choices": [{ "message": { "content": format!("Your key is {key}.") } }] }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            reader.get_mut().write_all((head + &body).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn a_key_is_written_nowhere() {
    let key = "sk-e2e-0123456789abcdef";
    let project = Project::new(EXPERIMENT);
    // The key comes from a file, as people keep it.
    project.write(".env", format!("OPENAI_API_KEY={key}\n"));
    let url = indiscreet_server();
    let sets = ["provider=openai".to_owned(), "model=any".to_owned(), format!("base_url={url}")];
    let sets: Vec<String> = sets.iter().flat_map(|s| ["--set".to_owned(), format!("stages.answers.with.{s}")]).collect();
    let arguments: Vec<&str> = ["run", "pipelines/p.yaml"].into_iter().chain(sets.iter().map(String::as_str)).collect();
    let output = project.command(&arguments).env_remove("OPENAI_API_KEY").output().unwrap();
    let ended = Ended(output).succeeded();
    assert!(!ended.stdout().contains(key) && !ended.stderr().contains(key));
    let answers = json_lines(&project.runs()[0].join("artifacts/answers/answers.jsonl"));
    assert!(answers[0]["answer"].as_str().unwrap().starts_with("Your key is "), "{answers:?}");
    for file in files(&project.path("")).iter().filter(|f| *f != ".env") {
        let bytes = fs::read(project.path(file)).unwrap();
        assert!(!bytes.windows(key.len()).any(|w| w == key.as_bytes()), "the key is in {file}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let text = EXPERIMENT.split("  before:").next().unwrap();
    let project = Project::new(text);
    let first = project.run(&[]);
    let second = project.run(&["--force", "tuned"]);
    assert_eq!(first["stages"]["tuned"]["outputs"], second["stages"]["tuned"]["outputs"]);
    assert_eq!(second["stages"]["tuned"]["status"], "done");
}

/// A training that does not end by itself, killed when it is dropped.
struct Endless(Option<Child>);

impl Endless {
    /// Starts it and waits for its first steps.
    fn start(project: &Project) -> Self {
        let mut command = project.command(&["run", "pipelines/p.yaml", "--json", "--set", "params.epochs=100000"]);
        let endless = Endless(Some(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()));
        let started = Instant::now();
        let stepped = || {
            let events = project.runs().first().map(|run| fs::read_to_string(run.join("events.jsonl")).unwrap_or_default());
            events.is_some_and(|e| e.contains(r#""event":"step""#))
        };
        while !stepped() {
            assert!(started.elapsed() < Duration::from_secs(300), "the training did not begin");
            std::thread::sleep(Duration::from_millis(100));
        }
        endless
    }

    /// Sends a signal and waits for the end.
    fn end(mut self, signal: &str) -> Ended {
        let child = self.0.take().unwrap();
        let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        Ended(child.wait_with_output().unwrap())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_run_cleanly() {
    let project = Project::new(EXPERIMENT);
    let ended = Endless::start(&project).end("-INT");
    assert_eq!(ended.status(), 130, "{}", ended.stdout());
    let record = ended.json();
    assert_eq!(record["status"], "interrupted");
    assert_eq!(record["stages"]["tuned"]["status"], "interrupted");
    let next = project.run(&["--only", "triplets"]);
    assert_eq!(next["stages"]["triplets"]["status"], "cached");
}

#[test]
#[cfg(unix)]
fn a_killed_run_is_known_as_interrupted() {
    let project = Project::new(EXPERIMENT);
    Endless::start(&project).end("-KILL");
    let list = project.retune(&["runs", "--json"]).succeeded().json();
    assert_eq!(list[0]["status"], "interrupted");
    assert_eq!(project.run(&["--only", "triplets"])["stages"]["triplets"]["status"], "cached");
}
