//! Fetching a package by name with the user's own package client, which honours whatever mirror, proxy and credentials the user has set.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The clients, in the order in which they are tried.
const CLIENTS: &[&[&str]] =
    &[&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"], &["uv", "tool", "run", "pip"]];

/// The platform a wheel is for; without one any wheel that is for all platforms will do.
pub struct Platform<'a> {
    /// As in wheel names: `manylinux_2_28_x86_64`.
    pub tag: &'a str,
    /// CPython's version as two digits and more: `312`.
    pub python: &'a str,
}

/// Downloads the wheel of `requirement` (`name==version`) into `folder`, which must be empty, and returns its path.
///
/// # Errors
/// There is no package client, or each of them failed; the message has the last words of every one that ran.
pub fn download(requirement: &str, platform: Option<&Platform>, folder: &Path) -> Result<PathBuf> {
    let mut said = Vec::new();
    for client in CLIENTS {
        let mut command = Command::new(client[0]);
        command.args(&client[1..]).args(["download", "--disable-pip-version-check", "--no-input", "--quiet"]);
        command.args(["--no-deps", "--only-binary=:all:", "--dest"]).arg(folder);
        if let Some(Platform { tag, python }) = platform {
            command.args([
                "--platform",
                tag,
                "--python-version",
                python,
                "--implementation",
                "cp",
                "--abi",
                &format!("cp{python}"),
            ]);
        }
        command.arg(requirement);
        match command.output() {
            Ok(output) if output.status.success() => return only_file(folder),
            Ok(output) => said.push(format!("`{}`: {}", client.join(" "), last_words(&output.stderr))),
            // This client is not installed.
            Err(_) => {}
        }
    }
    if said.is_empty() {
        bail!("`{requirement}` is fetched with Python's package client, and there is none: install Python 3 with pip (or uv)");
    }
    bail!("`{requirement}` could not be fetched; {}", said.join("; "))
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("`{}` cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => bail!("the package client left no single file in `{}`", folder.display()),
    }
}

/// The last lines of what a client wrote, on one line.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(3)..].join(" / ");
    if tail.is_empty() { "failed without a word".into() } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_quoted_by_its_last_words() {
        assert_eq!(last_words(b"a\nb\n\nc\nd\n"), "b / c / d");
        assert_eq!(last_words(b""), "failed without a word");
    }
}
