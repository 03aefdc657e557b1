//! `cargo bench --bench hashing`: how long finding out what changed takes when source files are large or many, beside `b3sum`, which is
//! installed into `target/bench-tools`. Needs 5 GB on the disk, which are given back.

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::{Arguments, Cost, install, scratch, summary, table, time, tools};
use rayon::prelude::*;
use retune::store::Store;

const LARGE: usize = 4 << 30;
const MANY: usize = 100_000;
const SMALL: usize = 1000;
const REPEAT: usize = 7;

fn main() {
    Arguments::read(&[]);
    let b3sum = tools().join("bin/b3sum");
    let there =
        b3sum.exists() || install("b3sum", Command::new("cargo").args(["install", "b3sum", "--locked", "--root"]).arg(tools()));
    let b3sum = there.then_some(b3sum);
    let folder = scratch();
    let mut rows = Vec::new();

    eprintln!("writing a file of 4 GiB …");
    let large = folder.path().join("large");
    write_large(&large);
    rows.extend(compare("a file of 4 GiB", std::slice::from_ref(&large), b3sum.as_deref(), |b3sum| {
        let mut command = Command::new(b3sum);
        command.arg(&large);
        command
    }));
    fs::remove_file(&large).expect("it was just written");

    eprintln!("writing {MANY} files …");
    let many = folder.path().join("many");
    let files = write_many(&many);
    rows.extend(compare("100,000 files of 1 kB", &files, b3sum.as_deref(), |b3sum| {
        // More names than fit into one call.
        let mut command = Command::new("sh");
        command.arg("-c").arg(r#"find "$0" -type f -print0 | xargs -0 "$1""#).arg(&many).arg(b3sum);
        command
    }));
    println!();
    table(&["median wall time", "retune", "range", "b3sum", "range", "retune / b3sum", "wanted below"], &rows);
    println!("\nthe files are in the page cache; `again` is another process that knows size, time and inode of each");
}

/// The rows for some files: hashed for the first time and again.
fn compare(what: &str, files: &[PathBuf], b3sum: Option<&Path>, peer: impl Fn(&Path) -> Command) -> Vec<Vec<String>> {
    let (mut first, mut again, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEAT {
        let folder = scratch();
        let store = Store::open(folder.path()).expect("target/ can be written");
        first.push(digest(&store, files));
        again.push(digest(&store, files));
        if let Some(b3sum) = b3sum {
            let began = Instant::now();
            let status = peer(b3sum).stdout(Stdio::null()).status();
            theirs.push(began.elapsed().as_secs_f64());
            assert!(status.is_ok_and(|status| status.success()), "b3sum failed");
        }
    }
    let range = |cost: Cost| format!("{} … {}", time(cost.range.0), time(cost.range.1));
    let theirs = (!theirs.is_empty()).then(|| summary(theirs));
    let row = |what: String, cost: Cost, wanted: &str| {
        let (peer, peer_range) = theirs.map_or_else(|| ("–".into(), "–".into()), |c| (time(c.seconds), range(c)));
        let ratio = theirs.map_or_else(|| "–".into(), |c| format!("{:.2}", cost.seconds / c.seconds));
        vec![what, time(cost.seconds), range(cost), peer, peer_range, ratio, wanted.into()]
    };
    vec![row(what.to_owned(), summary(first), "1.2"), row(format!("{what}, again"), summary(again), "")]
}

/// What a run does to know its source files: reads what is known, looks at each, hashes what is new, keeps what was learnt. In seconds.
fn digest(store: &Store, files: &[PathBuf]) -> f64 {
    let began = Instant::now();
    let digests = store.file_digests();
    let found: Vec<_> = files.par_iter().map(|file| digests.digest(file)).collect();
    assert!(found.iter().all(Result::is_ok), "a file cannot be read");
    store.keep_file_digests(&digests).expect("target/ can be written");
    began.elapsed().as_secs_f64()
}

fn write_large(path: &Path) {
    // A block that no compression or sharing makes cheaper: the numbers of a xorshift generator.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut file = File::create(path).expect("target/ can be written");
    let mut block = vec![0_u8; 64 << 20];
    for _ in 0..LARGE / block.len() {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).expect("there is room for 4 GiB on the disk");
    }
    age(&file);
    file.sync_all().expect("there is room for 4 GiB on the disk");
}

fn write_many(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for i in 0..MANY {
        let path = folder.join(format!("{:03}", i / 1000)).join(format!("{i}.txt"));
        fs::create_dir_all(path.parent().expect("it has one")).expect("target/ can be written");
        let mut file = File::create(&path).expect("target/ can be written");
        file.write_all(format!("{i:0>SMALL$}").as_bytes()).expect("there is room on the disk");
        age(&file);
        files.push(path);
    }
    files
}

/// Makes a file old enough for its time to be trusted.
fn age(file: &File) {
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("its time can be set");
}
