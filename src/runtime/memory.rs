//! How much memory is left for this process.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can still be taken: what the machine has left, or what the control groups of this process have, whichever is less. `None` where the
/// system does not tell.
pub fn available() -> Option<u64> {
    let machine = machine(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(groups(&own, Path::new("/sys/fs/cgroup")).fold(machine, u64::min))
}

/// `MemAvailable` of `/proc/meminfo`.
fn machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What each control group that holds the process, and each that holds that one, has left. `own` is `/proc/self/cgroup`: lines
/// `ID:CONTROLLERS:PATH`, of version 2 without controllers.
fn groups<'a>(own: &'a str, root: &'a Path) -> impl Iterator<Item = u64> + 'a {
    own.lines().flat_map(move |line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (base, left): (PathBuf, fn(&Path) -> Option<u64>) = match controllers {
            "" => (root.to_owned(), left_of_version_2),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), left_of_version_1),
            _ => (PathBuf::new(), |_| None),
        };
        let path = PathBuf::from(path.trim_start_matches('/'));
        let folders: Vec<PathBuf> = path.ancestors().map(|folder| base.join(folder)).collect();
        folders.into_iter().filter_map(move |folder| left(&folder))
    })
}

fn left_of_version_2(folder: &Path) -> Option<u64> {
    left(folder, "memory.max", "memory.current", "inactive_file")
}

fn left_of_version_1(folder: &Path) -> Option<u64> {
    left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
}

/// A group's limit less what it uses; files that can be dropped at any time do not count. `None` without a limit.
fn left(folder: &Path, limit: &str, usage: &str, droppable: &str) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = statistics.lines().find_map(|line| line.strip_prefix(droppable)?.trim().parse::<u64>().ok());
    let used = number(usage)?.saturating_sub(droppable.unwrap_or(0));
    Some(number(limit)?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_limit_counts() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a/memory.max", "1000\n");
        put("a/memory.current", "700\n");
        put("a/memory.stat", "anon 500\ninactive_file 200\n");
        put("a/b/memory.max", "max\n");
        put("a/b/memory.current", "10\n");
        put("memory/x/memory.limit_in_bytes", "900");
        put("memory/x/memory.usage_in_bytes", "1000");
        let left = |own: &str| groups(own, folder.path()).collect::<Vec<_>>();
        assert_eq!(left("0::/a/b\n"), [500]);
        assert_eq!(left("4:cpuset:/\n3:memory:/x\n0::/\n"), [0]);
        assert_eq!(left("nonsense"), [] as [u64; 0]);
        assert_eq!(machine("MemTotal: 9 kB\nMemAvailable:   23 kB\n"), Some(23 * 1024));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn something_is_left_here() {
        assert!(available().unwrap() > 1 << 20);
    }
}
