//! What somebody sees who looks on: a bar on a terminal, nothing elsewhere.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::record::Moment;

/// How finely a run's progress is drawn.
const STEPS: u64 = 1_000;

/// Draws on standard error.
pub(crate) struct Console(ProgressBar);

impl Console {
    /// Draws nothing if it is to be quiet, or if nobody looks on.
    pub(crate) fn new(quiet: bool) -> Self {
        let silent = quiet || !std::io::stderr().is_terminal();
        Self(if silent { ProgressBar::hidden() } else { ProgressBar::no_length() })
    }

    fn begin(&self, template: &str, length: u64) {
        let style = ProgressStyle::with_template(template);
        self.0.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.0.reset();
        self.0.set_length(length);
    }

    /// A part of the preparation begins.
    pub(crate) fn phase(&self, what: &str, length: usize) {
        self.begin("{msg:24} {wide_bar} {pos}/{len}", length as u64);
        self.0.set_message(what.to_owned());
    }

    /// One step of it is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// So many of its steps are done.
    pub(crate) fn reach(&self, steps: usize) {
        self.0.set_position(steps as u64);
    }

    /// What is measured begins.
    pub(crate) fn race(&self) {
        self.begin("{elapsed:>4} {bar:24} {msg}", STEPS);
    }

    /// What has happened in the last second.
    pub(crate) fn show(&self, progress: f64, moment: &Moment) {
        self.0.set_position((progress * STEPS as f64) as u64);
        let rates = moment.series.iter().filter(|(_, rate)| rate.count > 0).map(|(name, rate)| {
            format!("{name} {:.0}/s p50 {:.1} p99 {:.1} ms", rate.per_second, rate.p50, rate.p99)
        });
        let warming_up = moment.warming_up.then(|| "warming up".to_owned());
        let errors = (moment.errors > 0).then(|| format!("{} errors", moment.errors));
        let all: Vec<_> = warming_up.into_iter().chain(rates).chain(errors).collect();
        self.0.set_message(all.join(" | "));
    }

    /// Takes away what was drawn.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
