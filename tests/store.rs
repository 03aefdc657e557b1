//! The store in use: damage, a store that cannot be written, a full disk, `verify` and `gc`.
#![cfg(unix)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use common::{Ended, LIGHT, Project, reasons, statuses};
use serde_json::Value;

const CACHED: &str = "chunks: cached, docs: cached, judged: cached, triplets: cached";

fn digest<'v>(record: &'v Value, stage: &str, port: &str) -> &'v str {
    record["stages"][stage]["outputs"][port]["digest"].as_str().unwrap()
}

fn object(project: &Project, digest: &str) -> PathBuf {
    project.path(".retune/objects").join(&digest[..2]).join(&digest[2..])
}

/// Changes a byte of a file in place, as a failing disk (`silent`, so that no time changes) or a person does.
fn damage(path: &Path, silent: bool) {
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(b"#").unwrap();
    if silent {
        file.set_modified(before.modified().unwrap()).unwrap();
    }
    fs::set_permissions(path, before.permissions()).unwrap();
}

#[test]
fn a_file_that_was_edited_through_a_run_is_computed_again() {
    let project = Project::new(LIGHT);
    let first = project.run(&[]);
    let run = project.path("runs").join(first["id"].as_str().unwrap());
    let link = run.join(first["stages"]["chunks"]["paths"]["chunks"].as_str().unwrap());
    let (before, chunks) = (fs::read(&link).unwrap(), digest(&first, "chunks", "chunks").to_owned());
    if fs::metadata(object(&project, &chunks)).unwrap().ino() != fs::metadata(&link).unwrap().ino() {
        eprintln!("not tested: on this file system what a run has is no link to the object");
        return;
    }
    damage(&link, false);
    let plan = project.retune(&["plan", "pipelines/p.yaml"]).succeeded().stdout();
    assert!(plan.contains(&format!("its result is damaged (object {})", &chunks[..12])), "{plan}");
    let ended = project.retune(&["run", "pipelines/p.yaml"]).succeeded();
    let told = project.anonymous(&ended.stderr());
    let expected =
        format!("object {} of its result was damaged, and is `PROJECT/.retune/quarantine/{chunks}` now", &chunks[..12]);
    assert!(told.contains(&expected), "{told}");
    let record = project.run(&[]);
    assert_eq!(statuses(&record), CACHED);
    assert_eq!(digest(&record, "chunks", "chunks"), chunks);
    assert_eq!(fs::read(object(&project, &chunks)).unwrap(), before);
    // What the person wrote is not lost.
    assert_eq!(fs::read(&link).unwrap()[0], b'#');
}

#[test]
fn damage_that_nobody_saw_is_found_when_a_stage_reads_it() {
    let project = Project::new(LIGHT);
    let first = project.run(&[]);
    let (docs, chunks) = (digest(&first, "docs", "documents").to_owned(), digest(&first, "chunks", "chunks").to_owned());
    damage(&object(&project, &docs), true);
    damage(&object(&project, &chunks), true);
    // Nothing reads them, so nothing is read.
    assert_eq!(statuses(&project.run(&[])), CACHED);
    // `judged` reads the chunks, which `chunks` makes of the documents, which `docs` makes: all in this run.
    let record = project.run(&["--force", "judged"]);
    assert_eq!(statuses(&record), "chunks: done, docs: done, judged: done, triplets: cached");
    assert!(reasons(&record, "docs").contains(&docs[..12]), "{}", reasons(&record, "docs"));
    assert!(reasons(&record, "chunks").contains(&chunks[..12]), "{}", reasons(&record, "chunks"));
    assert_eq!(digest(&record, "judged", "judgements"), digest(&first, "judged", "judgements"));
    let mut aside = common::files(&project.path(".retune/quarantine"));
    aside.sort();
    let mut expected = vec![docs, chunks];
    expected.sort();
    assert_eq!(aside, expected);
    // A new stage that reads the run's own files must see the mended ones.
    let run = project.path("runs").join(record["id"].as_str().unwrap());
    let link = run.join(record["stages"]["chunks"]["paths"]["chunks"].as_str().unwrap());
    assert_ne!(fs::read(link).unwrap()[0], b'#');
    project.retune(&["verify"]).succeeded();
}

#[test]
fn verify_finds_names_and_puts_aside() {
    let project = Project::new(LIGHT);
    let nothing = project.retune(&["verify"]);
    assert_eq!(nothing.status(), 2);
    insta::assert_snapshot!(project.anonymous(&nothing.stderr()), @"error: there is no store at `PROJECT/.retune`; `retune run PIPELINE` makes one, and `--store` names another folder");
    let first = project.run(&[]);
    let fine = project.retune(&["verify"]).succeeded().stdout();
    assert!(fine.starts_with("7 objects of ") && fine.ends_with("and 4 results read: all is well\n"), "{fine}");
    let chunks = digest(&first, "chunks", "chunks");
    damage(&object(&project, chunks), true);
    let key = first["stages"]["docs"]["key"].as_str().unwrap();
    fs::write(project.path(".retune/results").join(&key[..2]).join(&key[2..]), "{").unwrap();
    project.write(".retune/scratch/0123/stage-x/outputs/half", "half of something");
    let found = project.retune(&["verify", "--json"]);
    assert_eq!(found.status(), 1);
    let json = found.json();
    assert_eq!((json["damaged"].as_array().unwrap().len(), &json["damaged"][0]["object"]), (1, &Value::from(chunks)));
    let mut stages: Vec<&str> =
        json["broken"].as_array().unwrap().iter().map(|b| b["stages"]["light"][0].as_str().unwrap()).collect();
    stages.sort_unstable();
    assert_eq!(stages, ["chunks", "docs"]);
    assert_eq!((&json["leftovers"]["scratch"], &json["leftovers"]["bytes"]), (&Value::from(1), &Value::from(17)));
    project.retune(&["verify"]).succeeded();
    assert_eq!(statuses(&project.run(&[])), "chunks: done, docs: done, judged: cached, triplets: cached");
}

#[test]
fn verify_in_words() {
    let project = Project::new(LIGHT);
    let first = project.run(&[]);
    damage(&object(&project, digest(&first, "judged", "judgements")), true);
    let found = project.retune(&["verify"]);
    assert_eq!(found.status(), 1);
    let text = project.anonymous(&found.stdout());
    assert!(text.starts_with("damaged object ") && text.contains("runs again `judged` of pipeline `light`\n"), "{text}");
    assert!(text.ends_with("results read: 1 damaged, 1 result lost\n"), "{text}");
}

#[test]
fn gc_keeps_what_runs_need() {
    let project = Project::new(LIGHT);
    let runs: Vec<Value> = (1..=3).map(|seed| project.run(&["--set", &format!("stages.triplets.with.seed={seed}")])).collect();
    let gc = |arguments: &[&str]| project.retune(&[&["gc", "--json"], arguments].concat()).succeeded().json()["garbage"].clone();
    let count = |garbage: &Value| garbage["results"].as_array().unwrap().len();
    let text = project.retune(&["gc"]).succeeded().stdout();
    assert!(text.starts_with("nothing to remove: 6 results and "), "{text}");
    assert_eq!(count(&gc(&["--keep-last", "1"])), 2);
    assert_eq!(count(&gc(&["--older-than", "1h"])), 0, "all was used a moment ago");
    // A tag keeps the first.
    let folder = |index: usize| project.path("runs").join(runs[index]["id"].as_str().unwrap());
    fs::write(folder(0).join("tags.json"), r#"["best"]"#).unwrap();
    let garbage = gc(&["--keep-last", "1"]);
    assert_eq!((count(&garbage), &garbage["results"][0]["key"]), (1, &runs[1]["stages"]["triplets"]["key"]));
    // A run that is gone needs nothing; its result and what only that names go.
    fs::remove_dir_all(folder(1)).unwrap();
    let would = project.retune(&["gc"]).succeeded().stdout();
    assert!(
        would.starts_with("mine") && would.contains("would remove 1 result, ") && would.ends_with("`--delete` does it\n"),
        "{would}"
    );
    let deleted = project.retune(&["gc", "--delete"]).succeeded().stdout();
    assert!(deleted.contains("removed 1 result, "), "{deleted}");
    for (seed, triplets) in [(1, "cached"), (2, "done"), (3, "cached")] {
        let record = project.run(&["--set", &format!("stages.triplets.with.seed={seed}")]);
        assert_eq!(record["stages"]["triplets"]["status"], triplets, "seed {seed}");
    }
    project.retune(&["verify"]).succeeded();
    // The smallest store has what the tagged run needs, although nothing of it was used for long.
    for file in common::files(&project.path(".retune/results")) {
        let old = SystemTime::now() - Duration::from_secs(90 * 86400);
        File::open(project.path(".retune/results").join(file)).unwrap().set_modified(old).unwrap();
    }
    let small = gc(&["--max-size", "1", "--delete"]);
    assert_eq!((count(&small), &small["kept"]["results"]), (2, &Value::from(4)));
    let record = project.run(&["--set", "stages.triplets.with.seed=1"]);
    assert_eq!(statuses(&record), CACHED);
    let key = record["stages"]["docs"]["key"].as_str().unwrap();
    let used = fs::metadata(project.path(".retune/results").join(&key[..2]).join(&key[2..])).unwrap().modified().unwrap();
    assert!(used.elapsed().unwrap() < Duration::from_secs(60), "a use is noted");
    // What a damaged record needs is not known.
    fs::write(folder(2).join("run.json"), "{").unwrap();
    let refused = project.retune(&["gc", "--delete"]);
    assert_eq!(refused.status(), 1);
    assert!(refused.stderr().contains("nothing was removed, because what it needs is not known"), "{}", refused.stderr());
}

/// The digest of an artifact in a run's directory: of its bytes, or of its list of files.
fn content(path: &Path) -> String {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    if path.is_file() {
        return digest(&fs::read(path).unwrap());
    }
    let entry = |name: &String| {
        let bytes = fs::read(path.join(name)).unwrap();
        format!(r#"{{"path":"{name}","digest":"{}","size":{}}}"#, digest(&bytes), bytes.len())
    };
    let entries: Vec<String> = common::files(path).iter().map(entry).collect();
    digest(format!(r#"{{"files":[{}]}}"#, entries.join(",")).as_bytes())
}

#[test]
fn gc_beside_running_pipelines() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let start = |round: usize, which: usize| {
        // Chunks that come and go, so that results and objects are found again just when they may go.
        let size = format!("stages.chunks.with.chunk_size={}", 20 + (round + which) % 3);
        let mut command = project.command(&["run", "pipelines/p.yaml", "--json", "--set", &size]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (mut removed, mut computed) = (0, 0);
    for round in 0..15 {
        let running = [start(round, 0), start(round, 1)];
        for _ in 0..3 {
            // Without runs that need it and with nothing small enough, everything may go that is not used now.
            let json = project.retune(&["gc", "--delete", "--json", "--max-size", "0"]).succeeded().json();
            removed += json["garbage"]["results"].as_array().unwrap().len();
        }
        for child in running {
            let record = Ended(child.wait_with_output().unwrap()).succeeded().json();
            computed += statuses(&record).matches("done").count();
            let run = project.path("runs").join(record["id"].as_str().unwrap());
            for stage in record["stages"].as_object().unwrap().values() {
                for (port, path) in stage["paths"].as_object().unwrap() {
                    let found = content(&run.join(path.as_str().unwrap()));
                    assert_eq!(found, stage["outputs"][port]["digest"].as_str().unwrap(), "round {round}");
                }
            }
        }
        let verified = project.retune(&["verify"]);
        assert_eq!(verified.status(), 0, "round {round}: {}", verified.stdout());
    }
    assert!(removed > 20 && computed > 20, "{removed} removed, {computed} computed");
}

#[test]
fn a_disk_that_is_full_leaves_a_valid_store_and_says_what_to_do() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let long = "A volume keeps data when the container is removed. ".repeat(20_000);
    project.write("docs/long.md", format!("# Long\n\n{long}\n"));
    // A limit on the size of files acts like a disk that is full: `load` wants to write more than 64 kB.
    let program = env!("CARGO_BIN_EXE_retune");
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" run pipelines/p.yaml", program]).current_dir(project.path(""));
    let full = Ended(shell.output().unwrap());
    assert_eq!(full.status(), 1, "{}{}", full.stdout(), full.stderr());
    assert!(full.stderr().contains("`ulimit -f`"), "{}", full.stderr());
    project.retune(&["verify"]).succeeded();
    assert_eq!(fs::read_dir(project.path(".retune/scratch")).unwrap().count(), 0);
    assert_eq!(statuses(&project.run(&[])), "chunks: done, docs: done, judged: done, triplets: done");
}

/// The program where the store cannot be written: a mount that is read-only for `root`, whom permissions do not bind, or permissions.
/// `None` where neither can be had.
fn read_only(project: &Project, arguments: &[&str]) -> Option<Ended> {
    let store = project.path(".retune");
    let unshare = "unshare --mount --map-root-user true 2>/dev/null || exit 99; exec unshare --mount --map-root-user bash -c \
         'mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" || exit 99; exec \"$@\"' \"$0\" \"$@\"";
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(unshare).arg(&store).arg(env!("CARGO_BIN_EXE_retune")).args(arguments).current_dir(project.path(""));
    let ended = Ended(shell.output().unwrap());
    if ended.status() != 99 {
        return Some(ended);
    }
    let folders = || walkdir::WalkDir::new(&store).into_iter().flatten().filter(|e| e.file_type().is_dir());
    let mode = |mode: u32| folders().for_each(|e| fs::set_permissions(e.path(), PermissionsExt::from_mode(mode)).unwrap());
    mode(0o555);
    let writable = File::create(store.join("probe")).is_ok();
    let ended = (!writable).then(|| project.retune(arguments));
    mode(0o755);
    ended
}

#[test]
fn a_store_that_cannot_be_written_gives_what_it_has() {
    let project = Project::new(LIGHT);
    project.run(&[]);
    let Some(cached) = read_only(&project, &["run", "pipelines/p.yaml", "--json"]) else {
        eprintln!("not tested: this machine lets the test make no folder that it cannot write");
        return;
    };
    let cached = cached.succeeded();
    assert_eq!(statuses(&cached.json()), CACHED);
    assert!(!cached.stderr().contains("warning"), "nothing is lost: {}", cached.stderr());
    let new = read_only(&project, &["run", "pipelines/p.yaml", "--set", "stages.triplets.with.seed=8"]).unwrap();
    assert_eq!(new.status(), 1);
    assert!(new.stderr().contains("only what is cached can be taken from a store that cannot be written"), "{}", new.stderr());
    assert!(new.stderr().contains("`--store`"));
}
