//! Programs that do the same work in turns, each in a process of its own: a line on their standard input asks for a turn, a line of
//! JSON on their standard output tells what it took. In turns, because what else a shared machine does then slows all of them alike.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Cost, high_water, megabytes, summary, time};

/// What a turn took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    pub seconds: f64,
    /// Of a training step.
    #[serde(default)]
    pub loss: Option<f64>,
    /// What the process had of all processors meanwhile, in seconds, where the system tells.
    #[serde(skip)]
    pub processor: Option<f64>,
}

/// A program that waits for its turn.
pub struct Contender {
    pub name: String,
    pub turns: Vec<Turn>,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it writes to its standard error.
    said: PathBuf,
}

impl Contender {
    /// Starts a program; its messages go into `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let said = folder.join(format!("{name}.log"));
        let log = File::create(&said).expect("target/ can be written");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the program starts");
        let stdin = child.stdin.take().expect("it is piped");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut contender = Contender { name: name.to_owned(), turns: Vec::new(), child, stdin, lines, said };
        let ready = contender.line();
        assert_eq!(ready, "ready", "`{name}` did not say that it is ready");
        contender
    }

    /// Asks for a turn and waits for its end.
    pub fn turn(&mut self) {
        let before = self.processor();
        let asked = self.stdin.write_all(b"\n").and_then(|()| self.stdin.flush());
        let line = if asked.is_ok() { self.line() } else { self.fail() };
        let mut turn: Turn = serde_json::from_str(&line).unwrap_or_else(|e| panic!("`{}` said `{line}`: {e}", self.name));
        turn.processor = self.processor().zip(before).map(|(after, before)| after - before);
        self.turns.push(turn);
    }

    fn line(&mut self) -> String {
        match self.lines.next() {
            Some(Ok(line)) => line,
            _ => self.fail(),
        }
    }

    fn fail(&mut self) -> ! {
        let said = fs::read_to_string(&self.said).unwrap_or_default();
        panic!("`{}` ended too early:\n{said}", self.name)
    }

    /// The largest memory of the process so far, in bytes, where the system tells.
    pub fn memory(&self) -> Option<u64> {
        high_water(&PathBuf::from(format!("/proc/{}/status", self.child.id())))
    }

    /// What the process has had of all processors so far, in seconds, where the system tells.
    fn processor(&self) -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // After the name, which ends with the last bracket, `utime` and `stime` are the 12th and 13th field, in hundredths of a second.
        let ticks: Vec<f64> = text.rsplit(')').next()?.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
        (ticks.len() == 2).then(|| ticks.iter().sum::<f64>() / 100.0)
    }

    /// Median, fastest and slowest turn in seconds, without the first `warm_up`.
    pub fn seconds(&self, warm_up: usize) -> Cost {
        let cost = summary(self.turns.iter().skip(warm_up).map(|turn| turn.seconds).collect());
        Cost { memory: self.memory(), ..cost }
    }

    /// The cells of a table that tell what a turn took: median, range, processor time, how much faster it was than the same turns of
    /// each of `peers` (the median), memory.
    pub fn cells(&self, warm_up: usize, peers: &[Option<&Contender>]) -> Vec<String> {
        let cost = self.seconds(warm_up);
        let processor: Option<Vec<f64>> = self.turns.iter().skip(warm_up).map(|turn| turn.processor).collect();
        let ratio = |peer: &Contender| {
            let turns = peer.turns.iter().zip(&self.turns).skip(warm_up);
            format!("{:.2} ×", summary(turns.map(|(peer, turn)| peer.seconds / turn.seconds).collect()).seconds)
        };
        let mut cells = vec![
            time(cost.seconds),
            format!("{} … {}", time(cost.range.0), time(cost.range.1)),
            processor.map_or_else(|| "–".into(), |seconds| time(summary(seconds).seconds)),
        ];
        cells.extend(peers.iter().map(|peer| peer.map_or_else(|| "–".into(), ratio)));
        cells.push(megabytes(Some(cost)));
        cells
    }

    /// The losses of all turns.
    pub fn losses(&self) -> Vec<f64> {
        self.turns.iter().filter_map(|turn| turn.loss).collect()
    }

    /// Lets the program end.
    pub fn end(self) {
        let Contender { name, mut child, stdin, said, .. } = self;
        drop(stdin);
        let ended = child.wait().expect("it can be waited for");
        assert!(ended.success(), "`{name}` failed:\n{}", fs::read_to_string(said).unwrap_or_default());
    }
}

/// The other side: says that it is ready, then takes a turn for each line until there is none.
pub fn serve(mut turn: impl FnMut() -> Turn) {
    println!("ready");
    while wait() {
        tell(&turn());
    }
}

/// Waits to be asked for a turn; whether there is one more.
pub fn wait() -> bool {
    std::io::stdin().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0)
}

/// Tells what a turn took.
pub fn tell(turn: &Turn) {
    println!("{}", serde_json::to_string(turn).expect("it is plain data"));
}
