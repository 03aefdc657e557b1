//! How much memory the process has while stages run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Watches the memory of this process for the stages that run. The memory is the process's: of stages that run side by side,
/// each has that of all.
#[derive(Default)]
pub(super) struct MemoryWatch {
    watched: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    peaks: Vec<Weak<AtomicU64>>,
    running: bool,
    ended: bool,
}

/// The largest memory since it was taken.
pub(super) struct Peak(Arc<AtomicU64>);

impl Peak {
    /// In bytes; `None` where the system does not tell.
    pub fn bytes(&self) -> Option<u64> {
        self.0.fetch_max(resident().unwrap_or(0), Ordering::Relaxed);
        Some(self.0.load(Ordering::Relaxed)).filter(|&bytes| bytes > 0)
    }
}

impl MemoryWatch {
    /// Starts watching for a stage, in a thread of `scope`, which all stages share.
    pub fn peak<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>) -> Peak {
        let peak = Arc::new(AtomicU64::new(resident().unwrap_or(0)));
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.peaks.push(Arc::downgrade(&peak));
        if !watched.running {
            watched.running = true;
            scope.spawn(|| self.watch());
        }
        Peak(peak)
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.changed.notify_all();
    }

    fn watch(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        while !watched.ended {
            let now = resident().unwrap_or(0);
            watched.peaks.retain(|peak| peak.upgrade().is_some_and(|peak| peak.fetch_max(now, Ordering::Relaxed) < u64::MAX));
            watched = self.changed.wait_timeout(watched, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_allocation_is_seen() {
        let watch = MemoryWatch::default();
        std::thread::scope(|scope| {
            let peak = watch.peak(scope);
            let before = peak.bytes().unwrap();
            let block = vec![1u8; 64 << 20];
            std::thread::sleep(INTERVAL * 5);
            assert!(block.iter().map(|&b| usize::from(b)).sum::<usize>() > 0);
            drop(block);
            assert!(peak.bytes().unwrap() >= before + (32 << 20));
            watch.end();
        });
    }
}
