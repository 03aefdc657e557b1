//! JSON Lines: one JSON value a line, UTF-8. Errors name the file, the line and the field.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads every non-blank line of `path` as a `T`.
///
/// # Errors
/// The file cannot be read, a line is not UTF-8, or a line is not a `T`; the message is `FILE:LINE: FIELD: cause`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    Ok(numbered(path, &path.display().to_string())?.into_iter().map(|(_, row)| row).collect())
}

/// As [`read`], with the number of each line; messages call the file `name`.
///
/// # Errors
/// Those of [`read`].
pub fn numbered<T: DeserializeOwned>(path: &Path, name: &str) -> Result<Vec<(usize, T)>> {
    let file = File::open(path).with_context(|| format!("failed to open {name}"))?;
    let mut reader = BufReader::new(file);
    let mut rows = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(|| format!("failed to read {name}"))? == 0 {
            break;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            bail!("{name}:{number}: the line is not UTF-8; save the file as UTF-8");
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        if !text.is_empty() {
            // The parser's line number counts within the line.
            let row = parse(text).map_err(|e| anyhow!("{}", format!("{e:#}").replace(" at line 1 column ", " at column ")));
            rows.push((number, row.with_context(|| format!("{name}:{number}"))?));
        }
    }
    Ok(rows)
}

/// Parses one JSON text; the error names the field's path inside it.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    let mut de = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut de).map_err(|e| match e.path().to_string().as_str() {
        "." => anyhow::anyhow!("{}", e.inner()),
        field => anyhow::anyhow!("field `{field}`: {}", e.inner()),
    })?;
    de.end().context("text after the end of the JSON value")?;
    Ok(value)
}

/// Writes `rows` to `path`, one a line.
///
/// # Errors
/// The file cannot be written.
pub fn write<T: Serialize>(path: &Path, rows: impl IntoIterator<Item = T>) -> Result<()> {
    let lines = || -> std::io::Result<()> {
        let mut writer = BufWriter::new(File::create(path)?);
        for row in rows {
            serde_json::to_writer(&mut writer, &row)?;
            writer.write_all(b"\n")?;
        }
        writer.flush()
    };
    lines().with_context(|| format!("failed to write {}", path.display()))
}
