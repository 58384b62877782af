//! What a binary must not hold.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64},
    read::elf::{FileHeader as _, Sym as _},
};

use super::Architecture;

/// The glibc of Amazon Linux 2023, which `provided.al2023` is: <https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html>.
const GLIBC: Version = Version(2, 34);

/// A version of glibc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// Of a symbol's version such as `GLIBC_2.2.5`.
    fn of_symbol(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

/// What a binary needs of the system.
#[derive(Debug, PartialEq, Eq)]
pub struct Needs {
    /// The newest version of glibc that one of its symbols needs, such as `GLIBC_2.34`; none for a static binary.
    pub glibc: Option<String>,
}

/// Looks through a binary.
///
/// # Errors
/// When it is for another architecture than `architecture`, needs a glibc that Amazon Linux 2023 does not have, or
/// holds one of `paths`, which are of this machine.
pub fn inspect<'a>(
    binary: &[u8],
    architecture: Architecture,
    paths: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(binary).context("not a 64-bit ELF binary")?;
    let endian = header.endian()?;
    let machine = match architecture {
        Architecture::Arm64 => EM_AARCH64,
        Architecture::X86_64 => EM_X86_64,
    };
    ensure!(header.e_machine(endian) == machine, "not a binary for {architecture}");
    for path in paths {
        let path = path.to_str().context("a path of this machine is not UTF-8")?;
        ensure!(
            memchr::memmem::find(binary, path.as_bytes()).is_none(),
            "it holds the path {path} of this machine: something that compiles it does not take \
             `--remap-path-prefix` or `-ffile-prefix-map`"
        );
    }
    let newest = symbols(binary, header, endian)?.into_iter().max();
    let Some((version, name, symbol)) = newest else { return Ok(Needs { glibc: None }) };
    if version > GLIBC {
        bail!(
            "the symbol `{symbol}` needs {name}, and Amazon Linux 2023 has glibc {}.{}: package with `--zig`, which \
             links against that version whatever this machine has, or on Amazon Linux 2023 or Debian 12",
            GLIBC.0,
            GLIBC.1
        );
    }
    Ok(Needs { glibc: Some(name) })
}

/// The symbols that a binary takes from glibc, each with the version that it needs, in numbers and as it is written.
fn symbols(
    binary: &[u8],
    header: &FileHeader64<Endianness>,
    endian: Endianness,
) -> anyhow::Result<Vec<(Version, String, String)>> {
    let sections = header.sections(endian, binary)?;
    let Some(versions) = sections.versions(endian, binary)? else { return Ok(Vec::new()) };
    let table = sections.symbols(endian, binary, object::elf::SHT_DYNSYM)?;
    let mut found = Vec::new();
    for (index, symbol) in table.enumerate() {
        let version = versions.version_index(endian, index);
        if !symbol.is_undefined(endian) || version.is_local() || version.is_global() {
            continue;
        }
        let Some(needed) = versions.version(version.into())? else { continue };
        let name = String::from_utf8_lossy(needed.name()).into_owned();
        if let Some(version) = Version::of_symbol(&name) {
            let symbol = symbol.name(endian, table.strings())?;
            found.push((version, name, String::from_utf8_lossy(symbol).into_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |name| Version::of_symbol(name).unwrap();
        assert!(version("GLIBC_2.4") < version("GLIBC_2.34"));
        assert!(
            version("GLIBC_2.2.5") < GLIBC && version("GLIBC_2.34") == GLIBC && version("GLIBC_2.38") > GLIBC
        );
        assert_eq!((Version::of_symbol("GCC_3.0"), Version::of_symbol("GLIBC_PRIVATE")), (None, None));
    }
}
