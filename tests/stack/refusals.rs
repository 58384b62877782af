//! Commands that cannot work, and say why.

use super::*;

#[tokio::test]
async fn up_refuses_an_unfit_router() -> anyhow::Result<()> {
    let streamer = Streamer::new("router").await?;
    let missing = streamer.folder().join("missing").display().to_string();
    let readme = paths::workspace().join("README.md").display().to_string();
    for (router, reason) in [
        (readme.as_str(), "the file is neither a program nor a script that starts with `#!`"),
        ("/tmp", "it is a folder without a handler: name the router's binary in it"),
        ("/dev/zero", "it is no regular file"),
        (missing.as_str(), "No such file or directory"),
    ] {
        let up = streamer.run(["up", "--router", router]).await?;
        assert!(!up.success && up.err.contains(reason) && up.err.contains(router), "{up:?}");
        assert!(up.out.is_empty() && !streamer.folder().exists(), "{up:?}");
    }
    Ok(())
}

/// A copy of a checkout has binaries that were compiled in the original.
#[tokio::test]
async fn copied_checkout_has_its_own_stack() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("streamer-copy-{}", std::process::id()));
    let program = folder.join("target/debug/streamer");
    fs::create_dir_all(program.parent().unwrap())?;
    fs::copy(build::build().await?.path("streamer")?, &program)?;
    let down = async || {
        let mut command = Command::new(&program);
        command.arg("down").current_dir("/").env_remove("STREAMER_STATE").env_remove("CARGO_MANIFEST_DIR");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        output(command.spawn()?).await
    };
    let outside = down().await?;
    assert!(
        !outside.success && outside.err.contains("there is no checkout of Streamer above"),
        "{outside:?}"
    );

    fs::create_dir(folder.join("cli"))?;
    for file in ["Cargo.toml", "cli/Cargo.toml"] {
        fs::copy(paths::workspace().join(file), folder.join(file))?;
    }
    let copy = down().await?;
    assert!(copy.success && copy.out == "no stack is up\n", "{copy:?}");
    assert!(folder.join("target/streamer/logs/up.log").exists());
    Ok(fs::remove_dir_all(folder)?)
}

/// Without a stack, every command fails and says what to do.
#[tokio::test]
async fn commands_without_a_stack_explain_themselves() -> anyhow::Result<()> {
    let streamer = Streamer::new("without").await?;
    let no_stack = "no stack is up on this machine: start one with `streamer up`";
    for result in [
        streamer.run(["token", "--user", "anna", "--tenant", "acme"]).await?,
        streamer.run(["logs"]).await?,
        streamer.run(["env"]).await?,
        streamer.run(["web"]).await?,
        streamer.run(["listen", "--user", "anna", "--tenant", "acme"]).await?,
        streamer.run(["send", "--connection", "c", "--payload", "1"]).await?,
        streamer.run(["connections"]).await?,
        streamer.run(["disconnect", "--tenant", "acme"]).await?,
        streamer.run(["mailbox", "--tenant", "acme", "--user", "anna"]).await?,
        streamer.run(["forget", "--tenant", "acme", "--user", "anna"]).await?,
    ] {
        assert!(!result.success && result.err.contains(no_stack), "{result:?}");
    }
    let aws = streamer.run(["send", "--aws", "--connection", "c", "--payload", "1"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the queue: --queue-url"), "{aws:?}");
    let aws = streamer.run(["connections", "--aws"]).await?;
    assert!(!aws.success && aws.err.contains("--aws needs the table: --table"), "{aws:?}");
    Ok(())
}

#[tokio::test]
async fn up_refuses_a_taken_port() -> anyhow::Result<()> {
    let streamer = Streamer::new("port").await?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port().to_string();
    let result = streamer.run(["up", "--port", &port]).await?;
    let error = format!(
        "port {port} is taken: stop the process that listens there, or choose another port with --port"
    );
    assert!(!result.success && result.err.contains(&error), "{result:?}");
    Ok(())
}
