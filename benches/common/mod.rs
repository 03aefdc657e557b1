//! What the benchmarks share: measuring programs, tools of others, the table.
#![allow(dead_code, reason = "each benchmark uses a part of this")]

pub mod contender;
pub mod peers;
pub mod profile;
pub mod texts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer is stopped.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The arguments after `cargo bench --bench NAME --`.
pub struct Arguments(Vec<String>);

impl Arguments {
    pub fn read(known: &[&str]) -> Self {
        // Cargo adds `--bench`.
        let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
        if let Some(unknown) = given.iter().find(|argument| !known.contains(&argument.as_str())) {
            eprintln!("unknown argument `{unknown}`; the arguments are {}", known.join(", "));
            std::process::exit(2);
        }
        Arguments(given)
    }

    pub fn has(&self, argument: &str) -> bool {
        self.0.iter().any(|given| given == argument)
    }
}

/// What running a program took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Median, in seconds, of the whole process.
    pub seconds: f64,
    /// Fastest and slowest.
    pub range: (f64, f64),
    /// The largest memory of the process, in bytes, where the system tells.
    pub memory: Option<u64>,
}

/// Runs a program `times` times, each after `before`. `None` when it took longer than [`PATIENCE`].
pub fn cost(times: usize, mut before: impl FnMut(), command: impl Fn() -> Command) -> Option<Cost> {
    let mut all = Vec::new();
    let mut memory = None;
    for _ in 0..times.max(1) {
        before();
        let (seconds, peak) = run(command())?;
        all.push(seconds);
        memory = memory.max(peak);
    }
    Some(Cost { memory, ..summary(all) })
}

/// Median and range of what the same work took.
pub fn summary(mut seconds: Vec<f64>) -> Cost {
    seconds.sort_by(f64::total_cmp);
    Cost { seconds: seconds[seconds.len() / 2], range: (seconds[0], seconds[seconds.len() - 1]), memory: None }
}

/// Runs a program to its end; seconds and peak memory. It must succeed.
fn run(mut command: Command) -> Option<(f64, Option<u64>)> {
    let began = Instant::now();
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the program starts");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    // Read meanwhile, or a full pipe would stop the program.
    let mut stderr = child.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        text
    });
    let mut peak = None;
    // The system keeps the peak as long as the process is there.
    let ended = loop {
        peak = peak.max(high_water(&status));
        if let Some(ended) = child.try_wait().expect("it can be waited for") {
            break ended;
        }
        if began.elapsed() > PATIENCE {
            let _ = (child.kill(), child.wait());
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    let seconds = began.elapsed().as_secs_f64();
    let said = reader.join().unwrap_or_default();
    assert!(ended.success(), "{command:?} failed:\n{said}");
    Some((seconds, peak))
}

fn high_water(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// A folder for the tools of others, below `target/`.
pub fn tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-tools")
}

/// An empty folder below `target/`; removed when the value is dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp can be written")
}

/// Runs what installs a tool; whether it went well.
pub fn install(what: &str, command: &mut Command) -> bool {
    eprintln!("installing {what} below target/ …");
    let output = command.stdin(Stdio::null()).output();
    let fine = output.as_ref().is_ok_and(|output| output.status.success());
    if !fine {
        let said = output.map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_else(|e| e.to_string());
        eprintln!("{what} cannot be installed:\n{said}");
    }
    fine
}

/// `1.23 s`, `45.6 ms`.
pub fn time(seconds: f64) -> String {
    if seconds < 0.9995 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// `12 MB`.
pub fn megabytes(cost: Option<Cost>) -> String {
    cost.and_then(|cost| cost.memory).map_or_else(|| "–".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6))
}

/// Prints rows below their headings, the first column to the left.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let headings: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&headings).chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    for row in &all {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(width(column) - cell.chars().count());
            if column == 0 { format!("{cell}{space}") } else { format!("{space}{cell}") }
        });
        println!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
