//! Commands that work on the data directory: backup, restore, repair, reindex, new keys.

use std::path::{Path, PathBuf};

use clap::Args;
use parlour_actors::{
    env::Env,
    server_keys::{ServerKeys, ServerKeysError},
};
use parlour_storage::{RepairMode, RepairReport, StorageError};

use super::{ConfigArgs, progress::progress};
use crate::config::{Config, DataDir};

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// An empty or new directory for the backup.
    pub(super) target: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// The directory with the backup.
    pub(super) backup: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Go back to the last moment before the damage; what came later is set aside.
    #[arg(long, conflicts_with = "fill_gaps")]
    pub(super) cut: bool,
    /// Keep all that is whole, also after the damage; what is lost between is left empty.
    #[arg(long)]
    pub(super) fill_gaps: bool,
}

/// Why a command failed, in one line.
#[derive(Debug, thiserror::Error)]
pub(super) enum MaintenanceError {
    #[error("the data directory is \"memory\"; set server.data_dir to a directory")]
    InMemory,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Keys(#[from] ServerKeysError),
    #[error("the log is damaged; choose --cut or --fill-gaps to repair it")]
    Damaged,
}

fn data_dir(config: &Config) -> Result<&Path, MaintenanceError> {
    match &config.server.data {
        DataDir::Path(path) => Ok(path),
        DataDir::Memory => Err(MaintenanceError::InMemory),
    }
}

pub(super) fn backup(config: &Config, target: &Path) -> Result<(), MaintenanceError> {
    let report = parlour_storage::backup(data_dir(config)?, target, progress().as_ref())?;
    let (bytes, target) = (report.bytes, target.display());
    println!("Backed up through position {}, {bytes} bytes of log, to {target}.", report.through);
    Ok(())
}

pub(super) fn restore(config: &Config, backup: &Path) -> Result<(), MaintenanceError> {
    let dir = data_dir(config)?;
    let report = parlour_storage::restore(backup, dir, &progress())?;
    println!("Restored through position {} to {}.", report.through, dir.display());
    Ok(())
}

pub(super) fn reindex(config: &Config) -> Result<(), MaintenanceError> {
    let report = parlour_storage::reindex(data_dir(config)?, &progress())?;
    if let Some(bytes) = report.recovery.torn_bytes {
        println!("Cut {bytes} bytes off the log that were being written at the last stop.");
    }
    if let Some(known) = report.recovery.index_was_ahead {
        let lost = format!("{} to {known}", report.through.0 + 1);
        println!("The old index knew of commits that the log has lost: positions {lost}.");
    }
    println!("The index is new, through position {}.", report.through);
    Ok(())
}

pub(super) fn new_signing_key(config: &Config) -> Result<(), MaintenanceError> {
    let key = ServerKeys::renew(data_dir(config)?, &Env::system())?;
    println!("The key {key} signs from the next start on.");
    Ok(())
}

pub(super) fn repair(config: &Config, args: &RepairArgs) -> Result<(), MaintenanceError> {
    let mode = match (args.cut, args.fill_gaps) {
        (true, _) => RepairMode::CutAtDamage,
        (false, true) => RepairMode::FillGaps,
        (false, false) => RepairMode::Report,
    };
    let report = parlour_storage::repair(data_dir(config)?, mode, &progress())?;
    tell(&report);
    if mode == RepairMode::Report && !report.losses.is_empty() {
        return Err(MaintenanceError::Damaged);
    }
    Ok(())
}

fn tell(report: &RepairReport) {
    println!(
        "The log is whole through position {}; {} records are whole.",
        report.whole_through, report.whole_records
    );
    for loss in &report.losses {
        let last = loss.last.map_or_else(|| "the end".to_owned(), |last| last.to_string());
        println!(
            "Lost: position {} to {last} (segment {}, byte {}): {}",
            loss.first, loss.segment, loss.offset, loss.what
        );
    }
    if let Some(bytes) = report.torn_bytes {
        println!(
            "{bytes} bytes at the end are no whole commit. If they were being written at the last \
             stop, the next start cuts them off; if they had been acknowledged before they were \
             damaged, it refuses to, and --cut does."
        );
    }
    if let Some(path) = &report.set_aside {
        println!("The log as it was is kept in {}.", path.display());
    }
}
