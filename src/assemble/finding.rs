//! Puts together how rooms are found: here, and at other servers.

use std::sync::Arc;

use parlour_actors::Engine;

use super::federation::Network;
use crate::{
    client::{
        aliases::AliasContext,
        directory::{self, DirectoryContext},
        mutual_rooms::{self, MutualRoomsContext},
        room_summary::{self, RoomSummaryContext},
        spaces::{self, SpaceContext},
    },
    federation::outbound::hierarchy::RemoteRooms,
    http::Routes,
    server::Boot,
    view::{PublishedRooms, View, spaces::Pages},
};

/// The list of published rooms, being filled.
pub(super) fn published_rooms(engine: &Engine, view: &View) -> PublishedRooms {
    let (directory, changes) = (engine.directory.clone(), engine.changes.clone());
    let published = PublishedRooms::new(view.clone(), directory, changes);
    published.prepare();
    published
}

/// Finding rooms.
pub(super) fn routes(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    network: &Network,
    published: PublishedRooms,
    aliases: Arc<AliasContext>,
) -> Routes {
    let server_name = boot.config.server.name.clone();
    let (view, clock) = (view.clone(), boot.env.clock.clone());
    let remote = RemoteRooms::new(network.client.clone(), clock.clone());
    let listed = DirectoryContext {
        view: view.clone(),
        directory: engine.directory.clone(),
        published,
        server_name: server_name.clone(),
        remote: network.client.clone(),
    };
    let summary = RoomSummaryContext { view: view.clone(), aliases, remote: remote.clone() };
    let mutual = MutualRoomsContext { view: view.clone(), server_name: server_name.clone() };
    let pages = Pages::new(boot.env.clone());
    let spaces = SpaceContext { view, pages, remote, server_name, clock };
    directory::routes(Arc::new(listed))
        .and(room_summary::routes(Arc::new(summary)))
        .and(mutual_rooms::routes(Arc::new(mutual)))
        .and(spaces::routes(Arc::new(spaces)))
}
