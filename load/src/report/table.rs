//! A table for the terminal.

use std::fmt::Write as _;

use crate::{
    record::{Run, Summary, Totals, Used},
    stages::Stage,
};

/// The heads of the columns.
const HEAD: [&str; 11] = [
    "SERVER",
    "SCENARIO",
    "OPERATION",
    "COUNT",
    "PER SECOND",
    "P50 MS",
    "P90 MS",
    "P99 MS",
    "P99.9 MS",
    "MAX MS",
    "SERVER CPU MS/OP",
];

/// How many columns at the left hold words.
const WORDS: usize = 3;

/// A number with as many digits as are worth reading.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    number(bytes as f64 / f64::from(1 << 20))
}

fn row(summary: &Summary, totals: &Totals) -> [String; HEAD.len()] {
    let latency = |value: f64| if totals.count == 0 { "-".to_owned() } else { number(value) };
    [
        summary.label.clone(),
        summary.scenario.clone(),
        totals.name.clone(),
        totals.count.to_string(),
        number(totals.per_second),
        latency(totals.p50),
        latency(totals.p90),
        latency(totals.p99),
        latency(totals.p999),
        latency(totals.max),
        totals.server_cpu.map_or_else(|| "-".to_owned(), number),
    ]
}

/// The runs as a table, and what is to be said of each.
pub(crate) fn render(runs: &[Run]) -> String {
    let rows = runs.iter().flat_map(|run| run.summary.series.iter().map(|t| row(&run.summary, t)));
    let mut rows: Vec<_> = rows.collect();
    rows.insert(0, HEAD.map(ToOwned::to_owned));
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            match column < WORDS {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for run in runs {
        text.push('\n');
        remarks(&mut text, &run.summary);
    }
    text
}

fn remarks(text: &mut String, summary: &Summary) {
    let loops = match summary.rate {
        Some(rate) => format!("open loop, {} per second", number(rate)),
        None => "closed loop".to_owned(),
    };
    let Summary { label, scenario, options, seconds, .. } = summary;
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    line(format_args!("{label}, {scenario} ({options}): {seconds:.1} s, {loops}"));
    if let Some(used) = &summary.server {
        line(format_args!("  server:     {}", usage(used)));
    }
    line(format_args!("  generator:  {}", usage(&summary.generator)));
    for Stage { name, count, mean, p50, p99 } in &summary.stages {
        let [mean, p50, p99] = [mean, p50, p99].map(|millis| number(millis * 1e3));
        line(format_args!(
            "  stage:      {name:<12} {count:>9} times, µs: mean {mean:>6}, p50 {p50:>6}, p99 {p99:>6}"
        ));
    }
    if !summary.errors.is_empty() {
        let errors = summary.errors.iter().map(|(name, count)| format!("{count} {name}"));
        line(format_args!("  errors:     {}", errors.collect::<Vec<_>>().join(", ")));
    }
    match &summary.verification {
        None => line(format_args!("  verified:   nothing")),
        Some(verdict) if verdict.good() => {
            line(format_args!(
                "  verified:   {} {}: all there, once, in order",
                verdict.checked, verdict.what
            ));
        }
        Some(verdict) => line(format_args!(
            "  VERIFICATION FAILED: of {} {}: {} lost, {} doubled, {} out of order",
            verdict.checked, verdict.what, verdict.lost, verdict.doubled, verdict.disordered
        )),
    }
    for note in &summary.notes {
        line(format_args!("  note:       {note}"));
    }
}

/// What processes have used, in words.
pub(crate) fn usage(used: &Used) -> String {
    format!(
        "{:.2} cores, {} MiB at first, {} MiB at the end, {} MiB at most",
        used.cores,
        mebibytes(used.rss_before),
        mebibytes(used.rss_after),
        mebibytes(used.rss_peak),
    )
}
