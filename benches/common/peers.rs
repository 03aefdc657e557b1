//! Python packages to run beside.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{install, tools};

/// A Python package that is measured against.
pub struct Peer {
    pub name: &'static str,
    /// What proves that it is there.
    module: &'static str,
    /// What is installed, pinned.
    requirements: &'static [&'static str],
}

pub const SENTENCE_TRANSFORMERS: Peer = Peer {
    name: "sentence-transformers",
    module: "sentence_transformers",
    requirements: &["sentence-transformers==6.2.0", "transformers==5.24.0", "torch==2.15.0"],
};

pub const FASTEMBED: Peer =
    Peer { name: "fastembed", module: "fastembed", requirements: &["fastembed==0.9.1", "onnxruntime==1.32.0"] };

impl Peer {
    /// The Python that has it: of an environment named by `RETUNE_PEERS` (separated as in `PATH`), else one of its own below
    /// `target/`, which is made. `None`, said on the terminal, when it cannot be had.
    pub fn python(&self) -> Option<PathBuf> {
        let given = std::env::var_os("RETUNE_PEERS").unwrap_or_default();
        let own = tools().join(self.name);
        let given = std::env::split_paths(&given).filter(|path| !path.as_os_str().is_empty());
        if let Some(python) = given.chain([own.clone()]).map(|folder| folder.join("bin/python")).find(|p| self.works(p)) {
            return Some(python);
        }
        let made = install("Python's venv", Command::new("python3").args(["-m", "venv"]).arg(&own))
            && install(self.name, Command::new(own.join("bin/pip")).args(["install", "--quiet"]).args(self.requirements));
        if !made {
            eprintln!("{} cannot be had, so its rows are left out; name an environment that has it in RETUNE_PEERS", self.name);
        }
        made.then(|| own.join("bin/python"))
    }

    /// Whether `python` has the package in the pinned version; another version is said and not taken.
    fn works(&self, python: &std::path::Path) -> bool {
        let wanted = self.requirements[0].rsplit("==").next().unwrap_or_default();
        let version = format!(
            "import importlib.metadata as m, importlib.util as u; assert u.find_spec('{}'); print(m.version('{}'))",
            self.module, self.name
        );
        let Ok(output) = Command::new(python).args(["-c", &version]).stdin(Stdio::null()).stderr(Stdio::null()).output() else {
            return false;
        };
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && found != wanted {
            eprintln!("`{}` has {} {found} instead of {wanted}; it is not taken", python.display(), self.name);
        }
        output.status.success() && found == wanted
    }

    /// The packages and versions, for a table's caption.
    pub fn versions(&self) -> String {
        self.requirements.join(", ").replace("==", " ")
    }
}
