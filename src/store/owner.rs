//! Which process owns something in the store, and whether it still lives.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The name of its machine.
    pub host: String,
    /// The boot of its machine; empty where the system does not tell.
    pub boot: String,
    /// The namespace of its process number; containers have their own.
    namespace: String,
    pid: u32,
    /// When it started, in clock ticks since the boot: process numbers are used again.
    started: u64,
}

impl Owner {
    /// This process.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Owner {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.to_string_lossy().into_owned(),
            pid,
            started: started(pid).unwrap_or_default(),
        }
    }

    /// Whether it lives; `None` where this process cannot tell, as of a process of another machine.
    pub fn lives(&self) -> Option<bool> {
        let here = Owner::here();
        let visible = !self.boot.is_empty() && (&self.boot, &self.namespace) == (&here.boot, &here.namespace);
        match started(self.pid) {
            _ if !visible => None,
            Some(found) => Some(found == self.started),
            // Where the system hides the processes of others, a missing one may be hidden.
            None => Path::new("/proc/1/stat").exists().then_some(false),
        }
    }
}

/// When the process `pid` started; `None` when there is none, or only what its parent has not yet buried.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything; behind it the state is the first field, and the start the twentieth.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_living_and_the_dead() {
        let here = Owner::here();
        assert_eq!(here.lives(), Some(true));
        assert_eq!(Owner { started: here.started + 1, ..here.clone() }.lives(), Some(false), "another process of that number");
        assert_eq!(Owner { boot: "another".into(), ..here.clone() }.lives(), None);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner { pid: child.id(), started: started(child.id()).unwrap(), ..here };
        assert_eq!(owner.lives(), Some(true));
        child.kill().unwrap();
        while started(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(owner.lives(), Some(false), "before its parent has buried it");
        child.wait().unwrap();
        assert_eq!(owner.lives(), Some(false));
    }
}
