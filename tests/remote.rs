//! Sharing results: between two projects, through a folder and through a server that speaks S3, and with everything that goes wrong
//! there.

mod common;
mod s3;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Ended, LIGHT, Project, files, statuses};
use s3::{KEY, SECRET, Server};
use serde_json::{Value, json};

const ALL_DONE: &str = "chunks: done, docs: done, judged: done, triplets: done";
const ALL_CACHED: &str = "chunks: cached, docs: cached, judged: cached, triplets: cached";
const ALL_FETCHED: &str = "chunks: fetched, docs: fetched, judged: fetched, triplets: fetched";

/// A folder with the bucket of [`s3::remote`].
fn bucket() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bucket")).unwrap();
    root
}

fn project(remote: &str) -> Project {
    Project::new(&format!("{remote}{LIGHT}"))
}

/// The program with the credentials of the test's server and no others.
fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    command
}

fn run(project: &Project) -> Ended {
    Ended(command(project, &["run", "pipelines/p.yaml", "--json"]).output().unwrap()).succeeded()
}

fn warnings(ended: &Ended) -> Vec<String> {
    ended.stderr().lines().filter(|line| line.contains("warning")).map(str::to_owned).collect()
}

/// Path and bytes of every artifact of the last run.
fn artifacts(project: &Project) -> Vec<(String, Vec<u8>)> {
    let folder = project.runs().last().unwrap().join("artifacts");
    files(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap())).collect()
}

fn unpushed(project: &Project) -> usize {
    fs::read_dir(project.path(".retune/unpushed")).map_or(0, Iterator::count)
}

/// `folder/ab/cdef…`, as in a store.
fn place(folder: &Path, digest: &str) -> PathBuf {
    folder.join(&digest[..2]).join(&digest[2..])
}

#[test]
fn the_second_project_computes_nothing() {
    let root = bucket();
    let server = Server::start(root.path());
    let (one, two) = (project(&server.remote()), project(&server.remote()));
    let first = run(&one);
    assert_eq!(statuses(&first.json()), ALL_DONE);
    assert_eq!((warnings(&first), unpushed(&one)), (vec![], 0));
    let names = files(&root.path().join("bucket/team/v1"));
    assert_eq!(names.iter().filter(|name| name.starts_with("results/") && name.ends_with(".json")).count(), 4, "{names:?}");

    let text = Ended(command(&two, &["run", "pipelines/p.yaml"]).output().unwrap()).succeeded();
    assert!(text.stdout().contains(": 0 run, 0 cached, 4 fetched\n"), "{}", text.stdout());
    assert_eq!(artifacts(&one), artifacts(&two));
    let log = fs::read_to_string(two.runs()[0].join("logs/chunks.log")).unwrap();
    assert!(log.contains("fetched from s3://bucket/team"), "{log}");
    assert_eq!(statuses(&run(&two).json()), ALL_CACHED);
    assert_eq!(run(&two).json()["stages"]["chunks"]["computed_by"], first.json()["id"]);

    for project in [&one, &two] {
        let lock = fs::read_to_string(project.runs()[0].join("pipeline.lock.yaml")).unwrap();
        assert!(!lock.contains("remote"), "{lock}");
        for name in files(&project.path("")) {
            let bytes = fs::read(project.path(&name)).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{name} has the secret");
        }
    }
}

#[test]
fn a_large_object_goes_in_parts() {
    let root = bucket();
    let server = Server::start(root.path());
    let text = format!("{}stages:\n  docs: {{ uses: load, with: {{ path: ../docs }} }}\n", server.remote());
    let [one, two] = [(); 2].map(|()| {
        let project = Project::new(&text);
        let line = |i: usize| format!("line {i} of a long document, {}\n", i * 7919 % 10007);
        project.write("docs/long.txt", (0..500_000).map(line).collect::<String>());
        project
    });
    let size = run(&one).json()["stages"]["docs"]["outputs"]["documents"]["size"].as_u64().unwrap();
    assert!(size > 2 * (8 << 20), "{size}");
    assert_eq!(statuses(&run(&two).json()), "docs: fetched");
    assert_eq!(artifacts(&one), artifacts(&two));
}

#[test]
fn a_damaged_object_is_told_and_mended() {
    let root = bucket();
    let server = Server::start(root.path());
    let first = run(&project(&server.remote())).json();
    let digest = first["stages"]["chunks"]["outputs"]["chunks"]["digest"].as_str().unwrap();
    let object = place(&root.path().join("bucket/team/v1/objects"), digest);
    let right = fs::read(&object).unwrap();
    let mut wrong = right.clone();
    wrong[0] ^= 1;
    fs::write(&object, wrong).unwrap();

    let two = project(&server.remote());
    let ended = run(&two);
    assert_eq!(statuses(&ended.json()), "chunks: done, docs: fetched, judged: fetched, triplets: fetched");
    let told = warnings(&ended);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("object {} has other bytes than its digest says", &digest[..12])), "{told:?}");
    assert_eq!(fs::read(&object).unwrap(), right, "who computed it puts it right");
    assert_eq!(statuses(&run(&project(&server.remote())).json()), ALL_FETCHED);
}

#[test]
fn a_folder_is_shared_in_the_same_way() {
    let shared = tempfile::tempdir().unwrap();
    let folder = shared.path().join("store");
    let remote = format!("remote: {:?}\n", folder.to_str().unwrap());
    let (one, two) = (project(&remote), project(&remote));
    assert_eq!(statuses(&run(&one).json()), ALL_DONE);
    let names = files(&folder);
    assert!(names.iter().all(|name| name.starts_with("v1/objects/") || name.starts_with("v1/results/")), "{names:?}");
    let ended = run(&two);
    assert_eq!((statuses(&ended.json()), warnings(&ended)), (ALL_FETCHED.into(), vec![]));
    assert_eq!(artifacts(&one), artifacts(&two));

    // What the call says goes before the environment, and that before the file.
    let three = Project::new(LIGHT);
    let with = |project: &Project, variable: &str, arguments: &[&str]| {
        let mut command = command(project, &[&["run", "pipelines/p.yaml", "--json"], arguments].concat());
        statuses(&Ended(command.env("RETUNE_REMOTE", variable).output().unwrap()).succeeded().json())
    };
    assert_eq!(with(&three, folder.to_str().unwrap(), &["--no-remote"]), ALL_DONE);
    assert_eq!(with(&Project::new(LIGHT), folder.to_str().unwrap(), &[]), ALL_FETCHED);
    assert_eq!(with(&Project::new(LIGHT), "", &["--remote", folder.to_str().unwrap()]), ALL_FETCHED);
    assert_eq!(with(&project(&remote), "", &[]), ALL_DONE);

    // A relative one starts at the pipeline's folder in a pipeline, and at the working directory in a call.
    let four = project("remote: ../shared\n");
    run(&four);
    assert!(four.path("shared/v1/results").is_dir());
    assert_eq!(with(&Project::new(LIGHT), "", &["--remote", four.path("shared").to_str().unwrap()]), ALL_FETCHED);
}

#[test]
fn results_are_pushed_and_fetched_by_hand() {
    let shared = tempfile::tempdir().unwrap();
    let folder = shared.path().to_str().unwrap();
    let one = Project::new(LIGHT);
    one.run(&[]);
    let none = one.retune(&["push", "pipelines/p.yaml"]);
    assert_eq!(none.status(), 2);
    insta::assert_snapshot!(none.stderr(), @"error: there is no remote; add `remote: s3://BUCKET/PREFIX` to the pipeline, or give `--remote URL`");
    let pushed = one.retune(&["push", "pipelines/p.yaml", "--remote", folder]).succeeded().stdout();
    assert_eq!(pushed, format!("4 results are in {folder}\n"));
    let two = Project::new(LIGHT);
    let fetched = two.retune(&["fetch", "pipelines/p.yaml", "--remote", folder]).succeeded().stdout();
    assert_eq!(fetched, "4 fetched, 0 were here already\n");
    assert_eq!(statuses(&two.run(&[])), ALL_CACHED);
    let other = two.retune(&["fetch", "pipelines/p.yaml", "--remote", folder, "--set", "stages.chunks.with.chunk_size=32"]);
    assert_eq!(other.succeeded().stdout(), "0 fetched, 1 were here already, 3 must be computed: chunks, judged, triplets\n");
}

#[test]
fn a_server_that_is_down_costs_a_warning() {
    let root = bucket();
    // The port was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let one = project(&s3::remote(port));
    let start = Instant::now();
    let ended = run(&one);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!((statuses(&ended.json()), unpushed(&one)), (ALL_DONE.into(), 4));
    let told = warnings(&ended);
    assert_eq!(told.len(), 1, "{told:?}");
    insta::assert_snapshot!(told[0], @"docs      warning     the remote `s3://bucket/team` cannot be used: Connection refused (os error 111); it is left alone in this run, and a later run pushes what this one computes");

    // To another server nothing is pushed late; to the same one, when it is there again, everything.
    let text = |server: &Server| format!("{}{LIGHT}", server.remote());
    one.write("pipelines/p.yaml", text(&Server::start(bucket().path())));
    assert_eq!((statuses(&run(&one).json()), unpushed(&one)), (ALL_CACHED.into(), 4));
    let server = Server::at(root.path(), port, usize::MAX);
    one.write("pipelines/p.yaml", text(&server));
    assert_eq!((statuses(&run(&one).json()), unpushed(&one)), (ALL_CACHED.into(), 0));
    assert_eq!(statuses(&run(&project(&server.remote())).json()), ALL_FETCHED);
}

#[test]
fn a_server_that_dies_on_the_way_costs_a_warning() {
    let root = bucket();
    for requests in [1, 2, 5, 9] {
        let server = Server::dying(root.path(), requests);
        let one = project(&server.remote());
        let start = Instant::now();
        let ended = run(&one);
        assert!(start.elapsed() < Duration::from_secs(30), "{requests}: {:?}", start.elapsed());
        let told = warnings(&ended);
        assert_eq!(told.len(), 1, "{requests}: {told:?}");
        assert!(told[0].contains("cannot be used"), "{requests}: {told:?}");
        assert_eq!(ended.json()["status"], "done");
    }
    // Nothing half is believed.
    let server = Server::start(root.path());
    let last = project(&server.remote());
    assert_eq!((run(&last).json()["status"].as_str(), unpushed(&last)), (Some("done"), 0));
    assert_eq!(statuses(&run(&project(&server.remote())).json()), ALL_FETCHED);
}

#[test]
fn a_server_that_is_silent_is_waited_for_once() {
    // Connections are taken by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = project(&s3::remote(silent.local_addr().unwrap().port()));
    let start = Instant::now();
    let ended = run(&one);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    assert_eq!((statuses(&ended.json()), warnings(&ended).len()), (ALL_DONE.into(), 1));

    #[cfg(unix)]
    {
        let push = command(&one, &["push", "pipelines/p.yaml"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let start = Instant::now();
        assert!(Command::new("kill").args(["-INT", &push.id().to_string()]).status().unwrap().success());
        let ended = Ended(push.wait_with_output().unwrap());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(ended.status(), 130, "{}", ended.stderr());
        assert!(ended.stderr().contains("pushing 4 results"), "{}", ended.stderr());
        assert_eq!(unpushed(&one), 4);
        // For what earlier runs left, a run in which all is cached does not wait long.
        let start = Instant::now();
        assert_eq!(statuses(&run(&one).json()), ALL_CACHED);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
}

#[test]
fn wrong_credentials_cost_a_warning_that_does_not_quote_them() {
    let root = bucket();
    let server = Server::start(root.path());
    let one = project(&server.remote());
    let mut command = command(&one, &["run", "pipelines/p.yaml", "--json"]);
    let ended = Ended(command.env("AWS_SECRET_ACCESS_KEY", "WRONG-SECRET").output().unwrap()).succeeded();
    let told = warnings(&ended);
    assert_eq!((statuses(&ended.json()), told.len()), (ALL_DONE.into(), 1));
    assert!(told[0].contains("access is denied; check the credentials in the environment"), "{told:?}");
    assert!(!ended.stderr().contains("WRONG-SECRET") && !ended.stdout().contains("WRONG-SECRET"));
    assert!(files(&root.path().join("bucket")).is_empty());
}

/// Puts `bytes` into the folder as an object, and returns its digest.
fn forge(folder: &Path, bytes: &[u8]) -> String {
    let digest = blake3::hash(bytes).to_hex().to_string();
    let path = place(&folder.join("v1/objects"), &digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    digest
}

#[test]
fn a_result_that_is_hostile_is_refused() {
    let shared = tempfile::tempdir().unwrap();
    let folder = shared.path().join("store");
    let remote = format!("remote: {:?}\n", folder.to_str().unwrap());
    let record = run(&project(&remote)).json();
    let path = |stage: &str| {
        let key = record["stages"][stage]["key"].as_str().unwrap();
        place(&folder.join("v1/results"), key).with_extension("json")
    };
    let judged = path("judged");
    let right: Value = serde_json::from_slice(&fs::read(&judged).unwrap()).unwrap();
    let listing = |paths: &[&str]| {
        let object = forge(&folder, b"x");
        let files: Vec<Value> = paths.iter().map(|path| json!({ "path": path, "digest": object, "size": 1 })).collect();
        let digest = forge(&folder, json!({ "files": files }).to_string().as_bytes());
        let mut result = right.clone();
        result["outputs"]["judgements"] = json!({ "digest": digest, "shape": "folder", "size": paths.len() });
        result
    };
    let with = |pointer: &str, value: Value| {
        let mut result = right.clone();
        *result.pointer_mut(pointer).unwrap() = value;
        result
    };
    let other: Value = serde_json::from_slice(&fs::read(path("chunks")).unwrap()).unwrap();
    let absolute = shared.path().join("absolute").to_string_lossy().into_owned();
    let cases = [
        ("it cannot be read", json!("<html>not found</html>")),
        ("it cannot be read", with("/outputs/judgements/digest", json!("../../../etc/passwd"))),
        ("what went into it gives another key", other),
        ("what went into it gives another key", with("/fingerprint/kind", json!("load"))),
        ("it has other outputs than the stage", with("/outputs", json!({}))),
        ("its words are none that a run writes", with("/outcome/summary", json!("\u{1b}]0;title\u{7}"))),
        ("its words are none that a run writes", with("/run", json!("../../elsewhere"))),
        ("is missing", with("/outputs/judgements/digest", json!("0".repeat(64)))),
        ("is no list of a folder's files", listing(&["../../../escaped"])),
        ("is no list of a folder's files", listing(&[&absolute])),
        ("is no list of a folder's files", listing(&["a", "a"])),
        ("is no list of a folder's files", listing(&["a", "a/b"])),
        ("is no list of a folder's files", with("/outputs/judgements/size", json!(u64::MAX))),
    ];
    for (expected, result) in cases {
        fs::write(&judged, serde_json::to_vec(&result).unwrap()).unwrap();
        let project = project(&remote);
        let ended = run(&project);
        let told = warnings(&ended);
        assert_eq!(told.len(), 1, "{expected}: {told:?}");
        assert!(told[0].contains(expected) && told[0].contains("is not used"), "{expected}: {told:?}");
        assert_eq!(statuses(&ended.json()), "chunks: fetched, docs: fetched, judged: done, triplets: fetched", "{expected}");
        assert!(!files(shared.path()).iter().any(|name| name.contains("escaped") || name.contains("absolute")));
    }
    // An object that does not end.
    let object = record["stages"]["chunks"]["outputs"]["chunks"]["digest"].as_str().unwrap();
    let object = place(&folder.join("v1/objects"), object);
    let bytes = fs::read(&object).unwrap();
    fs::write(&object, [bytes.as_slice(), b"more"].concat()).unwrap();
    let ended = run(&project(&remote));
    assert!(warnings(&ended)[0].contains("it is larger than"), "{:?}", warnings(&ended));
    // A remote of nonsense is left alone after a few tries.
    for stage in ["docs", "chunks", "judged", "triplets"] {
        fs::write(path(stage), "nonsense").unwrap();
    }
    let ended = run(&project(&remote));
    let told = warnings(&ended);
    assert_eq!((statuses(&ended.json()), told.len()), (ALL_DONE.into(), 3), "{told:?}");
    assert!(told[2].contains("nothing more is fetched in this run"), "{told:?}");
    assert_eq!(statuses(&run(&project(&remote)).json()), ALL_FETCHED);
}

#[test]
fn a_remote_that_is_wrong_in_the_file_is_pointed_at() {
    let cases = [
        "remote: 5",
        "remote: s3://KEY:SECRET@bucket/x",
        "remote: \"s3://${env.BUCKET}/x\"",
        "remote: { endpoint: https://x.example, pusch: false }",
        "remote: { url: s3://bucket, endpoint: http://x.example, push: no, region: [x] }",
        "remote: { url: ../shared, region: eu-central-1 }",
    ];
    let drawn: Vec<String> = cases
        .iter()
        .map(|remote| {
            let ended = Project::new(&format!("{remote}\n{LIGHT}")).retune(&["plan", "pipelines/p.yaml", "--json"]);
            assert_eq!(ended.status(), 2, "{remote}");
            let errors = ended.json()["errors"].as_array().unwrap().clone();
            let one = |e: &Value| format!("  {}:{} {}; {}\n", e["line"], e["column"], e["message"], e["help"]);
            format!("{remote}\n{}", errors.iter().map(one).collect::<String>())
        })
        .collect();
    insta::assert_snapshot!(drawn.concat(), @r#"
    remote: 5
      1:9 "`remote` must be a text or a mapping, not `5`"; "name a folder (`../shared-store`, `file:///…`) or a bucket (`s3://BUCKET/PREFIX`, `gs://…`, `az://…`)"
    remote: s3://KEY:SECRET@bucket/x
      1:9 "the remote holds more than a place"; "leave out what stands before `@` and after `?` or `#`; credentials come from the environment"
    remote: "s3://${env.BUCKET}/x"
      1:9 "`remote` takes no references"; "give it with `--remote` or the environment variable `RETUNE_REMOTE`"
    remote: { endpoint: https://x.example, pusch: false }
      1:1 "`remote` does not say where it is"; "add `url: s3://BUCKET/PREFIX`"
      1:40 "unknown key `pusch`"; "did you mean `push`?"
    remote: { url: s3://bucket, endpoint: http://x.example, push: no, region: [x] }
      1:39 "the `endpoint` is reached over plain HTTP"; "write `https://`, or add `allow_http: true` if everybody on the way may read and change what is shared"
      1:63 "`push` must be `true` or `false`, not a text"; null
      1:67 "`region` must be a text, not a list"; null
    remote: { url: ../shared, region: eu-central-1 }
      1:35 "only buckets of S3 have a `region`"; "remove it"
    "#);
    let project = Project::new(LIGHT);
    for (arguments, expected) in [
        (&["--set", "remote=s3://x"][..], "use `--remote URL` or `--no-remote`"),
        (&["--remote", "s3://KEY:SECRET@bucket"], "credentials come from the environment"),
        (&["--remote", "x", "--no-remote"], "cannot be used with"),
    ] {
        let ended = project.retune(&[&["run", "pipelines/p.yaml"], arguments].concat());
        assert!(ended.status() == 2 && ended.stderr().contains(expected), "{}", ended.stderr());
        assert!(!ended.stderr().contains("SECRET"), "{}", ended.stderr());
    }
}
