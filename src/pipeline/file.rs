//! Reading YAML files: bounded, and with errors that help.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::problem::{Problem, Problems, Source, Span};
use super::words;

/// Bytes of a file.
const LARGEST: usize = 32 << 20;

/// Why a file cannot be read.
pub(super) enum Unreadable {
    /// The file as a whole: what is wrong, and a help.
    Whole(String, Option<String>),
    /// The text with U+FFFD for what is no UTF-8, the byte where the first one stands, and what is wrong.
    NotUtf8(String, usize, String),
}

/// The text of a file; `what` is the plural of what it should be, and `shown` its name in messages.
pub(super) fn read(file: &Path, shown: &str, what: &str) -> Result<String, Unreadable> {
    let bytes = bytes(file, shown, what).map_err(|(message, help)| Unreadable::Whole(message, help))?;
    if bytes.len() > LARGEST {
        let message = format!("`{shown}` is larger than the {} MiB that such a file may have", LARGEST >> 20);
        return Err(Unreadable::Whole(message, Some("is it the right file?".to_owned())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        let message = format!("`{shown}` is not UTF-8: byte 0x{byte:02X} at offset {at}");
        Unreadable::NotUtf8(String::from_utf8_lossy(error.as_bytes()).into_owned(), at, message)
    })
}

/// Reports a text that is no UTF-8, as a source of its own.
pub(super) fn not_utf8(shown: &str, lossy: &str, at: usize, message: &str, problems: &mut Problems) {
    let source = problems.add(Source::new(shown, lossy));
    // The replacement character stands where the valid text ends.
    let span = Span { source, start: at, end: at + '\u{fffd}'.len_utf8() };
    problems.push(Problem::at(span, message).help("save the file as UTF-8".to_owned()));
}

/// At most one byte more than a file may have; or what is wrong and a help.
fn bytes(file: &Path, shown: &str, what: &str) -> Result<Vec<u8>, (String, Option<String>)> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => (format!("there is no file `{shown}`"), similar(file, what)),
        _ => (format!("`{shown}` cannot be read: {error}"), None),
    };
    if file.is_dir() {
        return Err((format!("`{shown}` is a folder"), similar(&file.join("pipeline.yaml"), what)));
    }
    let mut bytes = Vec::new();
    let limit = LARGEST as u64 + 1;
    File::open(file).and_then(|f| f.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}

/// Names the file in the same folder that may have been meant.
fn similar(file: &Path, what: &str) -> Option<String> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).filter(|n| is_yaml(n)).collect();
    names.sort();
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let wrong = file.file_name()?.to_string_lossy().into_owned();
    (!words.is_empty()).then(|| words::did_you_mean(&wrong, &format!("{what} in `{}`", folder.display()), &words))
}

/// Whether a file has a name of YAML.
pub(super) fn is_yaml(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|e| e == "yaml" || e == "yml")
}
