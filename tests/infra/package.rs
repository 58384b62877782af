//! Tests of `streamer package`.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

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
use streamer_tests::{
    command::{Streamer, output, printed, signal},
    eventually, full,
};
use sysinfo::{Pid, ProcessesToUpdate, Signal, System};

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

/// A router that requests an invocation, if its variables are there. It has no dependency, so that it compiles at once.
const ROUTER: &str = r#"
use std::{env, io::{Read, Write}, net::TcpStream};

fn main() {
    for name in ["QUEUE_URL", "GREETING"] {
        assert!(env::var(name).is_ok(), "{name} is missing");
    }
    let mut api = TcpStream::connect(env::var("AWS_LAMBDA_RUNTIME_API").unwrap()).unwrap();
    api.write_all(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n").unwrap();
    api.read_to_end(&mut Vec::new()).unwrap();
}
"#;

/// Creates a package outside of Streamer's workspace, with a router and another binary.
fn create_router(name: &str) -> anyhow::Result<PathBuf> {
    let folder = env::temp_dir().join(format!("streamer-{name}-{}", std::process::id()));
    fs::create_dir_all(folder.join("src/bin"))?;
    let manifest = "[package]\nname = \"my-router\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::write(folder.join("src/bin/my-router.rs"), ROUTER)?;
    fs::write(folder.join("src/bin/other.rs"), "fn main() {}")?;
    let toolchain = "rust-toolchain.toml";
    fs::copy(paths::workspace().join(toolchain), folder.join(toolchain))?;
    Ok(folder)
}

/// A router's package has its own workspace, target folder and lock file. Its zip does not depend on its folder.
#[tokio::test]
async fn router_of_another_workspace_is_packaged() -> anyhow::Result<()> {
    let (streamer, arch) = (Streamer::new("package-router").await?, Architecture::HERE.to_string());
    let mut zips = Vec::new();
    for name in ["one", "other"] {
        let folder = create_router(name)?;
        let (path, output) = (folder.to_str().unwrap(), folder.join("zips"));
        let arguments =
            ["package", "--router", path, "--arch", &arch, "--output", output.to_str().unwrap(), "--bin"];
        let packaged =
            streamer.run_all(arguments.into_iter().chain(["my-router", "--env", "GREETING=hello"])).await?;
        let too_new = packaged.err.contains("package with `--zig`");
        assert!(packaged.success || too_new, "this machine's glibc may be newer: {packaged:?}");
        if packaged.success {
            assert!(packaged.out.contains("router my-router for ") && packaged.out.contains("starts in "));
            zips.push(fs::read(output.join("router.zip"))?);
        }
        assert!(folder.join("target/package").exists() && folder.join("Cargo.lock").exists());
        fs::remove_dir_all(folder)?;
    }
    assert!(zips.windows(2).all(|pair| pair[0] == pair[1]), "the folder changed the zip");
    Ok(())
}

/// Each refusal says what to do, and leaves no zip behind.
#[tokio::test]
async fn unsuitable_router_is_refused_with_remedy() -> anyhow::Result<()> {
    let (streamer, arch) = (Streamer::new("package-refused").await?, Architecture::HERE.to_string());
    let folder = create_router("refused")?;
    let package = async |path: &Path, more: &[&str]| {
        let (path, output) = (path.to_str().unwrap(), folder.join("zips"));
        let arguments = ["package", "--quick", "--arch", &arch, "--output", output.to_str().unwrap()];
        let refused = streamer
            .run_all(arguments.into_iter().chain(["--router", path]).chain(more.iter().copied()))
            .await?;
        assert!(!refused.success && !output.join("router.zip").exists(), "{refused:?}");
        anyhow::Ok(refused.err)
    };
    let manifest = folder.join("Cargo.toml");
    for (path, more, remedy) in [
        (&*manifest, &[][..], "choose one of these binaries with --bin: my-router, other"),
        (&folder, &["--bin", "third"], "the package has no binary `third`, only: my-router, other"),
        (&folder, &["--bin", "my-router"], "GREETING is missing"),
        (&folder, &["--bin", "my-router"], "(--env sets a variable that it needs)"),
        (&folder.join("src"), &[], "has no Cargo.toml: name the folder of the router's package"),
        (&folder.join("rust-toolchain.toml"), &[], "is no package: name the folder of the router's package"),
        (&folder.join("absent"), &[], "there is no package at "),
    ] {
        let error = package(path, more).await?;
        assert!(error.contains(remedy), "{remedy}: {error}");
    }
    Ok(fs::remove_dir_all(folder)?)
}

/// A signal ends the cargo that `package` runs, too.
#[tokio::test]
async fn terminated_package_ends_its_cargo() -> anyhow::Result<()> {
    let streamer = Streamer::new("package-sigterm").await?;
    let folder = paths::shared(format!("tests/cargo-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (cargo, pid) = (folder.join("cargo"), folder.join("pid"));
    fs::write(&cargo, format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid.display()))?;
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755))?;

    let arch = Architecture::HERE.to_string();
    let mut package = streamer.spawn_with_cargo(&cargo, ["package", "--arch", &arch])?;
    printed(&mut package, "compiling").await?;
    let read_pid = || fs::read_to_string(&pid).ok()?.trim().parse().ok().map(Pid::from_u32);
    eventually("cargo runs", async || Ok(read_pid().is_some())).await?;
    signal(&package, Signal::Term)?;
    let ended = output(package).await?;
    assert_eq!((ended.code, &*ended.err), (Some(143), "streamer: ended by SIGTERM: no zip was written\n"));
    let cargo = read_pid().unwrap();
    eventually("cargo has ended", async || {
        let mut system = System::new()?;
        system.refresh_processes(ProcessesToUpdate::Some(&[cargo]), true);
        Ok(system.process(cargo).is_none())
    })
    .await?;
    Ok(fs::remove_dir_all(folder)?)
}

/// A terminal that cannot move its cursor gets lines instead of a spinner.
#[tokio::test]
async fn processes_package_at_the_same_time() -> anyhow::Result<()> {
    let streamer = Streamer::new("package-together").await?;
    let arch = Architecture::HERE.to_string();
    let package = async |number: usize| {
        let folder = paths::shared(format!("tests/together-{number}-{}", std::process::id()));
        let output = folder.to_str().unwrap();
        let packaged = streamer.run(["package", "--quick", "--arch", &arch, "--output", output]).await?;
        anyhow::ensure!(packaged.success, "{packaged:?}");
        Ok(fs::remove_dir_all(folder)?)
    };
    futures::future::try_join_all((0..4).map(package)).await.map(drop)
}

#[tokio::test]
async fn dumb_terminal_shows_that_it_compiles() -> anyhow::Result<()> {
    let streamer = Streamer::new("package-dumb").await?;
    let folder = paths::shared(format!("tests/dumb-{}", std::process::id()));
    let (arch, output) = (Architecture::HERE.to_string(), folder.to_str().unwrap());
    let arguments = ["package", "--quick", "--arch", &arch, "--output", output];
    let packaged = streamer.run_in_narrow_terminal("dumb", arguments).await?;
    assert!(packaged.success && packaged.out.contains(" build       compiling …"), "{packaged:?}");
    assert!(!packaged.out.contains('\u{1b}'), "{packaged:?}");
    Ok(fs::remove_dir_all(folder)?)
}
