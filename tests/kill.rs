//! Killed at any instant, the store is valid and the next run goes on.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{LIGHT, Project, statuses};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const KILLS: usize = 200;

/// Something new to compute in every round: all but the documents.
fn change(round: usize) -> Vec<String> {
    let (size, overlap) = (20 + round % 25, round / 25 % 10);
    let values = [
        format!("stages.chunks.with.chunk_size={size}"),
        format!("stages.chunks.with.chunk_overlap={overlap}"),
        format!("stages.triplets.with.seed={round}"),
    ];
    values.into_iter().flat_map(|value| ["--set".to_owned(), value]).collect()
}

fn start(project: &Project, round: usize) -> Child {
    let mut command = project.command(&["run", "pipelines/p.yaml", "--json"]);
    command.args(change(round)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Checks the store from outside, by its documented layout: every object has the bytes that its name says, every result is whole, and
/// everything that it names is there. Returns how many results there are.
fn check(project: &Project, seen: &str) -> usize {
    let store = project.path(".retune");
    let mut objects = BTreeMap::new();
    for name in common::files(&store.join("objects")) {
        let digest = name.replace('/', "");
        let bytes = fs::read(store.join("objects").join(&name)).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), digest, "{seen}: object {name}");
        objects.insert(digest, bytes);
    }
    let results = if store.join("results").is_dir() { common::files(&store.join("results")) } else { Vec::new() };
    for name in &results {
        let bytes = fs::read(store.join("results").join(name)).unwrap();
        let result: Value = serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{seen}: result {name}: {e}"));
        let outputs = result["outputs"].as_object().unwrap();
        assert!(!outputs.is_empty(), "{seen}: result {name}");
        for artifact in outputs.values() {
            let object = |digest: &Value| {
                let object = objects.get(digest.as_str().unwrap());
                object.unwrap_or_else(|| panic!("{seen}: result {name} names an object that is not there"))
            };
            let mut size = object(&artifact["digest"]).len();
            if artifact["shape"] == "folder" {
                let listing: Value = serde_json::from_slice(object(&artifact["digest"])).unwrap();
                size = listing["files"].as_array().unwrap().iter().map(|file| object(&file["digest"]).len()).sum();
            }
            assert_eq!(artifact["size"], size, "{seen}: result {name}");
        }
    }
    results.len()
}

/// Stage → digests of its outputs.
fn digests(record: &Value) -> BTreeMap<String, String> {
    let stages = record["stages"].as_object().unwrap();
    stages.iter().map(|(id, stage)| (id.clone(), stage["outputs"].to_string())).collect()
}

#[test]
fn killed_at_any_instant_the_store_is_valid() {
    let seed = std::env::var("RETUNE_KILL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_125);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let project = Project::new(LIGHT);
    // How long a run takes here; the instants of the kills are spread over it.
    let started = Instant::now();
    assert!(start(&project, 0).wait().unwrap().success());
    let mut lasts = started.elapsed();
    let (mut killed, mut ended, mut both, mut results) = (0, 0, 0, BTreeSet::new());
    let mut round = 0;
    while killed < KILLS {
        round += 1;
        let wait = lasts.mul_f64(rng.random_range(0.0..1.05));
        let two = round % 4 == 0;
        let seen = format!("seed {seed}, round {round}, killed after {wait:?}{}", if two { ", one of two" } else { "" });
        let started = Instant::now();
        let mut victim = start(&project, round);
        let mut other = two.then(|| start(&project, round));
        std::thread::sleep(wait);
        victim.kill().unwrap();
        let status = victim.wait().unwrap();
        if status.code().is_some() {
            // It was faster than usual.
            ended += 1;
            lasts = (lasts + started.elapsed()) / 2;
        } else {
            killed += 1;
        }
        if let Some(other) = &mut other {
            both += 1;
            assert!(other.wait().unwrap().success(), "{seen}: the other process failed");
        }
        results.insert(check(&project, &seen));
    }
    assert!(results.len() > KILLS / 8, "most kills came before anything was stored: {} states", results.len());
    // A run of what was killed finishes, takes what had finished, and yields what an undisturbed run does.
    let arguments = change(round);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = project.run(&arguments);
    assert!(statuses(&first).contains("docs: cached"), "{}", statuses(&first));
    let again = project.run(&arguments);
    assert_eq!(statuses(&again), "chunks: cached, docs: cached, judged: cached, triplets: cached");
    let undisturbed = Project::new(LIGHT).run(&arguments);
    assert_eq!(digests(&first), digests(&undisturbed));
    let verified = project.retune(&["verify"]).succeeded().stdout();
    assert!(verified.contains("all is well"), "{verified}");
    for folder in ["sessions", "leases", "scratch"] {
        assert_eq!(fs::read_dir(project.path(".retune").join(folder)).unwrap().count(), 0, "{folder} is cleared");
    }
    eprintln!(
        "{killed} kills in {round} rounds ({both} with a second process, {ended} had ended), {} states of the store; seed {seed}",
        results.len()
    );
}

#[test]
fn a_killed_owner_does_not_hold_others_up() {
    // A lease as a killed process leaves it: its session is there, the process is not.
    let project = Project::new(LIGHT);
    project.run(&[]);
    let key = fresh_key();
    let session = forge(&project, &key, &Value::Null);
    // The mark of a collector that was killed.
    fs::copy(project.path(".retune/sessions").join(&session), project.path(".retune/collecting")).unwrap();
    let started = Instant::now();
    let record = project.run(&["--set", "stages.triplets.with.seed=8"]);
    assert!(statuses(&record).contains("triplets: done"));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(!project.path(".retune/sessions").join(session).exists(), "what the dead left is cleared");
}

#[test]
fn a_heart_that_stands_still_on_another_machine_is_given_up() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let key = fresh_key();
    forge(&project, &key, &Value::from("the boot of another machine"));
    let started = Instant::now();
    let mut command = project.command(&["run", "pipelines/p.yaml", "--set", "stages.triplets.with.seed=8"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("waits"), "{told}");
    let took = started.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(common::files(&project.path(".retune/leases")), Vec::<String>::new());
}

#[test]
fn gc_leaves_the_store_of_another_machine_alone() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let session = forge(&project, &"0".repeat(64), &Value::from("the boot of another machine"));
    let path = project.path(".retune/sessions").join(session);
    let text = fs::read_to_string(&path).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 0.. {
                fs::write(&path, format!("{}\n{count:020}\n", text.lines().next().unwrap())).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                if done.load(std::sync::atomic::Ordering::SeqCst) {
                    break;
                }
            }
        });
        let refused = project.retune(&["gc", "--delete", "--max-size", "0"]);
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(refused.status(), 1);
        assert!(refused.stderr().contains("a process on `elsewhere` uses the store"), "{}", refused.stderr());
    });
    assert!(!project.path(".retune/collecting").exists());
    assert_eq!(statuses(&project.run(&[])), "chunks: cached, docs: cached, judged: cached, triplets: cached");
}

/// The key of the stage `triplets` with another seed.
fn fresh_key() -> String {
    let record = Project::new(LIGHT).run(&["--set", "stages.triplets.with.seed=8"]);
    record["stages"]["triplets"]["key"].as_str().unwrap().to_owned()
}

/// Makes a lease of a process that is gone, of this boot or of `boot`.
fn forge(project: &Project, key: &str, boot: &Value) -> String {
    let here = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    let pid = gone.id();
    gone.wait().unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let boot = boot.as_str().map_or_else(|| here("/proc/sys/kernel/random/boot_id"), ToOwned::to_owned);
    let owner = serde_json::json!({ "host": "elsewhere", "boot": boot, "namespace": namespace, "pid": pid, "started": 1 });
    let session = "0123456789abcdef0123456789abcdef";
    let text = format!("{}\n{:020}\n", serde_json::json!({ "session": session, "owner": owner }), 7);
    project.write(&format!(".retune/sessions/{session}"), &text);
    project.write(&format!(".retune/leases/{key}.0"), &text);
    session.to_owned()
}
