//! The first invocation of a process over TLS: `cargo bench -p streamer-tests -- cold`.
//!
//! Lambda starts a function with a whole core, and then gives it a share by its memory. So each process here joins a
//! control group between its first poll and its first event. `OTHER_WORKER=path` measures another build of
//! `delivery-worker` in turn with this one, and the handlers beside that file.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use streamer_cli::stack::issuer::{ISSUER, Issuer};
use streamer_tests::event;

use crate::{
    lambda, place,
    process::{CLIENT, clean, cpu, resident},
    quota::{MB_128, MB_512, Quota},
    server::Stub,
    table::Table,
};

/// Processes of each build. The median counts.
const ROUNDS: usize = 15;

/// Time for a full period of a control group to begin.
const NEW_PERIOD: Duration = Duration::from_millis(40);

/// A first event.
struct Case {
    name: &'static str,
    lambda: &'static str,
    event: String,
}

/// The cost of a process's first two invocations.
#[derive(Default)]
struct Costs {
    /// CPU time from exec to the first poll.
    start: Vec<f64>,
    first_cpu: Vec<f64>,
    first_wall: Vec<f64>,
    second_cpu: Vec<f64>,
    /// Resident memory after both, in KiB.
    resident: Vec<f64>,
}

/// Measures all cases without a limit, with 512 MB and with 128 MB, and prints a table of each.
pub(crate) async fn run(lambdas: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let other = env::var_os("OTHER_WORKER").map(PathBuf::from);
    let issuer = Issuer::generate()?;
    let stub = Stub::start(0, true)?;
    let (endpoint, queue) = (format!("{}/stage", stub.origin), format!("{}/queue", stub.origin));
    let certificate = place("certificate.pem").display().to_string();
    let variables = [
        ("AWS_ENDPOINT_URL", stub.origin.as_str()),
        ("SSL_CERT_FILE", &certificate),
        ("WEBSOCKET_ENDPOINT", &endpoint),
        ("QUEUE_URL", &queue),
        ("DEAD_LETTER_QUEUE_URL", &queue),
        ("JWT_PUBLIC_KEY", &issuer.public_key),
        ("JWT_ISSUER", ISSUER),
    ];
    let cases = cases(&issuer.token("acme", "anna", Duration::from_secs(3600))?);
    for (share, time) in [("a whole core", None), ("512 MB", Some(MB_512)), ("128 MB", Some(MB_128))] {
        let quota = time.and_then(Quota::new);
        if time.is_some() && quota.is_none() {
            println!("\nno control group can be created, so {share} are not measured");
            continue;
        }
        let mut table = Table::new(
            &format!("first invocation of a process over TLS, median of {ROUNDS}, with {share}"),
            &["start, CPU ms", "first, CPU ms", "first, wall ms", "second, CPU ms", "resident"],
        );
        for case in &cases {
            let beside = other.as_ref().map(|other| other.with_file_name(case.lambda));
            let builds = [("", Some(lambdas[case.lambda].clone())), (", OTHER_WORKER", beside)];
            let mut builds: Vec<_> = builds
                .into_iter()
                .filter_map(|(which, path)| {
                    Some((which, path.filter(|path| path.exists())?, Costs::default()))
                })
                .collect();
            // In turn: the machine's speed drifts, and affects all builds alike.
            for _ in 0..ROUNDS {
                for (_, binary, costs) in &mut builds {
                    costs.measure(binary, &variables, &case.event, quota.as_ref()).await?;
                }
            }
            for (which, _, costs) in builds {
                table.row(&format!("{}{which}", case.name), &costs.cells());
            }
        }
        table.print();
    }
    Ok(())
}

fn cases(token: &str) -> [Case; 4] {
    let worker = |name, connections: usize| {
        let bodies = (0..connections).map(|id| {
            format!(
                r#"{{"version":1,"id":"m{id}","to":{{"connection":"L0SM9cOFv{id:05}="}},"payload":"hello"}}"#
            )
        });
        Case { name, lambda: "delivery-worker", event: event::batch_json(bodies).to_string() }
    };
    [
        worker("delivery-worker, 1 post", 1),
        worker("delivery-worker, 10 posts", 10),
        Case {
            name: "connect-handler",
            lambda: "connect-handler",
            event: event::connect_json(Some(token)).to_string(),
        },
        Case {
            name: "disconnect-handler",
            lambda: "disconnect-handler",
            event: event::disconnect_json().to_string(),
        },
    ]
}

impl Costs {
    /// Measures a new process.
    async fn measure(
        &mut self,
        binary: &Path,
        variables: &[(&str, &str)],
        event: &str,
        quota: Option<&Quota>,
    ) -> anyhow::Result<()> {
        // Pinned after its start, because `taskset` would count.
        let (mut api, mut child) = lambda::started(clean(binary), variables).await?;
        let measured = self.invoke(&mut api, &child, event, quota).await;
        child.kill()?;
        child.wait()?;
        measured
    }

    async fn invoke(
        &mut self,
        api: &mut lambda::RuntimeApi,
        child: &Child,
        event: &str,
        quota: Option<&Quota>,
    ) -> anyhow::Result<()> {
        let id = child.id();
        let start = cpu(id)?;
        _ = Command::new("taskset")
            .args(["-cp", &CLIENT.to_string(), &id.to_string()])
            .stdout(Stdio::null())
            .status();
        if let Some(quota) = quota {
            fs::write(quota.processes(), id.to_string())?;
            tokio::time::sleep(NEW_PERIOD).await;
        }
        let began = Instant::now();
        lambda::invoke(api, event).await?;
        let (wall, first) = (began.elapsed(), cpu(id)?);
        lambda::invoke(api, event).await?;
        let second = cpu(id)?;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        self.start.push(milliseconds(start));
        self.first_cpu.push(milliseconds(first - start));
        self.first_wall.push(milliseconds(wall));
        self.second_cpu.push(milliseconds(second - first));
        self.resident.push(resident(id)? as f64);
        Ok(())
    }

    fn cells(self) -> [String; 5] {
        [
            format!("{:.2}", median(self.start)),
            format!("{:.2}", median(self.first_cpu)),
            format!("{:.1}", median(self.first_wall)),
            format!("{:.2}", median(self.second_cpu)),
            format!("{:.2} MiB", median(self.resident) / 1024.0),
        ]
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
