//! Finding ONNX Runtime's shared library, and fetching it once when it is nowhere.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use super::cuda;
use super::files::{once, sha256, unzip_member};
use super::package::{self, Platform};

/// The oldest minor version (1.x) that has the interface this program was built for.
const OLDEST_MINOR: u32 = 24;

/// A pinned wheel.
struct Wheel {
    package: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    /// The library, and what it opens itself from its own folder.
    members: &'static [&'static str],
}

/// The build for processors.
const PLAIN: &str = "onnxruntime";
/// The build that has the CUDA provider besides.
const CUDA: &str = "onnxruntime-gpu";

const WHEELS: &[Wheel] = &[
    Wheel {
        package: PLAIN,
        version: "1.32.0",
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        members: &["libonnxruntime.so.1.32.0"],
    },
    Wheel {
        package: PLAIN,
        version: "1.32.0",
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        members: &["libonnxruntime.so.1.32.0"],
    },
    Wheel {
        package: PLAIN,
        version: "1.32.0",
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        members: &["libonnxruntime.1.32.0.dylib"],
    },
    Wheel {
        package: PLAIN,
        version: "1.32.0",
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "efe7456952c243a05a53d5b8732953625144642c2f3989094277f6217f0c0c40",
        members: &["onnxruntime.dll"],
    },
    Wheel {
        package: CUDA,
        version: "1.31.1",
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
        members: &["libonnxruntime.so.1.31.1", "libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"],
    },
    Wheel {
        package: CUDA,
        version: "1.31.1",
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e",
        members: &["onnxruntime.dll", "onnxruntime_providers_shared.dll", "onnxruntime_providers_cuda.dll"],
    },
];

/// The CUDA provider, which lies beside the library of a build that has it.
const PROVIDER: &str = if cfg!(windows) { "onnxruntime_providers_cuda.dll" } else { "libonnxruntime_providers_cuda.so" };

/// A shared library on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    pub path: PathBuf,
    /// What goes into stage keys.
    pub identity: String,
    /// Whether it has, or will have when it is fetched, the CUDA provider.
    pub cuda: bool,
}

/// Finds the library: `ORT_DYLIB_PATH`, the folder of downloads, the system; else fetches it with the user's package client. On a
/// machine that has all that CUDA needs it is the build with the CUDA provider, for all devices: a process can load but one.
///
/// # Errors
/// `ORT_DYLIB_PATH` names no file, or the library is nowhere and cannot be fetched.
pub fn locate(downloads: &Path) -> Result<Library> {
    let library = find(downloads)?;
    if !library.path.exists() {
        let package = if library.cuda { CUDA } else { PLAIN };
        let wheel = wheel(package).with_context(|| {
            format!(
                "there is no pinned ONNX Runtime for {} on {}: install version 1.{OLDEST_MINOR} or later and set ORT_DYLIB_PATH to its library",
                std::env::consts::OS,
                std::env::consts::ARCH
            )
        })?;
        fetch(wheel, &library.path)?;
    }
    Ok(library)
}

/// What [`locate`] would yield, without fetching or loading it: found once a process.
///
/// # Errors
/// `ORT_DYLIB_PATH` names no file.
pub fn known(downloads: &Path) -> Result<Library> {
    static KNOWN: OnceLock<Library> = OnceLock::new();
    if let Some(library) = KNOWN.get() {
        return Ok(library.clone());
    }
    let library = find(downloads)?;
    Ok(KNOWN.get_or_init(|| library).clone())
}

/// Where the library is, or will be once it is fetched.
fn find(downloads: &Path) -> Result<Library> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from) {
        let bytes = std::fs::read(&path).with_context(|| {
            format!("ORT_DYLIB_PATH is `{}`, which cannot be read; unset it to have ONNX Runtime fetched", path.display())
        })?;
        let digest = blake3::hash(&bytes).to_hex();
        let identity = format!("given by ORT_DYLIB_PATH, {}", &digest[..16]);
        return Ok(Library { identity, cuda: has_provider(&path), path });
    }
    let wants_cuda = cuda::find().is_ok();
    let wheel = wheel(CUDA).filter(|_| wants_cuda).or_else(|| wheel(PLAIN));
    let cached = wheel.map_or_else(|| downloads.join("onnxruntime"), |wheel| wheel.place(downloads));
    if !cached.exists() {
        // On a machine with CUDA, a library of the system that cannot use it would only be in the way.
        let of_system = installed().filter(|(path, _)| !wants_cuda || has_provider(path));
        if let Some((path, version)) = of_system {
            return Ok(Library { identity: format!("{version} of the system"), cuda: has_provider(&path), path });
        }
    }
    let (version, package) = wheel.map_or(("", PLAIN), |wheel| (wheel.version, wheel.package));
    Ok(Library { path: cached, identity: version.to_owned(), cuda: package == CUDA })
}

/// Whether the library at `path` has the CUDA provider beside it.
fn has_provider(path: &Path) -> bool {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real.with_file_name(PROVIDER).exists()
}

/// The pinned wheel of a package for this platform.
fn wheel(package: &str) -> Option<&'static Wheel> {
    WHEELS.iter().find(|w| w.package == package && w.os == std::env::consts::OS && w.arch == std::env::consts::ARCH)
}

impl Wheel {
    /// Where its library is kept.
    fn place(&self, downloads: &Path) -> PathBuf {
        downloads.join(self.package).join(self.version).join(self.members.first().copied().unwrap_or_default())
    }
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

/// Fetches a pinned wheel and puts its library at `target`, with what belongs to it beside it.
fn fetch(wheel: &Wheel, target: &Path) -> Result<()> {
    let requirement = format!("{}=={}", wheel.package, wheel.version);
    let unpack = |name: &str, file: &Path, to: &Path| unzip_member(file, &format!("onnxruntime/capi/{name}"), to);
    let download = |folder: &Path| -> Result<PathBuf> {
        let platform = Platform { tag: wheel.platform, python: "312" };
        let file = package::download(&requirement, Some(&platform), folder)
            .context("ONNX Runtime is not on this machine; set ORT_DYLIB_PATH if you have its library somewhere")?;
        let found = sha256(&file)?;
        ensure!(
            found == wheel.sha256,
            "the package `{requirement}` has sha256 {found} instead of {}: the mirror it came from has another file under this name; \
             nothing was installed",
            wheel.sha256
        );
        Ok(file)
    };
    let folder = tempfile::tempdir().context("no folder for temporary files")?;
    match wheel.members {
        [library] => once(target, |part| unpack(library, &download(folder.path())?, part)),
        // All of them or none: the folder is put in place as a whole.
        members => once(target.parent().context("a path without a folder")?, |part| {
            let file = download(folder.path())?;
            std::fs::create_dir(part).with_context(|| format!("`{}` cannot be written", part.display()))?;
            members.iter().try_for_each(|name| unpack(name, &file, &part.join(name)))
        }),
    }
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
