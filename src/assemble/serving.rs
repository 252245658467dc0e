//! Puts together what other servers read from this one.

use std::sync::Arc;

use parlour_actors::Engine;

use crate::{
    federation::{
        acl::RoomGuard,
        backfill,
        events::{self, HistoryContext},
        public_rooms::{self, PublicRoomsContext},
        spaces::{self, SpaceContext},
        state,
        user_keys::{self, UserKeysContext},
    },
    http::{Api, Routes},
    server::Boot,
    view::{PublishedRooms, View},
};

/// What other servers may read.
pub(super) fn routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    guard: &RoomGuard,
    published: PublishedRooms,
) -> Routes {
    if !boot.config.federation.enabled {
        return Routes::new(Api::Federation, ()).finish();
    }
    let server_name = boot.config.server.name.clone();
    let (view, guard) = (view.clone(), guard.clone());
    let history = Arc::new(HistoryContext {
        view: view.clone(),
        guard: guard.clone(),
        server_name: server_name.clone(),
        clock: boot.env.clock.clone(),
    });
    let published = PublicRoomsContext { view: view.clone(), published };
    let keys = UserKeysContext {
        users: engine.users.clone(),
        view: view.clone(),
        server_name: server_name.clone(),
    };
    let spaces = SpaceContext { view, guard, server_name };
    events::routes(history.clone())
        .and(backfill::routes(history.clone()))
        .and(state::routes(history))
        .and(public_rooms::routes(Arc::new(published)))
        .and(spaces::routes(Arc::new(spaces)))
        .and(user_keys::routes(Arc::new(keys)))
}
