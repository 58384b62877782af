//! Runs scenarios, prints their tables and draws the plots:
//! `cargo run --profile bench -p streamer-simulation -- [quick] [scenario…]`.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::bail;
use streamer_simulation::{
    model::Setup,
    plot::{self, Line, Texts},
    published,
    scenario::{
        herd,
        loads::run_broadcast,
        outage, replies, shared,
        sizes::{self, SIZES, Size},
        tuning,
    },
    world::Kind,
};

/// Names of the scenarios, in the order in which they run.
const SCENARIOS: [&str; 7] = ["peers", "herd", "tuning", "shared", "replies", "outage", "sizes"];

fn main() -> anyhow::Result<()> {
    let mut names: Vec<_> = env::args().skip(1).collect();
    let is_quick = names.iter().any(|name| name == "quick");
    names.retain(|name| name != "quick");
    if let Some(name) = names.iter().find(|name| !SCENARIOS.contains(&name.as_str())) {
        bail!("no scenario is called {name}: name some of {}", SCENARIOS.join(", "));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // A quick run shows that everything works; its figures are no plots to publish.
    let images = root.join(if is_quick { "target/simulation" } else { "docs/images" });
    fs::create_dir_all(&images)?;
    let sizes = if is_quick { &SIZES[..3] } else { &SIZES[..] };
    for scenario in SCENARIOS.iter().filter(|name| names.is_empty() || names.iter().any(|one| one == *name)) {
        match *scenario {
            "peers" => peers(&root, &images)?,
            "herd" => print!("{}", herd::table(sizes)),
            "tuning" => print!("{}", tuning::table()),
            "shared" => print!("{}", shared::table(if is_quick { &[10] } else { &[10, 100, 1000] })),
            "replies" => print!("{}", replies::table(if is_quick { 20_000 } else { 1_000_000 })),
            "outage" => outages(&images, if is_quick { 300 } else { outage::SECONDS })?,
            _ => all_sizes(&images, sizes)?,
        }
    }
    Ok(())
}

fn peers(root: &Path, images: &Path) -> anyhow::Result<()> {
    let page = fs::read_to_string(root.join("docs/explanation/performance.md"))?;
    let rows = published::posts_per_second(&page);
    plot::bars(&images.join("peers.svg"), "Posts a second on one core, 300 bytes over TLS", &rows)
}

fn outages(images: &Path, seconds: u64) -> anyhow::Result<()> {
    let report = outage::run(outage::RATE, seconds);
    print!("{}", outage::summary(&report, outage::RATE, seconds));
    let end = (outage::AROUND + seconds) as f64;
    // Ten-second means, from 3 minutes before the end of the outage on.
    let delivered = report.deliveries.chunks(10).enumerate();
    let delivered = delivered.map(|(ten, numbers)| {
        (ten as f64 * 10.0 / 60.0, numbers.iter().sum::<u64>() as f64 / numbers.len() as f64)
    });
    let depth = report.depth.iter().enumerate().step_by(10);
    let depth = depth.map(|(second, depth)| (second as f64 / 60.0, *depth as f64 / 100.0));
    let lines = [
        Line { name: "messages on the queue, hundreds".to_owned(), points: depth.collect() },
        Line { name: "deliveries a second".to_owned(), points: delivered.collect() },
    ];
    let title =
        format!("API Gateway fails from minute 1 to {:.0}, {} messages a second", end / 60.0, outage::RATE);
    let texts = Texts { title: &title, x: "minutes", y: "messages" };
    plot::linear(&images.join("outage.svg"), &texts, &lines)
}

fn all_sizes(images: &Path, sizes: &[usize]) -> anyhow::Result<()> {
    let all: Vec<_> = sizes.iter().map(|connections| sizes::run(*connections)).collect();
    print!("{}", sizes::tables(&all));
    let defaults = sizes.iter().filter(|size| **size <= 1_000_000);
    let defaults: Vec<_> =
        defaults.map(|size| (*size as f64, run_broadcast(&Setup::DEFAULT, *size))).collect();
    let of = |name: &str, figure: &dyn Fn(&Size) -> f64| Line {
        name: name.to_owned(),
        points: all.iter().map(|size| (size.connections as f64, figure(size))).collect(),
    };
    let seconds = |size: &Size, share| size.broadcast.quantile(Kind::Broadcast, share) / 1000.0;
    let file = |name: &str| -> PathBuf { images.join(name) };
    let lines = [
        of("last, with slow clients", &|size| size.broadcast.last_delivery()),
        of("99 %", &|size| seconds(size, 0.99)),
        of("half", &|size| seconds(size, 0.5)),
    ];
    let texts = Texts {
        title: "A broadcast at 10 000 posts a second",
        x: "connections",
        y: "seconds until so many are reached",
    };
    plot::logarithmic(&file("broadcast.svg"), &texts, &lines)?;
    let paced = Line {
        name: "1 000 posts a second, the default".to_owned(),
        points: defaults
            .iter()
            .map(|(size, report)| (*size, report.quantile(Kind::Broadcast, 0.99) / 1000.0))
            .collect(),
    };
    let whole = of("10 000 posts a second, the account's quota", &|size| seconds(size, 0.99));
    let texts = Texts { title: "Time until 99 % of an audience is reached", x: "connections", y: "seconds" };
    plot::logarithmic(&file("pace.svg"), &texts, &[paced, whole])?;
    let lines = [
        of("all", &|size| size.broadcast.bill().total()),
        of("API Gateway", &|size| size.broadcast.bill().messages),
        of("Lambda", &|size| size.broadcast.bill().lambda),
        of("SQS and DynamoDB", &|size| size.broadcast.bill().queue + size.broadcast.bill().table),
    ];
    let texts = Texts { title: "Cost of a broadcast", x: "connections", y: "dollars" };
    plot::logarithmic(&file("cost.svg"), &texts, &lines)
}
