//! The plots of the scenarios.

use std::{fs, path::Path};

use crate::{
    model::Setup,
    plot::{self, Line, Texts},
    published,
    report::Report,
    scenario::{
        loads::run_broadcast,
        outage::{AROUND, QUIET},
    },
    world::Kind,
};

/// Largest broadcast that is run at the default pace, at which ten million connections take three hours.
const LARGEST_AT_DEFAULT: usize = 1_000_000;

/// Seconds of which the plot of an outage shows the mean.
const SPAN: usize = 30;

/// Draws the posts a second that a page has published.
///
/// # Errors
/// When the page cannot be read or the plot not written.
pub fn peers(page: &Path, images: &Path) -> anyhow::Result<()> {
    let rows = published::posts_per_second(&fs::read_to_string(page)?);
    plot::bars(&images.join("peers.svg"), "Posts a second on one core, 300 bytes over TLS", &rows)
}

/// Draws the last of some outages.
///
/// # Errors
/// When the plot cannot be written.
pub fn outage(images: &Path, lengths: &[u64], report: Option<&Report>) -> anyhow::Result<()> {
    let (Some(seconds), Some(report)) = (lengths.last(), report) else { return Ok(()) };
    let minutes = |span: usize| (span * SPAN) as f64 / 60.0;
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let points = |numbers: Vec<f64>| {
        numbers.chunks(SPAN).enumerate().map(|(span, numbers)| (minutes(span), mean(numbers))).collect()
    };
    let hundreds = report.depth.iter().map(|depth| *depth as f64 / 100.0).collect();
    let delivered = report.deliveries.iter().map(|number| *number as f64).collect();
    let lines = [
        Line { name: "messages on the queue, hundreds".to_owned(), points: points(hundreds) },
        Line { name: "deliveries a second".to_owned(), points: points(delivered) },
    ];
    let (from, to) = (AROUND / 60, (AROUND + seconds) / 60);
    let rate = QUIET.rate;
    let title = format!("API Gateway fails from minute {from} to {to}, {rate} messages a second");
    let texts = Texts { title: &title, x: "minutes", y: "messages" };
    plot::linear(&images.join("outage.svg"), &texts, &lines)
}

/// Draws broadcasts by the number of connections: times at the account's quota, times at the default pace, and costs.
///
/// # Errors
/// When a plot cannot be written.
pub fn sizes(images: &Path, broadcasts: &[(usize, Report)]) -> anyhow::Result<()> {
    let of = |name: &str, figure: &dyn Fn(&Report) -> f64| Line {
        name: name.to_owned(),
        points: broadcasts.iter().map(|(size, report)| (*size as f64, figure(report))).collect(),
    };
    let seconds = |report: &Report, share| report.quantile(Kind::Broadcast, share) / 1000.0;
    let lines = [
        of("last, with slow clients", &Report::last_delivery),
        of("99 %", &|report| seconds(report, 0.99)),
        of("half", &|report| seconds(report, 0.5)),
    ];
    let texts = Texts {
        title: "A broadcast at 10 000 posts a second",
        x: "connections",
        y: "seconds until so many are reached",
    };
    plot::logarithmic(&images.join("broadcast.svg"), &texts, &lines)?;
    let small = broadcasts.iter().map(|(size, _)| *size).filter(|size| *size <= LARGEST_AT_DEFAULT);
    let paced =
        small.map(|size| (size as f64, seconds(&run_broadcast(&Setup::DEFAULT, size), 0.99))).collect();
    let paced = Line { name: "1 000 posts a second, the default".to_owned(), points: paced };
    let whole = of("10 000 posts a second, the account's quota", &|report| seconds(report, 0.99));
    let texts = Texts { title: "Time until 99 % of an audience is reached", x: "connections", y: "seconds" };
    plot::logarithmic(&images.join("pace.svg"), &texts, &[paced, whole])?;
    let lines = [
        of("all", &|report| report.bill().total()),
        of("API Gateway", &|report| report.bill().messages),
        of("Lambda", &|report| report.bill().lambda),
        of("SQS and DynamoDB", &|report| report.bill().queue + report.bill().table),
    ];
    let texts = Texts { title: "Cost of a broadcast", x: "connections", y: "dollars" };
    plot::logarithmic(&images.join("cost.svg"), &texts, &lines)
}
