//! The commands for a shell: version, completions and man pages.

use std::fs;

use streamer_tests::command::Streamer;

/// Every command.
pub(super) const COMMANDS: [&str; 17] = [
    "up",
    "down",
    "logs",
    "token",
    "env",
    "listen",
    "send",
    "connections",
    "disconnect",
    "mailbox",
    "forget",
    "receipts",
    "redrive",
    "status",
    "package",
    "completions",
    "man",
];

#[tokio::test]
async fn version_names_the_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("version").await?;
    let version = concat!("streamer ", env!("CARGO_PKG_VERSION"), "\n");
    for flag in ["--version", "-V"] {
        assert_eq!(streamer.run([flag]).await?.out, version);
    }
    let short = streamer.run(["-h"]).await?.out;
    assert!(
        short.starts_with("Streamer delivers messages to the clients of an AWS WebSocket API.\n"),
        "{short}"
    );
    Ok(())
}

#[tokio::test]
async fn completions_name_every_command() -> anyhow::Result<()> {
    let streamer = Streamer::new("completions").await?;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = streamer.run(["completions", shell]).await?;
        assert!(script.success && script.err.is_empty(), "{script:?}");
        for command in COMMANDS {
            assert!(script.out.contains(command), "{shell}: {command}");
        }
        assert!(script.out.contains("--token-file") || script.out.contains("token-file"), "{shell}");
    }
    let unknown = streamer.run(["completions", "csh"]).await?;
    assert!(!unknown.success && unknown.err.contains("bash, elvish, fish"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn every_command_has_a_man_page() -> anyhow::Result<()> {
    let streamer = Streamer::new("man").await?;
    let page = streamer.run(["man"]).await?.out;
    assert!(page.contains("streamer \\- Streamer delivers messages"), "{page}");
    let folder = streamer.folder().with_file_name("man1");
    let written = streamer.run(["man", "--output", folder.to_str().unwrap()]).await?;
    assert!(written.success, "{written:?}");
    for command in COMMANDS {
        assert!(page.contains(&format!("streamer\\-{command}(1)")), "{command}: {page}");
        let own = fs::read_to_string(folder.join(format!("streamer-{command}.1")))?;
        assert!(own.contains(&format!("streamer\\-{command}")), "{command}: {own}");
    }
    assert_eq!(fs::read_to_string(folder.join("streamer.1"))?, page);
    Ok(())
}
