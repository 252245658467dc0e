//! Keys and messages of devices.

use std::sync::Arc;

use parlour_actors::Engine;

use super::federation::Network;
use crate::{
    client::{
        dehydrated_device::{self, DehydratedContext},
        key_backup::{self, KeyBackupContext},
        keys::{self, KeyContext},
        to_device::{self, ToDeviceContext},
    },
    http::Routes,
    server::{Boot, StartError},
    view::View,
};

/// The endpoints of end-to-end encryption. Cross-signing is where authentication is.
///
/// # Errors
///
/// If a metric cannot be added.
pub(super) fn routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    network: &Network,
) -> Result<Routes, StartError> {
    let (users, changes) = (engine.users.clone(), engine.changes.clone());
    let server_name = boot.config.server.name.clone();
    let keys = KeyContext {
        users: users.clone(),
        view: view.clone(),
        changes: changes.clone(),
        server_name: server_name.clone(),
        remote: network.user_keys.clone(),
    };
    let to_device = ToDeviceContext {
        users: users.clone(),
        server_name,
        remote: network.client.clone(),
        env: boot.env.clone(),
        metrics: Arc::new(boot.metrics.clone()),
    };
    let backup = KeyBackupContext { users: users.clone(), view: view.clone() };
    let dehydrated = DehydratedContext { users, changes };
    Ok(keys::routes(Arc::new(keys))
        .and(to_device::routes(Arc::new(to_device)))
        .and(key_backup::routes(Arc::new(backup)))
        .and(dehydrated_device::routes(Arc::new(dehydrated))))
}
