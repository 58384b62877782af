//! Rejects binaries that would not run on Amazon Linux 2023 or on this machine, or that hold a path of this machine.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use object::{
    Endianness, FileKind,
    elf::{EM_AARCH64, EM_X86_64, FileHeader64},
    macho::{CPU_TYPE_ARM64, CPU_TYPE_X86_64, MachHeader64},
    read::{
        elf::{FileHeader as _, Sym as _},
        macho::MachHeader as _,
    },
};

use super::Architecture;

/// The glibc of Amazon Linux 2023, on which `provided.al2023` is based.
///
/// Source: <https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html>.
const GLIBC: Version = Version(2, 34);

/// A version of glibc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    /// Parses a symbol's version such as `GLIBC_2.2.5`.
    fn from_symbol(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(|number| number.parse().ok());
        Some(Self(numbers.next()??, numbers.next()??))
    }
}

/// A binary's requirements of the system.
#[derive(Debug, PartialEq, Eq)]
pub struct Requirements {
    /// The newest version of glibc that one of its symbols needs, such as `GLIBC_2.34`. `None` for a static binary.
    pub glibc: Option<String>,
}

/// Checks a binary and returns its requirements.
///
/// # Errors
/// When it is not for `architecture`, needs a newer glibc than Amazon Linux 2023 has, or holds one of this machine's
/// `paths`.
pub fn inspect<'a>(
    binary: &[u8],
    architecture: Architecture,
    paths: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<Requirements> {
    let header = FileHeader64::<Endianness>::parse(binary).context("not a 64-bit ELF binary")?;
    let endian = header.endian()?;
    let machine = match architecture {
        Architecture::Arm64 => EM_AARCH64,
        Architecture::X86_64 => EM_X86_64,
    };
    ensure!(header.e_machine(endian) == machine, "not a binary for {architecture}");
    for path in paths {
        let path =
            path.to_str().with_context(|| format!("the path {} is not UTF-8: move it", path.display()))?;
        ensure!(
            !contains_path(binary, path),
            "the binary holds the path {path} of this machine: one of its compilers ignores `--remap-path-prefix` or \
             `-ffile-prefix-map`"
        );
    }
    if let Some(feature) = loader_features(binary, header, endian)?.pop() {
        bail!(
            "the binary needs the loader feature {feature}, which Amazon Linux 2023 does not have: package with `--zig`"
        );
    }
    let newest = glibc_symbols(binary, header, endian)?.into_iter().max();
    let Some((version, name, symbol)) = newest else { return Ok(Requirements { glibc: None }) };
    if version > GLIBC {
        bail!(
            "the symbol `{symbol}` needs {name}, and Amazon Linux 2023 has glibc {}.{}: package with `--zig`, which \
             always links against that version, or package on Amazon Linux 2023 or Debian 12",
            GLIBC.0,
            GLIBC.1
        );
    }
    Ok(Requirements { glibc: Some(name) })
}

/// Checks that this machine can run a program, as an emulator does with a function's: a program for its system and
/// architecture, or a script that names its interpreter.
///
/// # Errors
/// When it cannot. The error is the reason.
pub fn runs_here(program: &[u8]) -> anyhow::Result<()> {
    runs_on(program, Architecture::HERE, cfg!(target_os = "macos"))
}

fn runs_on(program: &[u8], architecture: Architecture, macos: bool) -> anyhow::Result<()> {
    if program.starts_with(b"#!") {
        return Ok(());
    }
    ensure!(!program.is_empty(), "the file is empty");
    let (system, machine) = match FileKind::parse(program) {
        Ok(FileKind::Elf64) => {
            let header = FileHeader64::<Endianness>::parse(program)?;
            let endian = header.endian()?;
            ensure!(header.e_entry(endian) != 0, "the file is a library or an object file");
            let machine = match header.e_machine(endian) {
                EM_AARCH64 => Some(Architecture::Arm64),
                EM_X86_64 => Some(Architecture::X86_64),
                _ => None,
            };
            ("Linux", machine)
        }
        Ok(FileKind::MachO64) => {
            let header = MachHeader64::<Endianness>::parse(program, 0)?;
            let machine = match header.cputype(header.endian()?) {
                CPU_TYPE_ARM64 => Some(Architecture::Arm64),
                CPU_TYPE_X86_64 => Some(Architecture::X86_64),
                _ => None,
            };
            ("macOS", machine)
        }
        // It holds programs for several architectures.
        Ok(FileKind::MachOFat32 | FileKind::MachOFat64) => ("macOS", Some(architecture)),
        Ok(FileKind::Elf32 | FileKind::MachO32) => bail!("the file is a 32-bit program"),
        _ => bail!("the file is neither a program nor a script that starts with `#!`"),
    };
    let here = if macos { "macOS" } else { "Linux" };
    ensure!(system == here, "the file is a program for {system}, and this machine has {here}");
    match machine {
        Some(machine) => ensure!(
            machine == architecture,
            "the file is a program for {machine}, and this machine has {architecture}"
        ),
        None => bail!("the file is a program for another architecture than {architecture}"),
    }
    Ok(())
}

/// Returns whether `binary` holds `path`, rather than a longer path that ends with it or a name that starts with it.
fn contains_path(binary: &[u8], path: &str) -> bool {
    let path = path.trim_end_matches('/').as_bytes();
    let is_path_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let positions = (!path.is_empty()).then(|| memchr::memmem::find_iter(binary, path));
    positions.into_iter().flatten().any(|position| {
        let before = position.checked_sub(1).map(|before| binary[before]);
        let after = binary.get(position + path.len()).copied();
        before.is_none_or(|byte| !is_path_byte(byte))
            && after.is_none_or(|byte| byte == b'/' || !is_path_byte(byte))
    })
}

/// Returns the features of the loader that a binary needs, such as `GLIBC_ABI_DT_RELR`. No symbol has such a version.
fn loader_features(
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

/// Returns each glibc symbol that a binary imports, as the version it needs, that version's name, and the symbol's
/// name.
fn glibc_symbols(
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
        if let Some(version) = Version::from_symbol(&name) {
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
    fn only_whole_paths_are_found() {
        let contains = |text: &str| contains_path(text.as_bytes(), "/src");
        assert!(contains("/src/main.rs") && contains("panicked at /src/main.rs") && contains("\0/src/x"));
        assert!(contains("/src\0") && contains("/src"));
        assert!(!contains("/registry/tokio-1.5/src/lib.rs") && !contains("/src.rs") && !contains("/srcs/"));
        assert!(!contains_path(b"/anything/", "") && contains_path(b"/home/me/x", "/home/me/"));
    }

    /// Returns the header of a program: its magic, and its fields as offsets and values.
    fn program<const N: usize>(magic: &[u8], fields: [(usize, u32); N]) -> Vec<u8> {
        let mut header = vec![0; 64];
        header[..magic.len()].copy_from_slice(magic);
        for (offset, value) in fields {
            header[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        header
    }

    #[test]
    fn only_programs_for_this_machine_run() {
        const ELF: &[u8] = b"\x7fELF\x02\x01\x01";
        const MACH_O: &[u8] = b"\xcf\xfa\xed\xfe";
        let elf = |machine: u16, entry| program(ELF, [(18, u32::from(machine)), (20, 1), (24, entry)]);
        let (arm, intel) = (elf(EM_AARCH64.0, 1), elf(EM_X86_64.0, 1));
        let mach_o = program(MACH_O, [(4, CPU_TYPE_ARM64.0)]);
        let error = |program: &[u8], macos| match runs_on(program, Architecture::Arm64, macos) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!([error(&arm, false), error(&mach_o, true), error(b"#!/bin/sh\n", false)], ["", "", ""]);
        assert_eq!(error(&intel, false), "the file is a program for x86_64, and this machine has arm64");
        assert_eq!(error(&arm, true), "the file is a program for Linux, and this machine has macOS");
        assert_eq!(error(&mach_o, false), "the file is a program for macOS, and this machine has Linux");
        assert_eq!(error(&elf(EM_AARCH64.0, 0), false), "the file is a library or an object file");
        assert_eq!(error(b"", false), "the file is empty");
        let text = "the file is neither a program nor a script that starts with `#!`";
        assert_eq!([error(b"# Streamer", false), error(&[0; 64], false)], [text, text]);
    }

    #[test]
    fn versions_compare_as_numbers() {
        let version = |name| Version::from_symbol(name).unwrap();
        assert!(version("GLIBC_2.4") < version("GLIBC_2.34"));
        assert!(
            version("GLIBC_2.2.5") < GLIBC && version("GLIBC_2.34") == GLIBC && version("GLIBC_2.38") > GLIBC
        );
        assert_eq!((Version::from_symbol("GCC_3.0"), Version::from_symbol("GLIBC_PRIVATE")), (None, None));
    }
}
