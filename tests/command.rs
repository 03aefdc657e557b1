//! `uses: command`: programs as stages.
#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{LIGHT, Project, reasons, statuses};
use serde_json::Value;

/// A pipeline whose last stage, `c`, is a command that takes the chunks as `rows`.
fn project(with: &str) -> Project {
    Project::new(&format!("{LIGHT}  c:\n    uses: command\n    inputs: {{ rows: chunks }}\n    with:\n{}", indented(with)))
}

/// The lines as a part of the stage's `with:`.
fn indented(with: &str) -> String {
    with.lines().map(|line| format!("      {line}\n")).collect()
}

fn error(record: &Value) -> &str {
    record["stages"]["c"]["error"].as_str().unwrap_or_else(|| panic!("no error: {record:#}"))
}

/// The record of a run that fails.
fn failing(project: &Project) -> Value {
    let ended = project.retune(&["run", "pipelines/p.yaml", "--json"]);
    assert_eq!(ended.status(), 1, "{}", ended.stderr());
    ended.json()
}

/// What is wrong with the pipeline.
fn refused(project: &Project) -> String {
    let ended = project.retune(&["plan", "pipelines/p.yaml"]);
    assert_eq!(ended.status(), 2, "{}", ended.stdout());
    ended.stderr()
}

fn artifact(project: &Project, name: &str) -> String {
    fs::read_to_string(project.runs().last().unwrap().join("artifacts").join(name)).unwrap()
}

fn log(project: &Project) -> String {
    let text = fs::read_to_string(project.runs().last().unwrap().join("logs/c.log")).unwrap();
    // Without the times.
    text.lines().map(|line| line.split_once(' ').map_or("", |(_, words)| words)).collect::<Vec<_>>().join("\n")
}

/// A process that no other test has.
fn is_running(marker: &str) -> bool {
    let is_it = |entry: std::io::Result<fs::DirEntry>| {
        let folder = entry.unwrap().path();
        let words = fs::read(folder.join("cmdline")).unwrap_or_default();
        let state = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(marker) && !state.contains(") Z ")
    };
    fs::read_dir("/proc").unwrap().any(is_it)
}

fn waited_for(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn typed_outputs_feed_other_stages() {
    let project = Project::new(
        r#"name: typed
stages:
  docs:
    uses: command
    with:
      run: [sh, ../scripts/docs.sh, "{outputs.documents}"]
      files: [../scripts/*.sh]
      outputs: { documents: documents, notes: { file: notes.txt } }
  chunks: { uses: chunk, inputs: { documents: docs }, with: { chunk_size: 24, chunk_overlap: 4 } }
  judged: { uses: judge, inputs: { chunks: chunks }, with: { queries: ../queries.jsonl } }
  triplets: { uses: mine, inputs: { judgements: judged }, with: { negatives: 1 } }
  both:
    uses: command
    inputs: { all: { mined: triplets, said: docs.notes }, one: judged }
    with:
      run: 'ls "$RETUNE_INPUT_ALL" > {outputs.list}; cat {inputs.all} > {outputs.text}; cat {inputs.one}/queries.jsonl >> {outputs.text}'
      outputs: { list: file, text: { file: text.txt, kind: file } }
  arguments:
    uses: command
    inputs: { all: [triplets, docs.notes] }
    with: { run: [sh, -c, 'out=$1; shift; for a; do echo "$${a##*/}"; done > "$out"', sh, "{outputs.o}", "--x={inputs.all}", 5], outputs: { o: file } }
"#,
    );
    let script = r#"echo '{"id": "a", "path": "a", "title": "T", "text": "hiding words. A volume keeps data. Too often: 429."}' > "$1"
echo "a note" > "$RETUNE_OUTPUT_NOTES"
"#;
    project.write("scripts/docs.sh", script);
    let queries = r#"{"_id": "q", "text": "which data", "keywords": ["volume"]}"#;
    project.write("queries.jsonl", queries);
    project.write("scripts/unrelated.txt", "x");
    let text =
        script.replace("hiding", "many words to make a second chunk of, since a negative must come from somewhere else; hiding");
    project.write("scripts/docs.sh", &text);
    let record = project.run(&[]);
    assert!(statuses(&record).split(", ").all(|s| s.ends_with(": done")), "{}", statuses(&record));
    assert_eq!(artifact(&project, "both/list"), "mined\nsaid\n");
    let joined = artifact(&project, "both/text.txt");
    assert!(joined.contains("anchor") && joined.contains("a note") && joined.contains("which data"), "{joined}");
    assert_eq!(artifact(&project, "arguments/o"), "docs.notes\ntriplets\n5\n");
    // The order of the list does not matter, and what a run does not change stays cached.
    let again = project.run(&[]);
    assert!(statuses(&again).split(", ").all(|s| s.ends_with(": cached")), "{}", statuses(&again));
    project.write("scripts/docs.sh", text.replace("a note", "another note"));
    let plan = project.retune(&["plan", "pipelines/p.yaml"]).succeeded().stdout();
    assert!(plan.lines().any(|l| l.starts_with("docs ") && l.ends_with("file `../scripts/docs.sh` changed")), "{plan}");
    let changed = project.run(&[]);
    assert_eq!(reasons(&changed, "docs"), "file `../scripts/docs.sh` changed");
    assert_eq!(
        statuses(&changed),
        "arguments: done, both: done, chunks: cached, docs: done, judged: cached, triplets: cached",
        "the documents are the same"
    );
}

#[test]
fn a_run_that_was_written_out_is_the_same_pipeline() {
    let project = project(
        "run: [sh, -c, 'cat \"$@\" > \"$RETUNE_OUTPUT_O\"', sh, \"{inputs.rows}\"]\noutputs: { o: file }\nenv: [HOME, { N: 1 }]",
    );
    project.run(&[]);
    let lock = project.runs().last().unwrap().join("pipeline.lock.yaml");
    fs::copy(lock, project.path("pipelines/p.yaml")).unwrap();
    assert!(statuses(&project.run(&[])).split(", ").all(|s| s.ends_with(": cached")));
}

#[test]
fn what_is_not_part_of_the_key() {
    let project = project("run: 'echo > {outputs.o}'\noutputs: { o: file }");
    project.run(&[]);
    let set = ["--set", "stages.c.with.timeout=1h", "--set", "stages.c.with.retries={ times: 3 }"];
    assert!(statuses(&project.run(&set)).contains("c: cached"));
    let set = ["--set", "stages.c.with.env=[{ A: b }]"];
    assert!(statuses(&project.run(&set)).contains("c: done"));
}

#[test]
fn only_the_environment_that_is_let_through_is_seen_and_its_values_are_not_written() {
    let project = project(
        "run: 'echo token $TOKEN; echo {\\\"summary\\\": \\\"token $TOKEN\\\"} > $RETUNE_OUTCOME; env | cut -d= -f1 | sort > {outputs.names}; echo $SET >> {outputs.names}'
outputs: { names: file }
env: [TOKEN, MISSING, { SET: 5 }]",
    );
    let run = |token: &str| {
        let mut command = project.command(&["run", "pipelines/p.yaml", "--json"]);
        command.env("TOKEN", token).env("HIDDEN", "x").env_remove("TMPDIR");
        common::Ended(command.output().unwrap()).succeeded()
    };
    let first = run("secret-0123456789");
    let names = artifact(&project, "c/names");
    for name in ["TOKEN", "SET", "PATH", "HOME", "RETUNE_INPUT_ROWS", "RETUNE_OUTPUT_NAMES", "RETUNE_OUTCOME", "RETUNE_SCRATCH"] {
        assert!(names.lines().any(|line| line == name), "{name}: {names}");
    }
    assert!(!names.contains("HIDDEN") && !names.contains("MISSING") && !names.contains("CARGO"), "{names}");
    assert_eq!(names.lines().last(), Some("5"));
    assert_eq!(first.json()["stages"]["c"]["outcome"]["summary"], "token ***");
    assert!(log(&project).contains("token ***"), "{}", log(&project));
    assert!(!first.stderr().contains("secret-01"));
    for file in common::files(&project.path("")) {
        assert!(!fs::read(project.path(&file)).unwrap().windows(9).any(|w| w == b"secret-01"), "{file}");
    }
    // A key may have several lines, of which the log has one at a time.
    let mut command = project.command(&[
        "run",
        "pipelines/p.yaml",
        "--json",
        "--force",
        "c",
        "--set",
        "stages.c.with.run=printenv TOKEN; echo > {outputs.names}",
    ]);
    common::Ended(command.env("TOKEN", "-----BEGIN-----\nsecret-lines\n").output().unwrap()).succeeded();
    assert!(log(&project).contains("\n***\n***"), "{}", log(&project));
    // Its value is not part of the key.
    assert!(statuses(&run("secret-other").json()).contains("c: cached"));
}

#[test]
fn a_program_that_fails_says_how() {
    let project = project("run: [sh, ../fail.sh]\noutputs: { o: file }");
    project.write("fail.sh", "echo out; printf 'was\\rovr\\033[31mred\\033[0m\\n' >&2; echo > \"$RETUNE_OUTPUT_O\"; exit 3");
    let record = failing(&project);
    insta::assert_snapshot!(error(&record), @"
    `sh ../fail.sh` ended with exit status 3; its last lines:
        out
        ovrred
    ");
    assert!(log(&project).contains("\nout\novrred\n"), "{}", log(&project));
    project.write("fail.sh", "kill -9 $$");
    insta::assert_snapshot!(error(&failing(&project)), @"`sh ../fail.sh` was ended by signal 9 (SIGKILL, perhaps for want of memory); it wrote nothing");
    // A long line and bytes that are no text end nothing.
    project.write("fail.sh", "head -c 100000 /dev/zero | tr '\\0' x; printf '\\377\\n'; echo > \"$RETUNE_OUTPUT_O\"");
    let record = project.run(&[]);
    insta::assert_snapshot!(record["stages"]["c"]["outcome"]["warnings"][0].as_str().unwrap(), @"not in `files`, so that a change will not run the stage again: `../fail.sh`");
    assert!(log(&project).lines().all(|line| line.len() <= 8192) && log(&project).ends_with('\u{fffd}'));
}

#[test]
fn outputs_that_are_not_what_they_must_be_are_refused() {
    let message = |with: &str| {
        let project = project(with);
        let message = error(&failing(&project)).to_owned();
        let written =
            message.find(".retune/scratch/").map(|at| message[at..].split('/').skip(2).take(2).collect::<Vec<_>>().join("/"));
        let message = message.replace(&written.unwrap_or_else(|| "\0".into()), "STAGE");
        project.anonymous(&message)
    };
    insta::assert_snapshot!(message("run: 'echo x > $(dirname {outputs.table})/tabel.csv'\noutputs: { table: { file: table.csv } }"), @"`sh` ended well, but it wrote no `table`: there is nothing at `PROJECT/.retune/scratch/STAGE/own/0/outputs/table.csv`, but there is `tabel.csv`");
    insta::assert_snapshot!(message("run: 'head -1 {inputs.rows} > {outputs.out}; echo {} >> {outputs.out}'\noutputs: { out: chunks }"), @"`sh` ended well, but the output `out` is no chunks: out.jsonl:2: missing field `id` at column 2");
    insta::assert_snapshot!(message("run: 'mkdir {outputs.j}'\noutputs: { j: judgements }"), @"`sh` ended well, but the output `j` is no judgements: failed to open j/corpus.jsonl: No such file or directory (os error 2)");
    insta::assert_snapshot!(message("run: 'echo a b c > {outputs.r}'\noutputs: { r: ranking }"), @"`sh` ended well, but the output `r` is no ranking: r.trec:1: expected `query Q0 passage rank score tag`, found 3 fields");
    insta::assert_snapshot!(message("run: 'echo x > {outputs.e}'\noutputs: { e: embeddings }"), @"`sh` ended well, but the output `e` is no embeddings: it is no safetensors file: header too small");
    insta::assert_snapshot!(message("run: 'ln -s /etc/passwd {outputs.o}'\noutputs: { o: file }"), @"`sh` ended well, but the output `o` is a link or a device; write a file or a folder to `PROJECT/.retune/scratch/STAGE/own/0/outputs/o`");
    insta::assert_snapshot!(message("run: 'echo {\\\"metric\\\": 1} > $RETUNE_OUTCOME'"), @"`sh` ended well, but the file that `RETUNE_OUTCOME` names is no outcome: field `metric`: unknown field `metric`, expected one of `metrics`, `summary`, `warnings` at line 1 column 9");
    insta::assert_snapshot!(message("run: [no-such-program]"), @"`no-such-program` cannot be started; install it, or correct `run`: No such file or directory (os error 2)");
    insta::assert_snapshot!(message("run: pwd\nworkdir: nowhere"), @"`workdir` must be a folder, and there is none at `PROJECT/pipelines/nowhere`");
}

#[test]
fn figures_are_told_and_compared() {
    let metrics = r#"{"convention": "trec", "similarity": "cosine", "queries": 1, "passages": 1, "means": {"ndcg@10": 0.5}, "per_query": {"q": {"ndcg@10": 0.5}}}"#;
    let project = project(&format!(
        "run: |\n  mkdir {{outputs.m}}; echo '{metrics}' > {{outputs.m}}/metrics.json\n  printf '{{\"metrics\": {{\"lines\": 3}}, \"summary\": \"3 lines\", \"warnings\": [\"few\"]}}' > \"$RETUNE_OUTCOME\"\noutputs: {{ m: metrics }}"
    ));
    let record = project.run(&[]);
    let outcome = &record["stages"]["c"]["outcome"];
    assert_eq!((&outcome["metrics"]["lines"], &outcome["metrics"]["ndcg@10"]), (&Value::from(3.0), &Value::from(0.5)));
    assert_eq!((outcome["summary"].as_str(), outcome["warnings"][0].as_str()), (Some("3 lines"), Some("few")));
    let metrics: Value = serde_json::from_slice(&fs::read(project.runs()[0].join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["c.lines"], 3.0);
}

#[test]
fn a_time_limit_ends_grandchildren_too() {
    let marker = format!("31{}", std::process::id());
    let project = project(&format!("run: 'sh -c \"sleep {marker}; true\" & sleep {marker}; true'\ntimeout: 500ms"));
    let started = Instant::now();
    let record = failing(&project);
    insta::assert_snapshot!(error(&record), @"`sh` ran longer than `timeout: 500ms` and was ended; it wrote nothing");
    assert!(started.elapsed() < Duration::from_secs(30));
    waited_for("a grandchild is left", || !is_running(&marker));
}

#[test]
fn a_program_that_does_not_want_to_end_is_killed_and_what_one_leaves_is_too() {
    let marker = format!("32{}", std::process::id());
    let project = project(&format!("run: 'trap \"\" TERM; sleep {marker}; sleep {marker}'\ntimeout: 200ms"));
    let started = Instant::now();
    failing(&project);
    assert!(started.elapsed() >= Duration::from_secs(5), "it is given time to end by itself");
    waited_for("it is left", || !is_running(&marker));
    let set = [format!("stages.c.with.run=sleep {marker} & echo left"), "stages.c.with.timeout=1h".to_owned()];
    let record = project.run(&["--set", &set[0], "--set", &set[1]]);
    assert!(record["stages"]["c"]["seconds"].as_f64().unwrap() < 2.0, "what is left is not waited for");
    waited_for("it is left", || !is_running(&marker));
}

#[test]
fn a_program_that_fails_is_started_again_in_folders_of_its_own() {
    let project = project(
        "run: [sh, ../flaky.sh]
files: [../flaky.sh]
outputs: { o: file }
retries: { times: 2, wait: 100ms }",
    );
    project.write(
        "flaky.sh",
        "echo x >> ../tries; ls \"$RETUNE_SCRATCH\" \"$(dirname \"$RETUNE_OUTPUT_O\")\" >> ../seen
echo rest > \"$RETUNE_SCRATCH/rest\"; echo ok > \"$RETUNE_OUTPUT_O\"; test $(wc -l < ../tries) -ge 3",
    );
    assert!(statuses(&project.run(&[])).contains("c: done"));
    let log = log(&project);
    let warning = |attempt, wait| {
        format!("warning: attempt {attempt} of 3 failed: `sh ../flaky.sh` ended with exit status 1; the next one is in {wait}ms")
    };
    assert!(log.contains(&warning(1, 100)) && log.contains(&warning(2, 200)), "{log}");
    let seen = fs::read_to_string(project.path("seen")).unwrap();
    assert!(!seen.contains("rest") && !seen.lines().any(|line| line == "o"), "{seen}");
    fs::remove_file(project.path("tries")).unwrap();
    project.write("flaky.sh", "echo x >> ../tries; exit 1");
    failing(&project);
    assert_eq!(fs::read_to_string(project.path("tries")).unwrap().lines().count(), 3);
}

#[test]
fn an_interrupted_run_leaves_no_process() {
    for signals in [1, 2] {
        let marker = format!("33{}{signals}", std::process::id());
        // The second signal comes while the program still refuses to end.
        let trap = if signals == 2 { "trap \"\" TERM INT; " } else { "" };
        let project = project(&format!("run: '{trap}sh -c \"sleep {marker}; true\" & sleep {marker}; sleep {marker}'"));
        let mut command = project.command(&["run", "pipelines/p.yaml", "--json"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        waited_for("it did not start", || is_running(&format!("sleep\0{marker}")));
        for _ in 0..signals {
            assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
            std::thread::sleep(Duration::from_millis(500));
        }
        let ended = common::Ended(child.wait_with_output().unwrap());
        assert_eq!(ended.status(), 130, "{}", ended.stderr());
        if signals == 1 {
            assert_eq!(ended.json()["stages"]["c"]["status"], "interrupted");
        }
        waited_for("it is left", || !is_running(&marker));
    }
}

#[test]
fn a_program_that_writes_into_its_input_is_refused() {
    let project = project("run: 'chmod u+w {inputs.rows}; echo x >> {inputs.rows}'");
    insta::assert_snapshot!(error(&failing(&project)), @"the program changed its input `rows`, and may have damaged the store; let it copy what it changes, and run the stage that yields `rows` again with `--force`");
    let record = project.run(&["--force", "chunks", "--set", "stages.c.with.run=cat {inputs.rows}"]);
    let mode = fs::metadata(project.runs()[1].join("artifacts/chunks/chunks.jsonl")).unwrap().permissions().mode();
    assert_eq!((mode & 0o222, statuses(&record).contains("c: done")), (0, true));
}

#[test]
fn a_file_that_a_program_links_stays_its_owners() {
    let project = project(
        "run: 'ln ../mine.txt {outputs.o}; mkdir {outputs.f}; ln ../mine.txt {outputs.f}/x'\noutputs: { o: file, f: file }",
    );
    project.write("mine.txt", "one");
    project.run(&[]);
    assert_eq!((artifact(&project, "c/o"), artifact(&project, "c/f/x")), ("one".to_owned(), "one".to_owned()));
    project.write("mine.txt", "two");
    assert_eq!((artifact(&project, "c/o"), artifact(&project, "c/f/x")), ("one".to_owned(), "one".to_owned()));
    assert!(!fs::metadata(project.path("mine.txt")).unwrap().permissions().readonly());
}

#[test]
fn definitions_can_hold_commands() {
    let project = Project::new(&format!(
        "{LIGHT}  c: {{ uses: ../stages/count.yaml, inputs: {{ rows: chunks }}, with: {{ what: -l }} }}\n"
    ));
    project.write(
        "stages/count.yaml",
        "inputs: { rows: chunks }
params: { what: {} }
outputs: { count: count.n }
stages:
  count:
    uses: command
    inputs: { rows: inputs.rows, all: [inputs.rows] }
    with: { run: 'wc ${params.what} < {inputs.rows} > {outputs.n}; ls \"$RETUNE_INPUT_ALL\" >> {outputs.n}', outputs: { n: file } }
",
    );
    project.run(&[]);
    let count = artifact(&project, "c/count/n");
    assert!(count.ends_with("\nrows\n") && count.trim().starts_with(|c: char| c.is_ascii_digit()), "{count}");
}

#[test]
fn a_plan_runs_nothing() {
    let project = project("run: 'touch ../ran'");
    project.retune(&["plan", "pipelines/p.yaml"]).succeeded();
    assert!(!Path::new(&project.path("ran")).exists());
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let message = |with: &str| {
        let project = project(with);
        let message = refused(&project);
        assert!(project.runs().is_empty());
        message
    };
    insta::assert_snapshot!(message("run: [cat, \"--in={inputs.row}\"]"), @r#"
     × `{inputs.row}` in `run[1]` of stage `c` names nothing
       ╭─[pipelines/p.yaml:11:24]
    10 │     with:
    11 │       run: [cat, "--in={inputs.row}"]
       ·                        ────────────
       ╰────
     help: did you mean `{inputs.rows}`?
    "#);
    insta::assert_snapshot!(message("run: |\n  set -e\n  cat {inputs.rows} > {output.table}\noutputs: { table: file }"), @"
     × `{output.table}` in `run` of stage `c` names nothing
       ╭─[pipelines/p.yaml:13:29]
    12 │         set -e
    13 │         cat {inputs.rows} > {output.table}
       ·                             ──────────────
    14 │       outputs: { table: file }
       ╰────
     help: did you mean `{outputs.table}`?
    ");
    insta::assert_snapshot!(message("run: 'cat \"{inputs.rows}\"'"), @r#"
     × a placeholder is a quoted word already; remove the quotes around it, or use its variable, for
     │ example "$RETUNE_INPUT_NAME"
       ╭─[pipelines/p.yaml:11:12]
    10 │     with:
    11 │       run: 'cat "{inputs.rows}"'
       ·            ─────────────────────
       ╰────
    "#);
    insta::assert_snapshot!(message("run: [cat]\noutputs: { table: { file: ../table.csv } }"), @"
     × `../table.csv` cannot be the file of an output; write a name without folders, such as
     │ `table.csv`
       ╭─[pipelines/p.yaml:12:33]
    11 │       run: [cat]
    12 │       outputs: { table: { file: ../table.csv } }
       ·                                 ────────────
       ╰────
    ");
    insta::assert_snapshot!(message("run: [cat]\noutputs: { table: triplet }"), @"
     × `triplet` is no value of `outputs.table`
       ╭─[pipelines/p.yaml:12:25]
    11 │       run: [cat]
    12 │       outputs: { table: triplet }
       ·                         ───────
       ╰────
     help: did you mean `triplets`?
    ");
    insta::assert_snapshot!(message("run: [cat]\noutputs: { table: \"${params.x}\" }"), @r#"
     × what a stage yields must be known before references are resolved
       ╭─[pipelines/p.yaml:12:26]
    11 │       run: [cat]
    12 │       outputs: { table: "${params.x}" }
       ·                          ──
       ╰────
     help: write it without `${…}`

     × there is no parameter `x`
       ╭─[pipelines/p.yaml:12:26]
    11 │       run: [cat]
    12 │       outputs: { table: "${params.x}" }
       ·                          ───────────
       ╰────
     help: there are no parameters
    "#);
    insta::assert_snapshot!(message("run: [cat]\noutputs: { a-b: file, a_b: file }"), @"
     × `a-b` and `a_b` would both be `A_B` in the environment; rename one of them
       ╭─[pipelines/p.yaml:12:7]
    11 │       run: [cat]
    12 │       outputs: { a-b: file, a_b: file }
       ·       ───────
       ╰────
    ");
    insta::assert_snapshot!(message("run: [cat]\noutputs: { a: { file: X }, b: { file: x } }"), @"
     × the outputs `a` and `b` have the same file `x`; rename one of them
       ╭─[pipelines/p.yaml:12:34]
    11 │       run: [cat]
    12 │       outputs: { a: { file: X }, b: { file: x } }
       ·                                  ─
       ╰────
    ");
    insta::assert_snapshot!(message("run: []"), @"
     × there is no program to run; write `run: [PROGRAM, ARGUMENT, …]`, or a text for `sh`
       ╭─[pipelines/p.yaml:11:7]
    10 │     with:
    11 │       run: []
       ·       ───
       ╰────
    ");
    insta::assert_snapshot!(message("run: [cat, [x]]\ntimeout: soon"), @"
     × `run[1]` must be a text, not a list
       ╭─[pipelines/p.yaml:11:18]
    10 │     with:
    11 │       run: [cat, [x]]
       ·                  ─
    12 │       timeout: soon
       ╰────

     × `soon` is no span of time; write for example `90s`, `10m` or `2h 30m`, at most a year
       ╭─[pipelines/p.yaml:12:16]
    11 │       run: [cat, [x]]
    12 │       timeout: soon
       ·                ────
       ╰────
    ");
    insta::assert_snapshot!(message("run: [cat]\nenv: [A=b, { RETUNE_X: 1 }]"), @"
     × `A=b` cannot be the name of an environment variable; use letters, digits and `_`
       ╭─[pipelines/p.yaml:12:7]
    11 │       run: [cat]
    12 │       env: [A=b, { RETUNE_X: 1 }]
       ·       ───
       ╰────
    ");
    insta::assert_snapshot!(message("run: [cat]\nfiles: [../nowhere/*.py]"), @"error: stage `c`: `../nowhere/*.py` in `files` cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(message("run: [cat]\nfiles: ['../docs/*.py']"), @"error: stage `c`: `../docs/*.py` in `files` means no file; correct it, or remove it");
}

#[test]
fn edges_of_commands_are_checked() {
    let project = |tail: &str| {
        Project::new(&format!(
            "{LIGHT}  c:\n    uses: command\n    with: {{ run: [cat], outputs: {{ a: triplets, b: file }} }}\n{tail}"
        ))
    };
    insta::assert_snapshot!(refused(&project("  d: { uses: chunk, inputs: { documents: c } }\n")), @"
     × input `documents` wants documents, but stage `c` yields triplets and file
       ╭─[pipelines/p.yaml:10:42]
     9 │     with: { run: [cat], outputs: { a: triplets, b: file } }
    10 │   d: { uses: chunk, inputs: { documents: c } }
       ·                                          ─
       ╰────
     help: documents can come from `docs`
    ");
    insta::assert_snapshot!(refused(&project("  d: { uses: command, inputs: { x: c }, with: { run: [cat] } }\n")), @"
     × stage `c` has several outputs
       ╭─[pipelines/p.yaml:10:36]
     9 │     with: { run: [cat], outputs: { a: triplets, b: file } }
    10 │   d: { uses: command, inputs: { x: c }, with: { run: [cat] } }
       ·                                    ─
       ╰────
     help: name one: `c.a` and `c.b`
    ");
    insta::assert_snapshot!(refused(&project("  d: { uses: command, inputs: { x: [c.a, c.d], 'y z': c.a }, with: { run: [cat] } }\n")), @"
     × stage `c` has no output `d`
       ╭─[pipelines/p.yaml:10:42]
     9 │     with: { run: [cat], outputs: { a: triplets, b: file } }
    10 │   d: { uses: command, inputs: { x: [c.a, c.d], 'y z': c.a }, with: { run: [cat] } }
       ·                                          ───
       ╰────
     help: the outputs of `command` are `a` and `b`

     × `y z` cannot be an input's name
       ╭─[pipelines/p.yaml:10:48]
     9 │     with: { run: [cat], outputs: { a: triplets, b: file } }
    10 │   d: { uses: command, inputs: { x: [c.a, c.d], 'y z': c.a }, with: { run: [cat] } }
       ·                                                ─────
       ╰────
     help: use letters, digits, `_` and `-`, at most 100
    ");
}
