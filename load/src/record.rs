//! What is told of a run: one line of JSON per second, and one at the end.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{error::LoadError, process::Usage, stages::Stage};

/// Where the curve of percentiles has its points: evenly in the number of nines.
const CURVE: [f64; 16] = [
    0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.999,
    100.0,
];

/// A line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// What has happened in a second.
    Second(Moment),
    /// What has come of the whole run.
    Summary(Box<Summary>),
}

/// What has happened since the last of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Seconds since the run began.
    pub(crate) at: f64,
    /// Whether it doesn't count.
    pub(crate) warming_up: bool,
    /// By kind of operation.
    pub(crate) series: BTreeMap<String, Rate>,
    /// All errors so far.
    pub(crate) errors: u64,
    /// What the server has used so far.
    pub(crate) server: Option<Usage>,
    /// What the generator has used so far.
    pub(crate) generator: Usage,
}

/// Operations of one kind in a span of time; latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) count: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Rate {
    pub(crate) fn of(latencies: &Histogram<u64>, elapsed: Duration) -> Self {
        let percentile = |part: f64| millis(latencies.value_at_quantile(part));
        let count = latencies.len();
        let per_second = count as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        let max = millis(latencies.max());
        Self { count, per_second, p50: percentile(0.5), p99: percentile(0.99), max }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// What has come of a whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// What was measured: the name that it was given, or that the server gives itself.
    pub(crate) label: String,
    pub(crate) scenario: String,
    /// The options that the scenario had.
    pub(crate) options: String,
    pub(crate) target: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub(crate) began: u64,
    /// How long was measured, in seconds; without the warm-up.
    pub(crate) seconds: f64,
    /// Operations per second that were wanted; `None`: closed loop.
    pub(crate) rate: Option<f64>,
    /// By kind of operation, the most important one first.
    pub(crate) series: Vec<Totals>,
    /// Failures, by what they are called.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Operations that were due and never begun, because the server did not keep up.
    pub(crate) missed: u64,
    pub(crate) server: Option<Used>,
    pub(crate) generator: Used,
    /// Where the time of events went inside the server, if it was asked for its metrics.
    #[serde(default)]
    pub(crate) stages: Vec<Stage>,
    /// What was checked, and what was wrong.
    pub(crate) verification: Option<Verdict>,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
}

/// All measured operations of a kind; latencies in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) name: String,
    pub(crate) count: u64,
    pub(crate) per_second: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// CPU time of the server for each of them, in milliseconds, as if it had done nothing else.
    pub(crate) server_cpu: Option<f64>,
    /// Percentiles and their latencies.
    pub(crate) curve: Vec<(f64, f64)>,
}

impl Totals {
    pub(crate) fn of(
        name: &str,
        latencies: &Histogram<u64>,
        seconds: f64,
        server: Option<&Used>,
    ) -> Self {
        let percentile = |part: f64| millis(latencies.value_at_percentile(part));
        let count = latencies.len();
        Self {
            name: name.to_owned(),
            count,
            per_second: count as f64 / seconds.max(f64::EPSILON),
            mean: latencies.mean() / 1e3,
            p50: percentile(50.0),
            p90: percentile(90.0),
            p99: percentile(99.0),
            p999: percentile(99.9),
            max: millis(latencies.max()),
            server_cpu: server.filter(|_| count > 0).map(|used| used.cpu * 1e3 / count as f64),
            curve: CURVE.map(|part| (part, percentile(part))).to_vec(),
        }
    }
}

/// What processes have used while it was measured.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    /// CPU time, in seconds.
    pub(crate) cpu: f64,
    /// CPU time per second: 1 is one core.
    pub(crate) cores: f64,
    /// Memory at the beginning, in bytes.
    pub(crate) rss_before: u64,
    /// Memory at the end.
    pub(crate) rss_after: u64,
    /// The most that was seen.
    pub(crate) rss_peak: u64,
}

impl Used {
    pub(crate) fn between(before: Usage, after: Usage, peak: u64, seconds: f64) -> Self {
        let cpu = (after.cpu - before.cpu).max(0.0);
        Self {
            cpu,
            cores: cpu / seconds.max(f64::EPSILON),
            rss_before: before.rss,
            rss_after: after.rss,
            rss_peak: peak.max(before.rss).max(after.rss),
        }
    }
}

/// What was checked after a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What was looked at, in words.
    pub(crate) what: String,
    /// How many were looked at.
    pub(crate) checked: u64,
    /// Acknowledged, and not there.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) doubled: u64,
    /// Not in the order in which they were sent.
    pub(crate) disordered: u64,
    /// Some of what is wrong.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// How many examples are kept.
    const EXAMPLES: usize = 5;

    pub(crate) fn about(what: &str) -> Self {
        Self { what: what.to_owned(), ..Self::default() }
    }

    /// Whether nothing is wrong.
    pub(crate) fn good(&self) -> bool {
        self.lost + self.doubled + self.disordered == 0
    }

    /// Keeps an example.
    pub(crate) fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(text());
        }
    }

    /// Both together.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.what = [self.what, other.what]
            .into_iter()
            .filter(|what| !what.is_empty())
            .collect::<Vec<_>>()
            .join("; ");
        self.checked += other.checked;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        for example in other.examples {
            self.example(|| example);
        }
        self
    }
}

/// A run as it is reported.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) moments: Vec<Moment>,
    pub(crate) summary: Summary,
}

/// Writes a run to a file of such lines.
pub(crate) fn save(file: &Path, run: &Run) -> Result<(), LoadError> {
    let failed = LoadError::file(file);
    let open = File::create(file).map_err(&failed)?;
    let mut out = BufWriter::new(open);
    let seconds = run.moments.iter().cloned().map(Line::Second);
    for line in seconds.chain([Line::Summary(Box::new(run.summary.clone()))]) {
        let text = serde_json::to_string(&line).map_err(LoadError::file(file))?;
        writeln!(out, "{text}").map_err(&failed)?;
    }
    out.flush().map_err(&failed)
}

/// The runs of a file: a summary ends each.
pub(crate) fn load(file: &Path) -> Result<Vec<Run>, LoadError> {
    let open = File::open(file).map_err(LoadError::file(file))?;
    let (mut runs, mut moments) = (Vec::new(), Vec::new());
    for line in BufReader::new(open).lines() {
        let line = line.map_err(LoadError::file(file))?;
        match serde_json::from_str(&line).map_err(LoadError::file(file))? {
            Line::Second(moment) => moments.push(moment),
            Line::Summary(summary) => {
                runs.push(Run { moments: std::mem::take(&mut moments), summary: *summary });
            }
        }
    }
    Ok(runs)
}
