//! `cargo bench --bench pipelines [-- --no-dvc]`: what the runner itself costs, beside DVC on the same machine: trivial stages for the
//! first time and again, and planning a large pipeline.
//!
//! Every stage copies one small file of its own with `cp`, which a shell starts. DVC is installed into `target/bench-tools` with the system's Python.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Arguments, Cost, cost, install, megabytes, scratch, table, time, tools};

/// Nodes of the pipeline that is planned.
const LARGE: usize = 5000;

fn main() {
    let arguments = Arguments::read(&["--no-dvc"]);
    let dvc = if arguments.has("--no-dvc") { None } else { Dvc::find() };
    let mut rows = Vec::new();
    for (count, repeat) in [(100, 11), (1000, 7)] {
        let (retune, peer) = (Retune::new(count), dvc.as_ref().map(|dvc| Project::dvc(dvc, count)));
        eprintln!("{count} stages for the first time …");
        let first = cost(repeat.min(5), || retune.forget(), || retune.command("run"));
        // Of 1,000 stages it takes DVC more than five minutes.
        let first_peer = peer.as_ref().filter(|_| count == 100);
        let first_peer = first_peer.and_then(|peer| cost(1, || peer.forget(), || peer.command("repro")));
        let wanted = if count == 100 { "500 ms" } else { "" };
        rows.push(row(&format!("{count} stages, first run"), first, first_peer, wanted));
        eprintln!("{count} stages again …");
        let again = cost(repeat, || (), || retune.command("run"));
        peer.iter().for_each(Project::commit);
        let again_peer = peer.as_ref().and_then(|peer| cost(3, || (), || peer.command("repro")));
        let wanted = if count == 100 { "30 ms" } else { "150 ms" };
        rows.push(row(&format!("{count} stages, nothing to do"), again, again_peer, wanted));
    }
    eprintln!("planning {LARGE} nodes …");
    let large = Retune::matrix(LARGE);
    let new = cost(7, || (), || large.command("plan"));
    rows.push(row(&format!("plan of {LARGE} nodes, all new"), new, None, "500 ms, 200 MB"));
    large.run();
    let cached = cost(7, || (), || large.command("plan"));
    rows.push(row(&format!("plan of {LARGE} nodes, all cached"), cached, None, "500 ms, 200 MB"));
    println!();
    table(
        &["median wall time of the process", "retune", "range", "memory", "DVC", "memory", "DVC / retune", "wanted below"],
        &rows,
    );
    if let Some(dvc) = &dvc {
        println!(
            "\nDVC {}, without a source code manager; its times are of 3 runs, of 1 for the first run, which of 1,000 stages takes it more than five minutes",
            dvc.version()
        );
    }
}

fn row(what: &str, retune: Option<Cost>, dvc: Option<Cost>, wanted: &str) -> Vec<String> {
    let seconds = |cost: Option<Cost>| cost.map_or_else(|| "–".into(), |cost| time(cost.seconds));
    let range = retune.map_or_else(String::new, |cost| format!("{} … {}", time(cost.range.0), time(cost.range.1)));
    let ratio = retune.zip(dvc).map_or_else(|| "–".into(), |(retune, dvc)| format!("{:.0} ×", dvc.seconds / retune.seconds));
    vec![what.into(), seconds(retune), range, megabytes(retune), seconds(dvc), megabytes(dvc), ratio, wanted.into()]
}

/// A project of retune's.
struct Retune {
    folder: tempfile::TempDir,
}

impl Retune {
    /// With a stage for each of `count` files.
    fn new(count: usize) -> Self {
        let folder = scratch();
        inputs(folder.path(), count);
        let mut pipeline = String::from("name: bench\nstages:\n");
        for i in 0..count {
            let run = format!("cp in/{i}.txt {{outputs.copy}}");
            let with = format!("{{ run: \"{run}\", files: [in/{i}.txt], outputs: {{ copy: {{ file: copy.txt }} }} }}");
            let _ = writeln!(pipeline, "  s{i}: {{ uses: command, with: {with} }}");
        }
        fs::write(folder.path().join("pipeline.yaml"), pipeline).expect("target/ can be written");
        Retune { folder }
    }

    /// With one file and `count` nodes, all but the first of which differ in a parameter.
    fn matrix(count: usize) -> Self {
        let folder = scratch();
        inputs(folder.path(), 1);
        let mut pipeline = String::from("name: bench\nstages:\n  s0: { uses: load, with: { path: in/0.txt } }\n");
        for i in 1..count {
            let with = format!("{{ chunk_size: {}, chunk_overlap: 2 }}", 16 + i);
            let _ = writeln!(pipeline, "  s{i}: {{ uses: chunk, inputs: {{ documents: s0 }}, with: {with} }}");
        }
        fs::write(folder.path().join("pipeline.yaml"), pipeline).expect("target/ can be written");
        Retune { folder }
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_retune"));
        let folder = self.folder.path();
        command.current_dir(folder).args([what, "pipeline.yaml", "--store", ".retune", "--runs", "runs"]);
        command
    }

    fn run(&self) {
        let _ = cost(1, || (), || self.command("run"));
    }

    fn forget(&self) {
        for folder in [".retune", "runs"] {
            let _ = fs::remove_dir_all(self.folder.path().join(folder));
        }
    }
}

/// So many small files in `in/`, old enough for both programs to trust their times.
fn inputs(folder: &Path, count: usize) {
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::create_dir(folder.join("in")).expect("target/ can be written");
    for i in 0..count {
        let path = folder.join(format!("in/{i}.txt"));
        fs::write(&path, format!("text {i}\n")).expect("target/ can be written");
        let file = fs::File::options().write(true).open(&path).expect("it was just written");
        file.set_modified(old).expect("its time can be set");
    }
}

/// The program `dvc` in an environment of its own.
struct Dvc(PathBuf);

impl Dvc {
    fn find() -> Option<Self> {
        let environment = tools().join("dvc");
        let program = environment.join("bin/dvc");
        let pip = environment.join("bin/pip");
        let there = program.exists()
            || install("Python's venv", Command::new("python3").args(["-m", "venv"]).arg(&environment))
                && install("DVC", Command::new(pip).args(["install", "--quiet", "dvc"]));
        there.then_some(Dvc(program))
    }

    fn version(&self) -> String {
        let output = Command::new(&self.0).arg("--version").output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.current_dir(folder).env("DVC_NO_ANALYTICS", "1");
        command
    }
}

/// A project of DVC's.
struct Project<'a> {
    dvc: &'a Dvc,
    folder: tempfile::TempDir,
}

impl<'a> Project<'a> {
    fn dvc(dvc: &'a Dvc, count: usize) -> Self {
        let folder = scratch();
        inputs(folder.path(), count);
        let mut stages = String::from("stages:\n");
        for i in 0..count {
            let _ =
                writeln!(stages, "  s{i}:\n    cmd: cp in/{i}.txt out/{i}.txt\n    deps: [in/{i}.txt]\n    outs: [out/{i}.txt]");
        }
        fs::write(folder.path().join("dvc.yaml"), stages).expect("target/ can be written");
        Project { dvc, folder }
    }

    fn command(&self, what: &str) -> Command {
        let mut command = self.dvc.command(self.folder.path());
        command.args([what, "--quiet"]);
        command
    }

    /// Puts everything into the state after a run, without running.
    fn commit(&self) {
        self.forget();
        for entry in fs::read_dir(self.folder.path().join("in")).into_iter().flatten().flatten() {
            let _ = fs::copy(entry.path(), self.folder.path().join("out").join(entry.file_name()));
        }
        let made = self.dvc.command(self.folder.path()).args(["commit", "--force", "--quiet"]).status();
        assert!(made.is_ok_and(|status| status.success()), "`dvc commit` failed");
    }

    fn forget(&self) {
        for name in [".dvc", "out"] {
            let _ = fs::remove_dir_all(self.folder.path().join(name));
        }
        let _ = fs::remove_file(self.folder.path().join("dvc.lock"));
        fs::create_dir(self.folder.path().join("out")).expect("target/ can be written");
        let made = self.dvc.command(self.folder.path()).args(["init", "--no-scm", "--quiet"]).status();
        assert!(made.is_ok_and(|status| status.success()), "`dvc init` failed");
    }
}
