//! Programs that do the same work in turns, each in a process of its own: a line on their standard input asks for a turn, a line of
//! JSON on their standard output tells what it took. In turns, because what else a shared machine does then slows all of them alike.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::high_water;

/// What a turn took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    pub seconds: f64,
    /// Of a training step.
    #[serde(default)]
    pub loss: Option<f64>,
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
        let asked = self.stdin.write_all(b"\n").and_then(|()| self.stdin.flush());
        let line = if asked.is_ok() { self.line() } else { self.fail() };
        self.turns.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("`{}` said `{line}`: {e}", self.name)));
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

    /// Median, fastest and slowest turn in seconds, without the first `warm_up`.
    pub fn seconds(&self, warm_up: usize) -> super::Cost {
        let cost = super::summary(self.turns.iter().skip(warm_up).map(|turn| turn.seconds).collect());
        super::Cost { memory: self.memory(), ..cost }
    }

    /// Lets the program end.
    pub fn end(self) -> Vec<Turn> {
        let Contender { name, turns, mut child, stdin, said, .. } = self;
        drop(stdin);
        let ended = child.wait().expect("it can be waited for");
        assert!(ended.success(), "`{name}` failed:\n{}", fs::read_to_string(said).unwrap_or_default());
        turns
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
