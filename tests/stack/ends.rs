//! Every way in which a stack ends, and what `up` and `down` do then.

use super::*;

/// Starts a stack and a connection, ends the command with `end`, and checks that nothing is left.
/// Returns the command's exit code.
async fn end_with(
    name: &str,
    in_terminal: bool,
    end: impl FnOnce(&mut Child),
) -> anyhow::Result<Option<i32>> {
    let streamer = Streamer::new(name).await?;
    let arguments = ["up", "--json"];
    let mut command =
        if in_terminal { streamer.spawn_in_terminal(arguments)? } else { streamer.spawn(arguments)? };
    let up = ready(&mut command).await?;
    // The connection starts a Lambda process.
    let _socket = connect(&streamer, &up).await?;
    assert!(!streamer.processes()?.is_empty());

    end(&mut command);
    let code = timeout(LIMIT, command.wait()).await??.code();
    eventually("the front door is gone", async || Ok(is_free(front_door_port(&up)))).await?;
    assert_nothing_left(&streamer, port(&up)).await?;
    Ok(code)
}

/// Each end of `up` leaves no process, port, lock and file behind.
mod nothing_is_left_after {
    use super::*;

    #[tokio::test]
    async fn ctrl_c() -> anyhow::Result<()> {
        let end = |command: &mut Child| signal(command, Signal::Interrupt).unwrap();
        assert_eq!(end_with("ctrl-c", false, end).await?, Some(130));
        Ok(())
    }

    #[tokio::test]
    async fn sigterm() -> anyhow::Result<()> {
        let end = |command: &mut Child| signal(command, Signal::Term).unwrap();
        assert_eq!(end_with("sigterm", false, end).await?, Some(143));
        Ok(())
    }

    #[tokio::test]
    async fn sigkill() -> anyhow::Result<()> {
        end_with("sigkill", false, |command| signal(command, Signal::Kill).unwrap()).await.map(|_| ())
    }

    #[tokio::test]
    async fn closed_terminal() -> anyhow::Result<()> {
        end_with("terminal", true, |command| drop(command.stdin.take())).await.map(|_| ())
    }

    #[tokio::test]
    async fn ctrl_c_during_start() -> anyhow::Result<()> {
        let streamer = Streamer::new("start-ctrl-c").await?;
        let command = streamer.spawn(["up", "--detach"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        signal(&command, Signal::Interrupt)?;
        let ended = output(command).await?;
        assert_eq!(ended.code, Some(130), "{ended:?}");
        assert_eq!(ended.err, "streamer: interrupted by Ctrl-C: the stack did not start, and is down\n");
        assert!(streamer.processes()?.is_empty() && !streamer.folder().exists());
        assert_eq!(streamer.run(["down"]).await?.out, "no stack is up\n");
        Ok(())
    }

    #[tokio::test]
    async fn sigkill_during_start() -> anyhow::Result<()> {
        let streamer = Streamer::new("start").await?;
        let mut command = streamer.spawn(["up", "--detach", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        signal(&command, Signal::Kill)?;
        command.wait().await?;
        assert_nothing_left(&streamer, 0).await
    }

    #[tokio::test]
    async fn down_during_start() -> anyhow::Result<()> {
        let streamer = Streamer::new("down").await?;
        let command = streamer.spawn(["up", "--detach", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        let up = output(command).await?;
        assert!(!up.success && up.err.contains("the stack did not start"), "{up:?}");
        assert_nothing_left(&streamer, 0).await
    }
}

/// Any process of a stack may be killed: `down` ends the rest, and `up` starts a new stack.
mod down_and_up_work_after_sigkill_of {
    use super::*;

    /// Kills the processes that `choose` takes from the owner, the supervisor, the emulator and a function.
    async fn check(name: &str, choose: impl Fn([u32; 4]) -> Vec<u32>) -> anyhow::Result<()> {
        let streamer = Streamer::new(name).await?;
        let up = start(&streamer).await?;
        kill(&streamer, &up, &choose).await?;
        let down = streamer.run(["down"]).await?;
        assert!(down.success, "{down:?}");
        assert_nothing_left(&streamer, port(&up)).await?;

        let up = start(&streamer).await?;
        kill(&streamer, &up, &choose).await?;
        // Until the owner has noticed, the stack counts as up.
        let mut second = Value::Null;
        eventually("a new stack is up", async || {
            let result = streamer.run(["up", "--detach", "--json"]).await?;
            assert!(result.success || result.err.contains("a stack is already up"), "{result:?}");
            second = serde_json::from_str(&result.out).unwrap_or_default();
            Ok(result.success)
        })
        .await?;
        assert_ne!(second["pid"], up["pid"]);
        let old = Processes::of_function("streamer-connect", text(&up, "endpoint_url"))?;
        assert!(old.is_empty(), "functions of the first stack: {old}");
        connect(&streamer, &second).await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&second)).await
    }

    async fn kill(
        streamer: &Streamer,
        up: &Value,
        choose: impl Fn([u32; 4]) -> Vec<u32>,
    ) -> anyhow::Result<()> {
        // The connection starts a function.
        let _socket = connect(streamer, up).await?;
        let chain = streamer.chain(u32::try_from(up["pid"].as_u64().unwrap())?).await?;
        choose(chain).into_iter().try_for_each(|pid| signal_process(pid, Signal::Kill))
    }

    #[tokio::test]
    async fn owner() -> anyhow::Result<()> {
        check("killed-owner", |[owner, ..]| vec![owner]).await
    }

    #[tokio::test]
    async fn supervisor() -> anyhow::Result<()> {
        check("killed-supervisor", |[_, supervisor, ..]| vec![supervisor]).await
    }

    #[tokio::test]
    async fn emulator() -> anyhow::Result<()> {
        check("killed-emulator", |[_, _, emulator, _]| vec![emulator]).await
    }

    #[tokio::test]
    async fn owner_and_supervisor() -> anyhow::Result<()> {
        check("killed-both", |[owner, supervisor, ..]| vec![owner, supervisor]).await
    }

    /// Without a command, the owner ends what a killed supervisor or emulator leaves.
    #[tokio::test]
    async fn supervisor_or_emulator_alone() -> anyhow::Result<()> {
        let streamer = Streamer::new("killed-alone").await?;
        for level in [1, 2] {
            let up = start(&streamer).await?;
            kill(&streamer, &up, |chain| vec![chain[level]]).await?;
            eventually("no process is left", async || Ok(streamer.processes()?.is_empty())).await?;
            eventually("the folder is removed", async || Ok(!streamer.folder().exists())).await?;
            let log = streamer.folder().with_file_name("logs").join("owner.log");
            eventually("the owner has logged the end", async || {
                Ok(fs::read_to_string(&log)?.contains("the emulator ended, and with it the stack"))
            })
            .await?;
        }
        Ok(())
    }

    /// Only functions are left, which hold no lock.
    #[tokio::test]
    async fn all_but_functions() -> anyhow::Result<()> {
        check("killed-all", |[owner, supervisor, emulator, _]| vec![owner, supervisor, emulator]).await
    }

    /// A stack gets over a crash of a function.
    #[tokio::test]
    async fn function() -> anyhow::Result<()> {
        let streamer = Streamer::new("killed-function").await?;
        let up = start(&streamer).await?;
        kill(&streamer, &up, |[.., function]| vec![function]).await?;
        connect(&streamer, &up).await?;
        let second = streamer.run(["up"]).await?;
        assert!(!second.success && second.err.contains("a stack is already up"), "{second:?}");
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&up)).await
    }
}

/// Right after an interrupted start, `down` and `up` wait for its end.
#[tokio::test]
async fn interrupted_start_is_waited_for() -> anyhow::Result<()> {
    let streamer = Streamer::new("interrupted").await?;
    for command in ["down", "up"] {
        let mut first = streamer.spawn(["up", "--json"])?;
        eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
        signal(&first, Signal::Interrupt)?;
        if command == "down" {
            let down = streamer.run(["down"]).await?;
            assert!(down.success, "{down:?}");
        }
        let second = start(&streamer).await?;
        first.wait().await?;
        assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
        assert_nothing_left(&streamer, port(&second)).await?;
    }
    Ok(())
}

/// A second `up` waits until the first has started, and then says where it is.
#[tokio::test]
async fn second_up_waits_for_start() -> anyhow::Result<()> {
    let streamer = Streamer::new("second").await?;
    let first = streamer.spawn(["up", "--detach", "--json"])?;
    eventually("the emulator runs", async || Ok(!streamer.processes()?.is_empty())).await?;
    let second = streamer.run(["up"]).await?;
    assert!(!second.success && second.err.contains("a stack is already up, process "), "{second:?}");
    let up: Value = serde_json::from_str(&output(first).await?.out)?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&up)).await
}

#[tokio::test]
async fn detached_stack_survives_closed_terminal() -> anyhow::Result<()> {
    let streamer = Streamer::new("closed").await?;
    let mut command = streamer.spawn_in_terminal(["up", "--detach", "--json"])?;
    let up = ready(&mut command).await?;
    drop(command.stdin.take());
    timeout(LIMIT, command.wait()).await??;
    signal_process(u32::try_from(up["pid"].as_u64().unwrap())?, Signal::Hangup)?;
    connect(&streamer, &up).await?;
    assert_eq!(streamer.run(["down"]).await?.out, "the stack is down\n");
    assert_nothing_left(&streamer, port(&up)).await
}
