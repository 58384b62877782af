//! Runs scenarios, prints their tables and draws the plots:
//! `cargo run --profile bench -p streamer-simulation -- [quick] [scenario…]`.

use std::{env, fs, io, path::Path};

use anyhow::bail;
use streamer_simulation::{
    drawing,
    scenario::{
        against, emulator, herd, kept, outage, replies, shared,
        sizes::{self, SIZES},
        tuning,
    },
};

/// Names of the scenarios, in the order in which they run.
const SCENARIOS: [&str; 11] = [
    "peers",
    "against",
    "emulator",
    "herd",
    "tuning",
    "shared",
    "replies",
    "outage",
    "busy-outage",
    "kept",
    "sizes",
];

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
    let (lengths, busy) = match is_quick {
        true => (&outage::SECONDS[..1], &outage::SECONDS[..1]),
        false => (&outage::SECONDS[..], &outage::SECONDS[..outage::BUSY_LENGTHS]),
    };
    let out = &mut io::stdout();
    for scenario in SCENARIOS.iter().filter(|name| names.is_empty() || names.iter().any(|one| one == *name)) {
        match *scenario {
            "peers" => drawing::peers(&root.join("docs/explanation/performance.md"), &images)?,
            "against" => against::table(out)?,
            "emulator" => emulator::table(out)?,
            "herd" => herd::table(out, sizes)?,
            "tuning" => tuning::table(out)?,
            "shared" => shared::table(out, if is_quick { &[10] } else { &[10, 100, 1000] })?,
            "replies" => replies::table(out, if is_quick { 20_000 } else { 1_000_000 })?,
            "kept" => kept::tables(out, sizes)?,
            "outage" => {
                let report = outage::table(out, &outage::QUIET, lengths)?;
                drawing::outage(&images, lengths, report.as_ref())?;
            }
            "busy-outage" => _ = outage::table(out, &outage::BUSY, busy)?,
            _ => drawing::sizes(&images, &sizes::tables(out, sizes)?)?,
        }
    }
    Ok(())
}
