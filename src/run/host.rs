//! The machine and the work tree that a run ran on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A machine. What the system does not tell is left empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    pub name: String,
    pub os: String,
    pub architecture: String,
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Host {
    /// This machine.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after_colon = |text: &str, key: &str| {
            let line = text.lines().find(|l| l.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = after_colon(&read("/proc/meminfo"), "MemTotal");
        Host {
            name: read("/proc/sys/kernel/hostname").trim().to_owned(),
            os: std::env::consts::OS.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            processor: after_colon(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.and_then(|m| m.strip_suffix(" kB")?.parse::<u64>().ok()).map(|kb| kb * 1024),
        }
    }
}

/// The state of a git work tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Git {
    pub commit: String,
    /// Whether tracked files differ from the commit.
    pub dirty: bool,
}

impl Git {
    /// Of the work tree that `folder` lies in; `None` when it lies in none, or git is not installed.
    pub fn of(folder: &Path) -> Option<Self> {
        let mut git = Command::new("git");
        git.arg("-C").arg(folder).args(["status", "--porcelain=v2", "--branch", "--untracked-files=no"]);
        let output = git.stdin(Stdio::null()).stderr(Stdio::null()).output().ok().filter(|o| o.status.success())?;
        let text = String::from_utf8_lossy(&output.stdout);
        // A work tree without a commit says `(initial)`.
        let commit = text.lines().find_map(|line| line.strip_prefix("# branch.oid ")).filter(|id| !id.starts_with('('))?;
        Some(Git { commit: commit.to_owned(), dirty: text.lines().any(|line| !line.starts_with('#')) })
    }
}
