//! The zip that Lambda's `provided` runtimes run.

use std::io::{Cursor, Write as _};

use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// Trade-off between the time that compression takes and the size of the zip.
#[derive(Debug, Clone, Copy)]
pub enum Compression {
    /// Fast, for a zip that is unpacked on this machine right away.
    Fast,
    /// The smallest zip.
    Best,
}

/// Builds a zip with the executable file `bootstrap`. It holds no time and no owner, so that the same binary gives the
/// same zip.
///
/// # Errors
/// When the binary is too large for a zip.
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
