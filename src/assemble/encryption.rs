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
    server::Boot,
    view::View,
};

/// The endpoints of end-to-end encryption. Cross-signing is where authentication is.
pub(super) fn routes(boot: &Boot, engine: &Engine, view: &View, network: &Network) -> Routes {
    let (users, changes) = (engine.users.clone(), engine.changes.clone());
    let server_name = boot.config.server.name.clone();
    let keys = KeyContext {
        users: users.clone(),
        view: view.clone(),
        changes: changes.clone(),
        server_name: server_name.clone(),
        remote: network.client.clone(),
    };
    let backup = KeyBackupContext { users: users.clone(), view: view.clone() };
    let dehydrated = DehydratedContext { users: users.clone(), changes };
    keys::routes(Arc::new(keys))
        .and(to_device::routes(Arc::new(ToDeviceContext { users, server_name })))
        .and(key_backup::routes(Arc::new(backup)))
        .and(dehydrated_device::routes(Arc::new(dehydrated)))
}
