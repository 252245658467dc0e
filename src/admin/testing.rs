//! What load tests ask of a server in test mode, and no other server has: data in bulk, logins, and a
//! disk that fails. An administrator's token is needed as for everything else that operators do.

mod bulk;
mod faults;
mod logins;

use std::sync::Arc;

use parlour_actors::bulk::Bulk;
use parlour_event::RoomVersion;
use parlour_storage::faults::Faults;

use super::request::AdminRoutes;
use crate::{client::accounts::Accounts, http::Routes, view::View};

/// What these endpoints need to know.
#[derive(Debug)]
pub struct TestContext {
    /// Makes data in bulk.
    pub bulk: Bulk,
    /// Logs users in, and hashes passwords.
    pub accounts: Arc<Accounts>,
    /// Which rooms there are.
    pub view: View,
    /// The version of rooms if nobody says.
    pub room_version: &'static RoomVersion,
    /// The faults of the disk, if there is one.
    pub faults: Option<Faults>,
}

/// The endpoints of this file and those below it.
#[must_use]
pub fn routes(context: Arc<TestContext>) -> Routes {
    let routes = AdminRoutes::new(context);
    faults::add(logins::add(bulk::add(routes))).finish()
}
