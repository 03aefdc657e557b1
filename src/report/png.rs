//! PNG files with a resolution.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use plotters::backend::{BitMapBackend, DrawingBackend};

/// 150 dots an inch, in dots a metre.
const DOTS_A_METRE: u32 = 5906;

/// Writes RGB pixels. The encoder states no resolution, so the chunk that does (`pHYs`, PNG specification 11.3.4.3) is put in after
/// the header.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, size: (u32, u32), pixels: &[u8]) -> Result<()> {
    let fail = || format!("failed to write {}", path.display());
    let mut backend = BitMapBackend::new(path, size);
    let drawn = backend.blit_bitmap((0, 0), size, pixels).and_then(|()| backend.present());
    drawn.map_err(|e| anyhow!("{}: {e}", fail()))?;
    drop(backend);
    let mut bytes = std::fs::read(path).with_context(fail)?;
    // Signature (8 bytes) and header: length, type, 13 bytes of data, checksum.
    let after_header = 8 + 4 + 4 + 13 + 4;
    ensure!(bytes.len() > after_header && bytes[12..16] == *b"IHDR", "{}: the encoder made no PNG", fail());
    bytes.splice(after_header..after_header, resolution());
    std::fs::write(path, bytes).with_context(fail)
}

fn resolution() -> Vec<u8> {
    let mut chunk = b"pHYs".to_vec();
    chunk.extend(DOTS_A_METRE.to_be_bytes());
    chunk.extend(DOTS_A_METRE.to_be_bytes());
    chunk.push(1); // the unit is the metre
    let length = (chunk.len() - 4) as u32;
    let checksum = crc32(&chunk);
    [&length.to_be_bytes()[..], &chunk, &checksum.to_be_bytes()].concat()
}

/// The checksum of chunks (PNG specification, annex D).
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_states_its_resolution() {
        // The check value of CRC-32.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        write(&path, (2, 1), &[255, 0, 0, 0, 0, 255]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(
            &bytes[33..54],
            [&[0, 0, 0, 9][..], b"pHYs", &[0, 0, 23, 18, 0, 0, 23, 18, 1], &crc32(&bytes[37..50]).to_be_bytes()].concat()
        );
        assert!(write(&folder.path().join("no/a.png"), (2, 1), &[0; 6]).is_err());
    }
}
