//! One run, from the first request to the report.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;

use crate::{
    accounts::{Accounts, Cache, Registration},
    bench::{Bench, Measured},
    bulk::{self, Bulk},
    clock,
    console::Console,
    error::LoadError,
    files,
    http::Endpoint,
    meter::Meter,
    process::Processes,
    record::{Run, Summary, Totals, Verdict},
    scenario::{Outcome, Scenario},
    schedule::Plan,
    session::Session,
    stages::Metrics,
    verify::Ledger,
};

/// From this share of its threads on, the generator measures itself rather than the server.
const BUSY: f64 = 0.85;

/// What is the same for all scenarios.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) target: String,
    pub(crate) ca_files: Vec<PathBuf>,
    pub(crate) patience: Duration,
    pub(crate) plan: Plan,
    pub(crate) label: Option<String>,
    pub(crate) registration: Registration,
    pub(crate) users_file: Option<PathBuf>,
    pub(crate) server_pids: Vec<u32>,
    pub(crate) threads: usize,
    pub(crate) quiet: bool,
    pub(crate) verify: bool,
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) metrics: Option<String>,
    pub(crate) bulk: Option<bulk::Wish>,
}

/// Runs a scenario.
pub(crate) async fn run(settings: &Settings, scenario: &Scenario) -> Result<Run, LoadError> {
    files::raise_limit();
    let began = clock::unix_millis();
    let endpoint = find(&settings.target, &settings.ca_files, settings.patience).await?;
    let software = software(&endpoint, &settings.target).await?;
    let server = processes(settings, &endpoint)?;
    let watched = server.is_some();
    let metrics = match &settings.metrics {
        Some(url) => Some(Metrics::find(url, settings.patience).await?),
        None => None,
    };
    let run: Arc<str> = format!("{:x}{:04x}", began, fastrand::u16(..)).into();
    let prefix = format!("load-{run}");
    let bulk = match &settings.bulk {
        Some(wish) => Some(Bulk::open(&endpoint, wish.clone(), &prefix).await?),
        None => None,
    };
    let mut bench = Bench {
        accounts: Accounts::new(
            endpoint.clone(),
            settings.registration.clone(),
            prefix,
            settings.users_file.as_deref().map(|file| Cache::new(file, &settings.target)),
            bulk,
        ),
        endpoint: endpoint.clone(),
        target: settings.target.clone(),
        plan: settings.plan.clone(),
        meter: Arc::new(Meter::new(server)),
        console: Console::new(settings.quiet),
        run,
        metrics,
        measured: Measured::default(),
    };
    let outcome = scenario.run(&mut bench).await;
    bench.console.clear();
    let Outcome { ledger, verdict, mut notes } = outcome?;
    let read_back = check(settings, &endpoint, ledger.as_ref()).await?;
    let verification = match (verdict, read_back) {
        (Some(own), Some(read)) => Some(own.and(read)),
        (own, read) => own.or(read),
    };
    if !watched {
        notes.push(
            "the server's CPU is not known: it is not on this machine, or belongs to \
                    somebody else; --server-pid says which process it is"
                .to_owned(),
        );
    }
    let label = settings.label.clone().unwrap_or(software);
    let summary = summary(settings, scenario, &mut bench, (label, began, notes), verification);
    Ok(Run { moments: bench.measured.moments, summary })
}

/// Finds the target.
pub(crate) async fn find(
    target: &str,
    ca_files: &[PathBuf],
    patience: Duration,
) -> Result<Arc<Endpoint>, LoadError> {
    let target = target.trim_end_matches('/');
    Endpoint::find(target, ca_files, patience).await.map(Arc::new)
}

/// What the server calls itself; that it answers at all is learned here, too.
async fn software(endpoint: &Arc<Endpoint>, target: &str) -> Result<String, LoadError> {
    #[derive(Deserialize)]
    struct Versions {
        #[serde(rename = "versions")]
        _versions: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Software {
        server: Server,
    }
    #[derive(Deserialize)]
    struct Server {
        name: String,
        version: String,
    }
    let mut nobody = Session::nobody(endpoint);
    let answered = nobody.look_up::<Versions>("/_matrix/client/versions").await;
    answered.map_err(|failure| LoadError::Unreachable {
        target: target.to_owned(),
        reason: failure.to_string(),
    })?;
    // Not every listener has the federation API.
    let named = nobody.get::<Software>("/_matrix/federation/v1/version").await;
    Ok(named.map_or_else(
        |_| target.to_owned(),
        |Software { server }| format!("{} {}", server.name, server.version),
    ))
}

fn processes(settings: &Settings, endpoint: &Endpoint) -> Result<Option<Processes>, LoadError> {
    if settings.server_pids.is_empty() {
        return Ok(Processes::listening(endpoint.addresses()));
    }
    let found = Processes::of(&settings.server_pids);
    found.map(Some).ok_or_else(|| {
        LoadError::Usage("--server-pid: there is no such process on this machine".to_owned())
    })
}

/// Keeps the manifest, and reads back what was acknowledged.
async fn check(
    settings: &Settings,
    endpoint: &Arc<Endpoint>,
    ledger: Option<&Ledger>,
) -> Result<Option<Verdict>, LoadError> {
    let Some(ledger) = ledger else { return Ok(None) };
    if let Some(file) = &settings.manifest {
        ledger.save(file)?;
    }
    if !settings.verify {
        return Ok(None);
    }
    let read = ledger.verify(endpoint).await;
    read.map(Some).map_err(LoadError::setup("reading back what was acknowledged"))
}

fn summary(
    settings: &Settings,
    scenario: &Scenario,
    bench: &mut Bench,
    (label, began, mut notes): (String, u64, Vec<String>),
    verification: Option<Verdict>,
) -> Summary {
    let Measured { seconds, missed, server, generator, .. } = bench.measured;
    let all = bench.meter.all();
    let totals = all
        .iter()
        .map(|series| Totals::of(series.name(), &series.total(), seconds, server.as_ref()));
    if generator.cores > BUSY * settings.threads as f64 {
        notes.push(format!(
            "the generator was busy itself ({:.2} cores of {}): latencies may be its own; try \
             --threads or a lower --rate",
            generator.cores, settings.threads
        ));
    }
    if missed > 0 {
        notes.push(format!(
            "the server did not keep up: {missed} operations were due and never begun"
        ));
    }
    Summary {
        label,
        scenario: scenario.name().to_owned(),
        options: scenario.options(),
        target: settings.target.clone(),
        began,
        seconds,
        rate: settings.plan.rate,
        series: totals.collect(),
        errors: bench.meter.errors(),
        missed,
        server,
        generator,
        stages: std::mem::take(&mut bench.measured.stages),
        verification,
        notes,
    }
}

/// Whether a run is a success: something was done, and nothing is wrong with it.
pub(crate) fn judge(run: &Run) -> Result<(), LoadError> {
    let summary = &run.summary;
    if summary.series.first().is_none_or(|series| series.count == 0) {
        let errors: Vec<_> =
            summary.errors.iter().map(|(name, count)| format!("{count} {name}")).collect();
        return Err(LoadError::Failed(format!("nothing succeeded; errors: {}", errors.join(", "))));
    }
    judge_verdict(summary.verification.as_ref())
}

/// Whether what was checked is good.
pub(crate) fn judge_verdict(verdict: Option<&Verdict>) -> Result<(), LoadError> {
    match verdict {
        Some(verdict) if !verdict.good() => Err(LoadError::Failed(format!(
            "verification failed: of {} ({}), {} lost, {} doubled, {} out of order; {}",
            verdict.checked,
            verdict.what,
            verdict.lost,
            verdict.doubled,
            verdict.disordered,
            verdict.examples.join(", ")
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let good = Verdict { checked: 5, ..Verdict::about("messages") };
        assert!(judge_verdict(Some(&good)).is_ok() && judge_verdict(None).is_ok());
        let mut bad = Verdict { lost: 1, ..good };
        bad.example(|| "!r: $e is not there".to_owned());
        let line = judge_verdict(Some(&bad)).expect_err("one is lost").to_string();
        let wanted = "verification failed: of 5 (messages), 1 lost, 0 doubled, 0 out of order; \
                      !r: $e is not there";
        assert_eq!(line, wanted);
    }
}
