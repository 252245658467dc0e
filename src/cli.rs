//! The command line.

pub(crate) mod admin;
mod maintenance;
mod progress;

use std::{fmt::Display, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};
use parlour_actors::env::{Entropy, Env, SeededEntropy};
use parlour_load::cli::LoadArgs;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    admin::AdminArgs,
    maintenance::{BackupArgs, MaintenanceError, RepairArgs, RestoreArgs},
};
use crate::{
    assemble::assemble,
    config::{self, Config, DataDir, Source},
    logging,
    server::{self, Running},
};

/// The exit code of a configuration that makes no sense.
const BAD_CONFIG: u8 = 2;

/// The exit code of everything else that fails.
const FAILED: u8 = 1;

#[derive(Debug, Parser)]
#[command(name = "parlour", version, about = "A Matrix homeserver whose rooms are actors")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Check the configuration and say what is wrong with it.
    CheckConfig(ConfigArgs),
    /// Copy the data of a server, which may run meanwhile, to a directory.
    Backup(BackupArgs),
    /// Make a data directory from a backup.
    Restore(RestoreArgs),
    /// Look for damage in the log of a stopped server and, if asked to, repair it.
    Repair(RepairArgs),
    /// Build the index of a stopped server again from its log.
    Reindex(ConfigArgs),
    /// Make a new key to sign events with, from the next start on. Old keys stay valid.
    NewSigningKey(ConfigArgs),
    /// Look after a running server: accounts, rooms, tokens, reports.
    Admin(AdminArgs),
    /// Measure any homeserver: load, latency, memory, and whether it keeps what it says.
    Load(Box<LoadArgs>),
    /// Print the default configuration, with comments, to begin your own with.
    GenerateConfig,
}

#[derive(Debug, Clone, Args)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// For load tests, as server.test_mode: no rate limits, cheap password hashing, endpoints that
    /// fill the server and make its disk fail. Refused where others can reach the server.
    #[arg(long)]
    test_mode: bool,
}

#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The configuration file; without one the defaults and the environment count.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(ServeArgs { config, test_mode }) => {
            let source = Source { test_mode, ..Source::process(config.config) };
            load_from(&source).and_then(serve)
        }
        Command::CheckConfig(args) => load(args).map(|config| {
            println!("The configuration of {} is good.", config.server.name);
        }),
        Command::Backup(args) => {
            maintain(args.config, |config| maintenance::backup(config, &args.target))
        }
        Command::Restore(args) => {
            maintain(args.config, |config| maintenance::restore(config, &args.backup))
        }
        Command::Repair(args) => {
            maintain(args.config.clone(), |config| maintenance::repair(config, &args))
        }
        Command::Reindex(args) => maintain(args, maintenance::reindex),
        Command::NewSigningKey(args) => maintain(args, maintenance::new_signing_key),
        Command::Admin(args) => load(ConfigArgs { config: args.config.clone() })
            .and_then(|config| admin::run(&config, args).map_err(|error| complain(FAILED, error))),
        Command::Load(args) => {
            parlour_load::cli::run(&args).map_err(|error| complain(FAILED, error))
        }
        Command::GenerateConfig => {
            print!("{}", config::DEFAULT);
            Ok(())
        }
    }
    .map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

fn load(args: ConfigArgs) -> Result<Config, ExitCode> {
    load_from(&Source::process(args.config))
}

fn load_from(source: &Source) -> Result<Config, ExitCode> {
    Config::load(source).map_err(|error| complain(BAD_CONFIG, error))
}

fn maintain(
    args: ConfigArgs,
    work: impl FnOnce(&Config) -> Result<(), MaintenanceError>,
) -> Result<(), ExitCode> {
    let config = load(args)?;
    work(&config).map_err(|error| complain(FAILED, error))
}

/// One line on standard error, and the exit code.
fn complain(code: u8, error: impl Display) -> ExitCode {
    eprintln!("parlour: {error}");
    ExitCode::from(code)
}

fn serve(config: Config) -> Result<(), ExitCode> {
    logging::start(&config.log).map_err(|error| complain(FAILED, error))?;
    raise_file_limit();
    let env = environment(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| complain(FAILED, error))?;
    let running = server::launch(config, env, assemble).map_err(|error| complain(FAILED, error))?;
    // Before anybody is told that it runs: whoever stops it then is heard.
    let signals = runtime.block_on(async { Signals::new() });
    let signals = signals.map_err(|error| complain(FAILED, error))?;
    for address in running.addresses() {
        let scheme = if address.tls { "https" } else { "http" };
        tracing::info!(address = %address.address, scheme, apis = ?address.apis, "listening");
    }
    runtime.block_on(until_signal(running, signals)).map_err(|error| complain(FAILED, error))
}

/// Each connection is an open file: of those a process begins with 1,024, and may have more if it
/// asks.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// In test mode ids and tokens may repeat from run to run; and the signing key, where it is
/// forgotten.
fn environment(config: &Config) -> Env {
    let env = Env::system();
    let Some(seed) = config.seed() else { return env };
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
    let secrets = match config.server.data {
        DataDir::Memory => entropy.clone(),
        DataDir::Path(_) => env.secrets.clone(),
    };
    Env { entropy, secrets, ..env }
}

/// What tells the process to do something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Not a stop: certificates are read again.
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self { terminate: terminate?, interrupt: interrupt?, hangup: hangup? })
    }
}

async fn until_signal(mut running: Running, mut signals: Signals) -> std::io::Result<()> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => running.reload_certificates(),
            () = running.ended() => return Err(std::io::Error::other("the server ended by itself")),
        }
    }
    running.stop();
    Ok(())
}
