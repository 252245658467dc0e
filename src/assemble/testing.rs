//! What servers in test mode have, and no others.

use std::sync::Arc;

use parlour_actors::{
    Engine,
    bulk::Bulk,
    commit::{Announcement, Ops},
};
use parlour_storage::{
    Op,
    faults::Faults,
    fs::{FileSystem, RealFiles},
    schema::keys,
};

use super::default_version;
use crate::{
    admin::testing::{self, TestContext},
    client::accounts::Accounts,
    config::DataDir,
    http::{Api, Routes},
    server::{Boot, StartError},
    view::View,
};

/// Under which it is written down that ids and tokens have been drawn from a seed.
const SEEDED: &str = "seeded";

/// The faults of the disk: of a server in test mode, if it has one.
pub(super) fn faults(boot: &Boot) -> Option<Faults> {
    let has_disk = matches!(boot.config.server.data, DataDir::Path(_));
    let is_there = boot.config.server.test_mode && has_disk;
    is_there.then(|| Faults::new(boot.config.test.faults))
}

/// The files under the event log.
pub(super) fn files(faults: Option<&Faults>) -> Arc<dyn FileSystem> {
    let files = Arc::new(RealFiles);
    match faults {
        Some(faults) => faults.of(files),
        None => files,
    }
}

/// Sees to it that data whose tokens can be guessed are never served to others: what a seed has made
/// is written down before it makes anything.
pub(super) async fn check_seed(boot: &Boot, engine: &Engine) -> Result<(), StartError> {
    let config = &boot.config;
    let DataDir::Path(dir) = &config.server.data else { return Ok(()) };
    let failed = |error: &dyn std::error::Error| StartError::Part(error.to_string());
    let key = keys::setting(SEEDED);
    let is_seeded = engine.store.get(&key).map_err(|error| failed(&error))?.is_some();
    if is_seeded && !config.server.test_mode {
        return Err(StartError::Part(format!(
            "the data in {} were made in test mode with a seed, so their tokens can be guessed: \
             start with --test-mode, or use another data directory",
            dir.display()
        )));
    }
    if is_seeded || config.seed().is_none() {
        return Ok(());
    }
    let ops = vec![Op::Put { key, value: bytes::Bytes::new() }];
    let note = Box::new(Ops { ops, announcement: Announcement::Nothing });
    engine.persister.commit(note).await.map(drop).map_err(|error| failed(&error))
}

/// What load tests ask, and what makes data for them, which has to be stopped first.
pub(super) fn routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    accounts: &Arc<Accounts>,
    faults: Option<Faults>,
) -> Result<(Routes, Option<Bulk>), StartError> {
    let config = &boot.config;
    if !config.server.test_mode {
        return Ok((Routes::new(Api::Admin, ()).finish(), None));
    }
    let (rooms, users) = (engine.rooms.clone(), engine.users.clone());
    let bulk = Bulk::new(rooms, users, config.server.name.clone(), boot.env.clone());
    let context = TestContext {
        bulk: bulk.clone(),
        accounts: accounts.clone(),
        view: view.clone(),
        room_version: default_version(config)?,
        faults,
    };
    Ok((testing::routes(Arc::new(context)), Some(bulk)))
}
