//! The command line of `parlour load`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use crate::{
    accounts::Registration,
    bulk::{Administrator, Wish},
    error::LoadError,
    federation, profile,
    record::{self, Run},
    report::{html, table},
    runner::{self, Settings},
    scenario::Scenario,
    schedule::Plan,
    verify::Ledger,
};

/// What the names of its environment variables begin with.
pub const VARIABLES: &str = "PARLOUR_LOAD_";

/// How long is measured if nobody says.
const DURATION: Duration = Duration::from_secs(10);

/// `parlour load`
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Scenario(Scenario),
    /// Check once more that everything is there that a run was told is: after a restart, say.
    Verify(VerifyArgs),
    /// Make one report of the runs in several files of JSON lines.
    Report(ReportArgs),
    /// Make the certificates that played servers show, before the first of the federation scenarios.
    Certificates(CertificatesArgs),
}

#[derive(Debug, Args)]
struct CertificatesArgs {
    /// Where they are put; the server must believe the ca.pem in it.
    #[arg(value_name = "DIR", default_value = "load-certificates")]
    dir: PathBuf,
    /// By which hosts the server finds the played servers.
    #[arg(long, value_name = "NAME", default_values = ["localhost", "127.0.0.1"])]
    host: Vec<String>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The manifest that the run has written.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// Files that --json has written.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// What every scenario understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "All scenarios")]
struct Common {
    /// The homeserver's client API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8008", global = true)]
    target: String,
    /// Open loop: so many operations per second are due, and latency counts from when each was
    /// due. Without it, closed loop: each worker goes on when it is answered.
    #[arg(long, value_name = "PER SECOND", value_parser = positive, global = true)]
    rate: Option<f64>,
    /// How long to measure, such as 500ms, 30s, 5m; 10s unless --count is given.
    #[arg(long, value_name = "TIME", value_parser = duration, global = true)]
    duration: Option<Duration>,
    /// How many operations to measure.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), global = true)]
    count: Option<u64>,
    /// What does not count, at the beginning.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", global = true)]
    warm_up: Duration,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", global = true)]
    timeout: Duration,
    /// A file of certificate authorities that are believed besides the usual ones.
    #[arg(long, value_name = "FILE", global = true)]
    ca_file: Vec<PathBuf>,
    /// Register users with this token.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PARLOUR_LOAD_REGISTRATION_TOKEN",
        hide_env_values = true,
        global = true,
        conflicts_with = "shared_secret"
    )]
    registration_token: Option<String>,
    /// Register users with the secret that administrators share with the server. Others on this
    /// machine can see it here; better in the environment.
    #[arg(
        long,
        value_name = "SECRET",
        env = "PARLOUR_LOAD_SHARED_SECRET",
        hide_env_values = true,
        global = true
    )]
    shared_secret: Option<String>,
    /// Have a Parlour in test mode make users, rooms and members all at once. Needs the shared
    /// secret, or an administrator's token.
    #[arg(long, global = true)]
    bulk: bool,
    /// The access token of an administrator, for --bulk. Others on this machine can see it here;
    /// better in the environment.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "PARLOUR_LOAD_ADMIN_TOKEN",
        hide_env_values = true,
        global = true
    )]
    admin_token: Option<String>,
    /// How many further members each room has, who do nothing. Needs --bulk.
    #[arg(long, value_name = "N", default_value_t = 0, global = true)]
    crowd: u32,
    /// Keep the users in this file for the next run.
    #[arg(long, value_name = "FILE", global = true)]
    users_file: Option<PathBuf>,
    /// The server's processes, whose CPU and memory are told; found by its port otherwise.
    #[arg(long, value_name = "PID", global = true)]
    server_pid: Vec<u32>,
    /// Parlour's metrics, such as http://127.0.0.1:8010/metrics: where the time of events goes.
    #[arg(long, value_name = "URL", global = true)]
    metrics: Option<String>,
    /// What the server is called in the report; what it calls itself otherwise.
    #[arg(long, value_name = "TEXT", global = true)]
    label: Option<String>,
    /// Write a line of JSON for every second, and one with the result.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Write a page with tables and plots.
    #[arg(long, value_name = "FILE", global = true)]
    html: Option<PathBuf>,
    /// Keep what was acknowledged, for `verify`.
    #[arg(long, value_name = "FILE", global = true)]
    manifest: Option<PathBuf>,
    /// Don't read back what was acknowledged.
    #[arg(long, global = true)]
    no_verify: bool,
    /// Threads of the generator.
    #[arg(long, value_name = "N", default_value_t = 1, global = true,
        value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Draw nothing while it runs.
    #[arg(long, global = true)]
    quiet: bool,
}

/// A duration such as `500ms`, `30s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err("it needs a unit: 500ms, 30s, 5m or 1h".to_owned()),
    };
    let number: f64 =
        number.parse().map_err(|_| "it looks like 500ms, 30s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// A number above 0.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

impl Common {
    fn settings(&self) -> Settings {
        let registration = match (&self.registration_token, &self.shared_secret) {
            (Some(token), _) => Registration::Token(token.clone()),
            (None, Some(secret)) => Registration::SharedSecret(secret.clone()),
            (None, None) => Registration::Open,
        };
        let duration = self.duration.or_else(|| self.count.is_none().then_some(DURATION));
        let (rate, warm_up, count) = (self.rate, self.warm_up, self.count);
        Settings {
            target: self.target.trim_end_matches('/').to_owned(),
            ca_files: self.ca_file.clone(),
            patience: self.timeout,
            plan: Plan { rate, warm_up, duration, count },
            label: self.label.clone(),
            registration,
            users_file: self.users_file.clone(),
            server_pids: self.server_pid.clone(),
            threads: self.threads.into(),
            quiet: self.quiet,
            verify: !self.no_verify,
            manifest: self.manifest.clone(),
            metrics: self.metrics.clone(),
            bulk: self.bulk.then(|| Wish {
                administrator: match (&self.admin_token, &self.shared_secret) {
                    (Some(token), _) => Some(Administrator::Token(token.clone())),
                    (None, Some(secret)) => Some(Administrator::Secret(secret.clone())),
                    (None, None) => None,
                },
                crowd: self.crowd as usize,
            }),
        }
    }
}

/// Does what the command line says, and prints what comes of it.
///
/// # Errors
///
/// What could not be done; or, when it was done, what is wrong with the server.
pub fn run(args: &LoadArgs) -> Result<(), LoadError> {
    let LoadArgs { common, command } = args;
    match command {
        Command::Scenario(Scenario::Mixed(options)) if options.print_profile => {
            print!("{}", profile::DEFAULT);
            Ok(())
        }
        Command::Scenario(_) if common.crowd > 0 && !common.bulk => {
            Err(LoadError::Usage("--crowd needs --bulk".to_owned()))
        }
        Command::Scenario(scenario) => {
            let settings = common.settings();
            let run = block_on(settings.threads, async {
                tokio::select! {
                    run = runner::run(&settings, scenario) => run,
                    () = interrupted_twice() => Err(LoadError::Failed("interrupted".to_owned())),
                }
            })??;
            let runs = [run];
            if let Some(file) = &common.json {
                record::save(file, &runs[0])?;
            }
            tell(common, &runs)?;
            runner::judge(&runs[0])
        }
        Command::Verify(args) => verify(common, args),
        Command::Certificates(CertificatesArgs { dir, host }) => {
            federation::make_certificates(dir, host)?;
            println!("Let the server believe {0}/ca.pem, and start it again.", dir.display());
            Ok(())
        }
        Command::Report(args) => {
            let runs = args.files.iter().map(|file| record::load(file));
            let runs = runs.collect::<Result<Vec<_>, _>>()?.concat();
            tell(common, &runs)
        }
    }
}

/// The first Ctrl-C ends what is measured, and the report comes; the second one ends everything.
async fn interrupted_twice() {
    for _ in 0..2 {
        if tokio::signal::ctrl_c().await.is_err() {
            // Then nobody hears of it, and it ends the process as ever.
            std::future::pending::<()>().await;
        }
    }
}

fn verify(common: &Common, args: &VerifyArgs) -> Result<(), LoadError> {
    let ledger = Ledger::load(&args.file)?;
    let verdict = block_on(1, async {
        let endpoint = runner::find(&ledger.target, &common.ca_file, common.timeout).await?;
        ledger.verify(&endpoint).await.map_err(|failure| LoadError::Unreachable {
            target: ledger.target.clone(),
            reason: failure.to_string(),
        })
    })??;
    runner::judge_verdict(Some(&verdict))?;
    println!("{} {}: all there, once, in order", verdict.checked, verdict.what);
    Ok(())
}

/// One thread unless told otherwise: handing work from thread to thread would cost the server's CPU.
fn block_on<F: Future>(threads: usize, work: F) -> Result<F::Output, LoadError> {
    use tokio::runtime::Builder;
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build();
    Ok(runtime.map_err(|error| LoadError::Broken(error.to_string()))?.block_on(work))
}

/// The table, and the page if somebody wants it.
fn tell(common: &Common, runs: &[Run]) -> Result<(), LoadError> {
    print!("{}", table::render(runs));
    let Some(file) = &common.html else { return Ok(()) };
    std::fs::write(file, html::render(runs)).map_err(LoadError::file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["5", "s", "-1s", "5 s", "1e400h", "5days", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(positive("0.5"), Ok(0.5));
        assert!(["0", "-1", "x", "inf", "NaN"].into_iter().all(|wrong| positive(wrong).is_err()));
    }
}
