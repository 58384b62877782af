//! Tests of `streamer package`.

use std::{collections::BTreeMap, env, fs, path::Path};

use streamer_cli::{
    package::{
        Architecture,
        archive::{Compression, archive},
        build::Release,
        inspect::inspect,
        project::{Project, Target},
        runtime_api::Answer,
        start,
    },
    paths,
    stack::build,
};
use streamer_tests::{command::Streamer, full};

const PANICKING: &str = "streamer-panicking";

fn has_cargo_lambda() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("cargo-lambda").exists())
}

/// A panic in a packaged handler is reported to Lambda, and the process handles the next invocation.
#[tokio::test]
async fn process_survives_panic_in_handler() -> anyhow::Result<()> {
    let binary = if full() {
        // By default, cargo-lambda builds with `panic = "abort"`.
        let release = Release::prepare(Project::streamer(), Architecture::HERE, has_cargo_lambda()).await?;
        fs::read(&release.compile(&[Target::binary(PANICKING)], |_| {}).await?[0].path)?
    } else {
        fs::read(build::build().await?.path(PANICKING)?)?
    };
    let zip = archive(&binary, Compression::Best)?;
    let folder = paths::shared(format!("tests/panicking-{}", std::process::id()));
    let mut started = start::start(&zip, &folder, &[], &BTreeMap::new()).await?;
    let Answer::Error(error) = started.api.invoke("\"panic\"").await? else { panic!("no error") };
    assert!(error.contains("asked to"), "{error}");
    started.api.poll().await?;
    assert_eq!(started.api.invoke("\"after\"").await?, Answer::Response("\"after\"".to_owned()));
    drop(started);
    Ok(fs::remove_dir_all(folder)?)
}

#[tokio::test]
async fn start_failure_includes_process_output() -> anyhow::Result<()> {
    let binary = fs::read(build::build().await?.path("delivery-worker")?)?;
    let folder = paths::shared(format!("tests/unconfigured-{}", std::process::id()));
    let zip = archive(&binary, Compression::Fast)?;
    let error = start::start(&zip, &folder, &[], &BTreeMap::new()).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("QUEUE_URL is missing")
            && error.contains("the process ended before its first request"),
        "{error}"
    );
    Ok(fs::remove_dir_all(folder)?)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn rejects_other_architecture_and_build_paths() -> anyhow::Result<()> {
    // A debug build contains the paths of its sources.
    let binary = fs::read(build::build().await?.path("delivery-worker")?)?;
    let other = match Architecture::HERE {
        Architecture::Arm64 => Architecture::X86_64,
        Architecture::X86_64 => Architecture::Arm64,
    };
    let error = inspect(&binary, other, []).unwrap_err().to_string();
    assert_eq!(error, format!("not a binary for {other}"));
    let error = inspect(&binary, Architecture::HERE, [paths::workspace()]).unwrap_err().to_string();
    assert!(error.contains(&paths::workspace().display().to_string()), "{error}");
    if let Err(error) = inspect(&binary, Architecture::HERE, [Path::new("/nowhere/at/all")]) {
        assert!(
            error.to_string().contains("package with `--zig`"),
            "this machine's glibc may be newer: {error}"
        );
    }
    Ok(())
}

/// The error names the symbol that needs a newer glibc, and the remedy.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn rejects_binary_for_newer_glibc() -> anyhow::Result<()> {
    let mut binary = fs::read(build::build().await?.path("delivery-worker")?)?;
    // Makes the binary look like one built on a newer system.
    let names: Vec<_> = memchr::memmem::find_iter(&binary, b"\0GLIBC_2.34\0").collect();
    assert!(!names.is_empty());
    names.into_iter().for_each(|offset| binary[offset + 9..offset + 11].copy_from_slice(b"99"));
    let error = inspect(&binary, Architecture::HERE, []).unwrap_err().to_string();
    assert!(error.starts_with("the symbol `") && error.contains("needs GLIBC_2.99"), "{error}");
    assert!(error.contains("package with `--zig`"), "{error}");
    Ok(())
}

/// A package contains no timestamp, and its binary is executable.
#[test]
fn zip_is_reproducible_and_executable() -> anyhow::Result<()> {
    let zip = archive(b"binary", Compression::Best)?;
    // Time and date in the zip's local header: the earliest, 1980-01-01.
    assert_eq!(zip[10..14], [0, 0, 0x21, 0]);
    // Creator (Unix) and file mode in the central directory.
    let entry = memchr::memmem::find(&zip, b"PK\x01\x02").unwrap();
    assert_eq!(zip[entry + 5], 3);
    assert_eq!(u16::from_le_bytes([zip[entry + 40], zip[entry + 41]]) & 0o777, 0o755);
    assert!(zip == archive(b"binary", Compression::Best)?);
    Ok(())
}

#[tokio::test]
async fn missing_tools_are_reported_with_remedy() -> anyhow::Result<()> {
    let streamer = Streamer::new("package-missing").await?;
    let other = if Architecture::HERE == Architecture::Arm64 { "x86_64" } else { "arm64" };
    let quick = streamer.run(["package", "--quick", "--arch", other]).await?;
    assert!(!quick.success && quick.err.contains("`--quick` packages for this machine"), "{quick:?}");
    if !has_cargo_lambda() {
        let zig = streamer.run(["package", "--zig", "--arch", &Architecture::HERE.to_string()]).await?;
        assert!(!zig.success && zig.err.contains("pip install cargo-lambda"), "{zig:?}");
    }
    Ok(())
}
