//! Finding the CUDA libraries that ONNX Runtime's CUDA provider needs: of the system, or of the `nvidia-*` packages of a Python
//! environment, whose folders no loader searches.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A library of CUDA 13 or cuDNN 9.
#[derive(Debug, PartialEq, Eq)]
pub struct Needed {
    file: &'static str,
    /// The Python package that holds it.
    package: &'static str,
    /// The provider does not start without it.
    required: bool,
}

const fn needed(file: &'static str, package: &'static str) -> Needed {
    Needed { file, package, required: true }
}

const fn useful(file: &'static str, package: &'static str) -> Needed {
    Needed { file, package, required: false }
}

/// In the order in which they are loaded: what another one needs comes before it.
#[cfg(not(windows))]
const LIBRARIES: &[Needed] = &[
    needed("libcudart.so.13", "nvidia-cuda-runtime"),
    useful("libnvrtc.so.13", "nvidia-cuda-nvrtc"),
    needed("libcublasLt.so.13", "nvidia-cublas"),
    needed("libcublas.so.13", "nvidia-cublas"),
    needed("libcurand.so.10", "nvidia-curand"),
    useful("libcufft.so.12", "nvidia-cufft"),
    needed("libcudnn.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_graph.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_ops.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_heuristic.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_adv.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_cnn.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_engines_precompiled.so.9", "nvidia-cudnn-cu13"),
    useful("libcudnn_engines_runtime_compiled.so.9", "nvidia-cudnn-cu13"),
];
#[cfg(windows)]
const LIBRARIES: &[Needed] = &[
    needed("cudart64_13.dll", "nvidia-cuda-runtime"),
    needed("cublasLt64_13.dll", "nvidia-cublas"),
    needed("cublas64_13.dll", "nvidia-cublas"),
    needed("curand64_10.dll", "nvidia-curand"),
    useful("cufft64_12.dll", "nvidia-cufft"),
    needed("cudnn64_9.dll", "nvidia-cudnn-cu13"),
];

/// The libraries, in the order in which they are to be loaded.
///
/// # Errors
/// Which are missing and how to get them, as a fragment that follows "because".
pub fn find() -> Result<Vec<PathBuf>, String> {
    let system = system();
    // Python is asked only when the system has not got them all.
    match find_in(&system) {
        (found, missing) if missing.is_empty() => Ok(found),
        _ => {
            let folders: Vec<PathBuf> = system.into_iter().chain(packaged(&python())).collect();
            let (found, missing) = find_in(&folders);
            if missing.is_empty() { Ok(found) } else { Err(lacking(&missing)) }
        }
    }
}

/// The libraries that lie in one of the folders, and the required ones that lie in none.
fn find_in(folders: &[PathBuf]) -> (Vec<PathBuf>, Vec<&'static Needed>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for library in LIBRARIES {
        match folders.iter().map(|folder| folder.join(library.file)).find(|path| path.is_file()) {
            Some(path) => found.push(path),
            None if library.required => missing.push(library),
            None => {}
        }
    }
    (found, missing)
}

fn lacking(missing: &[&Needed]) -> String {
    let files: Vec<String> = missing.iter().map(|library| format!("`{}`", library.file)).collect();
    let mut packages: Vec<&str> = missing.iter().map(|library| library.package).collect();
    packages.dedup();
    let (verb, them) = if files.len() == 1 { ("is", "it") } else { ("are", "them") };
    format!(
        "{} {verb} not found; `python3 -m pip install {}` brings {them}, as does the system's package of CUDA 13 or cuDNN 9",
        files.join(", "),
        packages.join(" ")
    )
}

/// Where the system keeps libraries, the folders that the loader is told first.
fn system() -> Vec<PathBuf> {
    let listed = std::env::var_os(if cfg!(windows) { "PATH" } else { "LD_LIBRARY_PATH" }).unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&listed).filter(|folder| folder.is_absolute()).collect();
    let below = |variable: &str, inside: &str| {
        let root = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        root.map(|root| root.join(inside))
    };
    let inside = if cfg!(windows) { "bin" } else { "lib64" };
    folders.extend([below("CUDA_HOME", inside), below("CUDA_PATH", inside), below("CONDA_PREFIX", "lib")].into_iter().flatten());
    folders.extend(
        [
            "/usr/local/cuda/lib64",
            "/usr/local/cuda-13/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/usr/lib",
            "/usr/local/lib",
            "/opt/cuda/lib64",
            "/usr/lib/wsl/lib",
        ]
        .map(PathBuf::from),
    );
    folders
}

/// The folders of the `nvidia-*` packages below folders that Python packages lie in: `nvidia/cu13/lib`, `nvidia/cudnn/lib`.
fn packaged(site_packages: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for site in site_packages {
        let Ok(entries) = std::fs::read_dir(site.join("nvidia")) else { continue };
        let mut parts: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        parts.sort();
        let places = if cfg!(windows) { ["bin", "bin/x86_64"] } else { ["lib", "lib64"] };
        folders.extend(parts.iter().flat_map(|part| places.map(|place| part.join(place))));
    }
    folders
}

/// The folders in which the user's Python looks for packages; none without a Python.
fn python() -> Vec<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let inside = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python3" };
    let programs = environment.map(|folder| folder.join(inside)).into_iter().chain(["python3", "python"].map(PathBuf::from));
    programs.filter_map(|program| search_path(&program)).next().unwrap_or_default()
}

fn search_path(python: &Path) -> Option<Vec<PathBuf>> {
    let mut command = Command::new(python);
    command.args(["-c", "import sys; print(chr(10).join(sys.path))"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A Python environment with packages that hold these files.
    fn packages(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join("nvidia").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    const COMPLETE: [&str; 6] = [
        "cu13/lib/libcublas.so.13",
        "cu13/lib/libcublasLt.so.13",
        "cu13/lib/libcudart.so.13",
        "cu13/lib/libcurand.so.10",
        "cudnn/lib/libcudnn.so.9",
        "cudnn/lib/libcudnn_graph.so.9",
    ];

    #[test]
    #[cfg(not(windows))]
    fn the_libraries_of_python_packages_are_found_in_the_order_of_loading() {
        let site = tempfile::tempdir().unwrap();
        packages(site.path(), &COMPLETE);
        let (found, missing) = find_in(&packaged(&[site.path().to_owned()]));
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
        assert_eq!(
            names,
            [
                "libcudart.so.13",
                "libcublasLt.so.13",
                "libcublas.so.13",
                "libcurand.so.10",
                "libcudnn.so.9",
                "libcudnn_graph.so.9"
            ]
        );
        assert!(missing.is_empty());
    }

    #[test]
    #[cfg(not(windows))]
    fn the_first_folder_wins_and_others_fill_up() {
        let (system, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        packages(site.path(), &COMPLETE);
        fs::write(system.path().join("libcudart.so.13"), "").unwrap();
        // CUDA 12 beside it is no CUDA 13.
        fs::write(system.path().join("libcublas.so.12"), "").unwrap();
        let folders: Vec<PathBuf> = [system.path().to_owned()].into_iter().chain(packaged(&[site.path().to_owned()])).collect();
        let (found, missing) = find_in(&folders);
        assert!(missing.is_empty());
        assert_eq!(found[0], system.path().join("libcudart.so.13"));
        assert_eq!(found[2], site.path().join("nvidia/cu13/lib/libcublas.so.13"));
    }

    #[test]
    #[cfg(not(windows))]
    fn what_is_missing_is_named_with_its_package() {
        let site = tempfile::tempdir().unwrap();
        packages(site.path(), &COMPLETE[..3]);
        let (_, missing) = find_in(&packaged(&[site.path().to_owned()]));
        insta::assert_snapshot!(lacking(&missing), @"`libcurand.so.10`, `libcudnn.so.9` are not found; `python3 -m pip install nvidia-curand nvidia-cudnn-cu13` brings them, as does the system's package of CUDA 13 or cuDNN 9");
        insta::assert_snapshot!(lacking(&missing[..1]), @"`libcurand.so.10` is not found; `python3 -m pip install nvidia-curand` brings it, as does the system's package of CUDA 13 or cuDNN 9");
    }

    #[test]
    fn a_folder_without_packages_has_none() {
        let site = tempfile::tempdir().unwrap();
        assert!(packaged(&[site.path().to_owned(), site.path().join("missing")]).is_empty());
    }
}
