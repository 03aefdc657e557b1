//! Running a program with everything that it starts: as a group of processes, which is ended as a whole.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::TICK;
use crate::cancel::Cancel;

/// A program that was asked to end may take so long to do it.
const GRACE: Duration = Duration::from_secs(5);
/// What was killed may take so long to be gone.
const GONE: Duration = Duration::from_secs(2);
/// Bytes of one line of the log; longer ones are broken.
const LONGEST_LINE: u64 = 8 << 10;
/// Lines that wait to be logged.
const WAITING_LINES: usize = 256;
/// The last lines are told when a program fails.
const TOLD_LINES: usize = 10;

/// How a program ended.
pub enum Ended {
    Exited(ExitStatus),
    TimedOut,
    Cancelled,
}

/// The groups that are running.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Kills every program that a stage is running, with all that it started; for a process that is about to end at once.
pub fn end_all() {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|group| signal::kill(*group));
}

/// A program and what it started. Nothing of it is left when this is dropped.
struct Group(u32);

impl Group {
    fn new(leader: u32) -> Self {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).insert(leader);
        Group(leader)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        signal::kill(self.0);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// What is heard of a program.
enum Heard {
    Line(String),
    /// Nobody can write to the log any more.
    Closed,
    Exited(io::Result<ExitStatus>),
}

/// Runs a program to its end, giving each line that it writes to `line`. It reads nothing, and when it has ended, whatever it left
/// running is killed.
///
/// # Errors
/// It cannot be started.
pub fn run(command: &mut Command, timeout: Option<Duration>, cancel: &Cancel, line: &mut dyn FnMut(&str)) -> io::Result<Ended> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let started = command.spawn();
    // The command holds the pipe's other end, which must close with the last of the processes.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = started?;
    let group = Group::new(child.id());
    let (sender, receiver) = sync_channel(WAITING_LINES);
    let waiter = sender.clone();
    // Neither is joined: a process that left the group may hold the pipe for as long as it likes.
    thread::spawn(move || read_lines(reader, &sender));
    thread::spawn(move || waiter.send(Heard::Exited(child.wait())));

    let started = Instant::now();
    let (mut exited, mut closed) = (None, false);
    // Why it is being ended, and when it is killed for it.
    let mut stopping: Option<(Ended, Instant)> = None;
    // When waiting for the last words ends.
    let mut until: Option<Instant> = None;
    while !(exited.is_some() && closed) && until.is_none_or(|until| Instant::now() < until) {
        match receiver.recv_timeout(TICK) {
            Ok(Heard::Line(text)) => line(&text),
            Ok(Heard::Closed) => closed = true,
            Ok(Heard::Exited(status)) => {
                exited = Some(status?);
                if stopping.is_none() {
                    signal::kill(group.0);
                    until = Some(Instant::now() + GONE);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        match &stopping {
            None if exited.is_none() => {
                let late = timeout.is_some_and(|timeout| started.elapsed() >= timeout);
                let why = if cancel.is_set() { Some(Ended::Cancelled) } else { late.then_some(Ended::TimedOut) };
                if let Some(why) = why {
                    signal::terminate(group.0);
                    stopping = Some((why, Instant::now() + GRACE));
                }
            }
            Some((_, kill)) if until.is_none() && Instant::now() >= *kill => {
                signal::kill(group.0);
                until = Some(Instant::now() + GONE);
            }
            _ => {}
        }
    }
    match (stopping, exited) {
        (Some((why, _)), _) => Ok(why),
        (None, Some(status)) => Ok(Ended::Exited(status)),
        (None, None) => Err(io::Error::other("it cannot be waited for")),
    }
}

/// Sends the lines of `reader`, as far as they are text.
fn read_lines(reader: impl Read, sender: &SyncSender<Heard>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if sender.send(Heard::Line(readable(&line))).is_err() {
            return;
        }
    }
    let _ = sender.send(Heard::Closed);
}

/// A line as a terminal would leave it: what was written over is gone. Colours and other commands to terminals are left out.
fn readable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let text = text.rsplit('\r').next().unwrap_or_default();
    console::strip_ansi_codes(text).chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// The last lines that a program wrote.
#[derive(Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    pub fn push(&mut self, line: String) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == TOLD_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// For the end of a message.
    pub fn told(&self) -> String {
        if self.0.is_empty() {
            return "; it wrote nothing".into();
        }
        self.0.iter().fold("; its last lines:".into(), |told, line| told + "\n    " + line)
    }
}

/// "ended with exit status 3".
pub fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = match signal {
            6 => " (SIGABRT)",
            9 => " (SIGKILL, perhaps for want of memory)",
            11 => " (SIGSEGV)",
            15 => " (SIGTERM)",
            _ => "",
        };
        return format!("was ended by signal {signal}{name}");
    }
    status.code().map_or_else(|| "failed".into(), |code| format!("ended with exit status {code}"))
}

#[cfg(unix)]
mod signal {
    use rustix::process::{Pid, Signal, kill_process_group};

    /// Kills all of a group.
    pub fn kill(group: u32) {
        send(group, Signal::KILL);
    }

    /// Asks all of a group to end.
    pub fn terminate(group: u32) {
        send(group, Signal::TERM);
    }

    fn send(group: u32, signal: Signal) {
        let group = i32::try_from(group).ok().and_then(Pid::from_raw);
        // The group of the first process is no program's; one that is gone is no mistake.
        if let Some(group) = group.filter(|group| !group.is_init()) {
            let _ = kill_process_group(group, signal);
        }
    }
}

#[cfg(not(unix))]
mod signal {
    use std::process::{Command, Stdio};

    /// Kills a program and what it started.
    pub fn kill(leader: u32) {
        let mut command = Command::new("taskkill");
        command.args(["/T", "/F", "/PID", &leader.to_string()]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// There is no way to ask.
    pub fn terminate(leader: u32) {
        kill(leader);
    }
}
