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
            !holds_path(binary, path),
            "it holds the path {path} of this machine: something that compiles it does not take \
             `--remap-path-prefix` or `-ffile-prefix-map`"
        );
    }
    if let Some(feature) = features(binary, header, endian)?.pop() {
        bail!(
            "it needs a loader that knows {feature}, and Amazon Linux 2023's does not: package with `--zig`"
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

/// Whether a path stands there: not the end of another one, and not the beginning of another name.
fn holds_path(binary: &[u8], path: &str) -> bool {
    let path = path.trim_end_matches('/').as_bytes();
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let places = (!path.is_empty()).then(|| memchr::memmem::find_iter(binary, path));
    places.into_iter().flatten().any(|place| {
        let before = place.checked_sub(1).map(|place| binary[place]);
        let after = binary.get(place + path.len()).copied();
        before.is_none_or(|byte| !in_path(byte)) && after.is_none_or(|byte| byte == b'/' || !in_path(byte))
    })
}

/// What a binary needs of the loader itself, under names such as `GLIBC_ABI_DT_RELR`. No symbol has them.
fn features(
    binary: &[u8],
    header: &FileHeader64<Endianness>,
    endian: Endianness,
) -> anyhow::Result<Vec<String>> {
    let sections = header.sections(endian, binary)?;
    let Some((mut needs, strings)) = sections.gnu_verneed(endian, binary)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, binary, strings)?;
    let mut features = Vec::new();
    while let Some((_, mut versions)) = needs.next()? {
        while let Some(version) = versions.next()? {
            let name = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
            if name.starts_with("GLIBC_ABI_") {
                features.push(name);
            }
        }
    }
    Ok(features)
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
    fn a_path_is_one_from_its_beginning_to_the_end_of_a_name() {
        let holds = |text: &str| holds_path(text.as_bytes(), "/src");
        assert!(holds("/src/main.rs") && holds("panicked at /src/main.rs") && holds("\0/src/x"));
        assert!(holds("/src\0") && holds("/src"));
        assert!(holds("/src\0") && holds("/src"));
        assert!(!holds("/registry/tokio-1.5/src/lib.rs") && !holds("/src.rs") && !holds("/srcs/"));
        assert!(!holds_path(b"/anything/", "") && holds_path(b"/home/me/x", "/home/me/"));
    }

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
