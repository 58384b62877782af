//! Start, memory and size of the Lambdas: `cargo bench -p streamer-tests -- starts`.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use streamer_cli::stack::issuer::Issuer;

use crate::{lambda, place, table::Table};

/// Measures start, memory and size of the Lambdas, also of another build.
pub(crate) async fn run(lambdas: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let other = env::var_os("OTHER_WORKER").map(PathBuf::from);
    let issuer = Issuer::generate()?;
    let variables = [
        ("WEBSOCKET_ENDPOINT", "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production"),
        ("QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/000000000000/outbound"),
        ("DEAD_LETTER_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/000000000000/dead-letters"),
        ("JWT_PUBLIC_KEY", issuer.public_key.as_str()),
    ];
    let mut table = Table::new(
        "start of a Lambda, median of 15: from exec to the first poll, with Lambda's root certificates",
        &["start", "resident", "binary", "zip"],
    );
    let mut row = async |name: &str, binary: &Path| {
        let start = lambda::start(binary, &variables).await?;
        let mebibytes = |bytes: u64| format!("{:.2} MiB", bytes as f64 / 1024.0 / 1024.0);
        let cells = [
            format!("{:.1} ms", start.time.as_secs_f64() * 1e3),
            mebibytes(start.resident * 1024),
            mebibytes(fs::metadata(binary)?.len()),
            mebibytes(zipped(binary)?),
        ];
        table.row(name, &cells);
        anyhow::Ok(())
    };
    for (name, binary) in lambdas {
        row(name, binary).await?;
        let other = other.as_ref().map(|other| other.with_file_name(name)).filter(|other| other.exists());
        if let Some(other) = other {
            row(&format!("{name}, OTHER_WORKER"), &other).await?;
        }
    }
    table.print();
    Ok(())
}

/// Returns the size of a binary's package.
fn zipped(binary: &Path) -> anyhow::Result<u64> {
    let zip = place("bootstrap.zip");
    _ = fs::remove_file(&zip);
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED, compresslevel=9); \
                  z.write(sys.argv[2], 'bootstrap'); z.close()";
    let made = Command::new("python3").args(["-c", script]).arg(&zip).arg(binary).status()?;
    ensure!(made.success(), "cannot create the package");
    Ok(fs::metadata(zip)?.len())
}
