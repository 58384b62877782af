//! The zip that Lambda's `provided` runtimes take.

use std::io::{Cursor, Write as _};

use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// How much time compression may take.
#[derive(Debug, Clone, Copy)]
pub enum Compression {
    /// Little: it is unpacked again in a moment, on this machine.
    Fast,
    /// As much as it needs.
    Best,
}

/// A zip of the executable file `bootstrap`. The same binary makes the same zip: it holds no time and no owner.
///
/// # Errors
/// When the binary is larger than a zip takes.
pub fn archive(binary: &[u8], compression: Compression) -> anyhow::Result<Vec<u8>> {
    let level = match compression {
        Compression::Fast => 1,
        Compression::Best => 9,
    };
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(level))
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o755);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", options)?;
    zip.write_all(binary)?;
    Ok(zip.finish()?.into_inner())
}
