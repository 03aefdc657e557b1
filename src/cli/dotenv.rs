//! The file `.env`, in which keys of language models may lie.

use super::print::{self, Style, Tone};

/// What a file that comes with somebody's pipeline must not set: variables that choose which code is loaded, from where packages come, and
/// what pipelines may read. Each is a name or, with `_` at its end, the beginning of names.
const NOT_FROM_A_FILE: &[&str] = &[
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "LOCALAPPDATA",
    "RETUNE_ALLOW",
    "RETUNE_CACHE",
    "CUDA_HOME",
    "CUDA_PATH",
    "CONDA_PREFIX",
    "VIRTUAL_ENV",
    "LD_",
    "DYLD_",
    "ORT_",
    "PYTHON_",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PIP_",
    "UV_",
];

/// Takes the variables of the nearest `.env` into the environment; what the environment has already wins.
pub(super) fn read(style: Style) {
    let warn = |message: &str| eprintln!("{} {message}", print::paint("warning:", Tone::Warn, style.stderr));
    let entries = match dotenvy::dotenv_iter() {
        Ok(entries) => entries,
        Err(error) if error.not_found() => return,
        Err(error) => return warn(&format!("the file `.env` cannot be read: {error}")),
    };
    let mut kept = String::new();
    for entry in entries {
        match entry {
            Ok((name, _)) if is_guarded(&name) => {
                warn(&format!("`{name}` in the file `.env` is not used; set it in the environment itself"))
            }
            Ok((name, value)) => kept += &written(&name, &value),
            // The error may quote the line, and so a key.
            Err(_) => {
                warn("the file `.env` cannot be read to its end; write one `NAME=value` a line");
                break;
            }
        }
    }
    let _ = dotenvy::from_read(kept.as_bytes());
}

fn is_guarded(name: &str) -> bool {
    NOT_FROM_A_FILE.iter().any(|guarded| if guarded.ends_with('_') { name.starts_with(guarded) } else { name == *guarded })
}

/// A line that means this value, whatever is in it.
fn written(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\n', "\\n");
    format!("{name}=\"{value}\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chooses_code_does_not_come_from_a_file() {
        for name in
            ["PATH", "LD_PRELOAD", "ORT_DYLIB_PATH", "RETUNE_ALLOW", "PIP_INDEX_URL", "PYTHONPATH", "RETUNE_CACHE", "CUDA_HOME"]
        {
            assert!(is_guarded(name), "{name}");
        }
        for name in ["OPENAI_API_KEY", "PATHS", "RETUNE_REMOTE", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "CUDA_VISIBLE_DEVICES"] {
            assert!(!is_guarded(name), "{name}");
        }
    }

    #[test]
    fn a_value_is_written_so_that_it_is_read_again() {
        for value in ["", "sk-1", "a b", "'\"'", "\\n$HOME${X}", "line\nline", "#x", "ü = 1"] {
            let text = written("A", value);
            let read: Vec<(String, String)> = dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
            assert_eq!(read, [("A".to_owned(), value.to_owned())], "{text}");
        }
    }
}
