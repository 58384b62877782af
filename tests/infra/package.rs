//! `streamer package`.

use std::{collections::BTreeMap, env, fs, path::Path};

use streamer_cli::{
    package::{
        Architecture,
        archive::{Compression, archive},
        build::Release,
        inspect::inspect,
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

#[tokio::test]
async fn a_panic_in_a_packaged_handler_is_reported_and_the_process_lives_on() -> anyhow::Result<()> {
    let binary = if full() {
        // Left to itself, cargo-lambda builds what a panic ends.
        let release = Release::prepare(Architecture::HERE, has_cargo_lambda()).await?;
        fs::read(&release.compile(&[PANICKING]).await?[0].path)?
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
async fn a_package_that_does_not_start_is_refused_with_what_it_said() -> anyhow::Result<()> {
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
async fn a_binary_of_another_architecture_or_with_a_path_of_this_machine_is_refused() -> anyhow::Result<()> {
    // A debug build holds the paths of what it was built from.
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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_binary_that_needs_a_newer_glibc_is_refused_with_the_symbol_and_the_remedy() -> anyhow::Result<()> {
    let mut binary = fs::read(build::build().await?.path("delivery-worker")?)?;
    // The same binary, were it built on a newer system.
    let names: Vec<_> = memchr::memmem::find_iter(&binary, b"\0GLIBC_2.34\0").collect();
    assert!(!names.is_empty());
    names.into_iter().for_each(|place| binary[place + 9..place + 11].copy_from_slice(b"99"));
    let error = inspect(&binary, Architecture::HERE, []).unwrap_err().to_string();
    assert!(error.starts_with("the symbol `") && error.contains("needs GLIBC_2.99"), "{error}");
    assert!(error.contains("package with `--zig`"), "{error}");
    Ok(())
}

#[test]
fn a_package_holds_no_time_and_its_binary_is_executable() -> anyhow::Result<()> {
    let zip = archive(b"binary", Compression::Best)?;
    // Of a zip's local header: the beginning of its calendar.
    assert_eq!(zip[10..14], [0, 0, 0x21, 0]);
    // Of its central directory: made on Unix, and a file's mode.
    let entry = memchr::memmem::find(&zip, b"PK\x01\x02").unwrap();
    assert_eq!(zip[entry + 5], 3);
    assert_eq!(u16::from_le_bytes([zip[entry + 40], zip[entry + 41]]) & 0o777, 0o755);
    assert!(zip == archive(b"binary", Compression::Best)?);
    Ok(())
}

#[tokio::test]
async fn what_is_not_installed_is_said_with_the_remedy() -> anyhow::Result<()> {
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
