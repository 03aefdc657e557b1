//! PDF: the text layer of all pages.

use anyhow::{Context, Result, anyhow};

use super::{Record, Source};
use crate::text::quiet::quietly;

/// Bytes of stack for the parser, which recurses over the objects of a file.
const STACK: usize = 64 << 20;

/// One document for the whole file. A file of scanned pages has no text.
pub fn read(source: &Source) -> Result<Vec<Record>> {
    let work = || quietly(|| pdf_extract::extract_text_from_mem(source.bytes).map_err(|e| e.to_string())).flatten();
    let text = std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        parser.context("no thread could be started")?.join().map_err(|_| anyhow!("the parser failed"))
    })?;
    let text = text.map_err(|e| anyhow!("the file is not a PDF that can be read ({e}); repair or convert it"))?;
    Ok(vec![Record { text, ..Record::default() }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::read::Fields;

    /// A file with one page that says `words`.
    fn page(words: &str) -> Vec<u8> {
        let stream = format!("BT /F1 12 Tf 72 720 Td ({words}) Tj ET");
        let objects = [
            "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>"
                .to_owned(),
            format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()),
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        ];
        let mut file = "%PDF-1.4\n".to_owned();
        let mut table = "xref\n0 6\n0000000000 65535 f \n".to_owned();
        for (i, object) in objects.iter().enumerate() {
            table += &format!("{:010} 00000 n \n", file.len());
            file += &format!("{} 0 obj\n{object}\nendobj\n", i + 1);
        }
        let start = file.len();
        (file + &table + &format!("trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n")).into_bytes()
    }

    #[test]
    fn the_text_of_a_page_is_read() {
        let records = read(&Source { bytes: &page("Hello retrieval"), fields: &Fields::default() }).unwrap();
        assert_eq!(records.iter().map(|r| r.text.trim()).collect::<Vec<_>>(), ["Hello retrieval"]);
    }

    #[test]
    fn broken_files_are_errors() {
        let whole = page("Hello");
        for bytes in [&b""[..], b"no pdf", &whole[..200], &whole[..whole.len() - 40]] {
            let error = read(&Source { bytes, fields: &Fields::default() }).unwrap_err().to_string();
            assert!(error.starts_with("the file is not a PDF that can be read ("), "{error}");
        }
    }
}
