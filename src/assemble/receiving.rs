//! Puts together what takes in other servers' transactions.

use parlour_actors::Engine;

use super::federation::Network;
use crate::{
    client::membership::Members,
    federation::{
        acl::RoomGuard,
        outside::Outside,
        receive::{Counters, ReceiveParts, inbox::Inbox},
        send,
    },
    http::{Api, Routes},
    server::{Boot, StartError},
    view::View,
};

/// Where transactions go, if this server speaks to others.
pub(super) fn inbox(
    boot: &Boot,
    engine: &Engine,
    view: &View,
    guard: &RoomGuard,
    network: &Network,
    members: &Members,
) -> Result<Option<Inbox>, StartError> {
    if !boot.config.federation.enabled {
        return Ok(None);
    }
    let parts = ReceiveParts {
        server_name: boot.config.server.name.clone(),
        rooms: engine.rooms.clone(),
        view: view.clone(),
        guard: guard.clone(),
        outside: Outside {
            out_of_band: engine.out_of_band.clone(),
            elsewhere: members.elsewhere.clone(),
            checker: network.checker.clone(),
        },
        checker: network.checker.clone(),
        client: network.room_client.clone(),
        typing: engine.typing.clone(),
        users: engine.users.clone(),
        resync: network.resync.clone(),
        presence: engine.presence.clone(),
        memory: boot.budget.federation.clone(),
        clock: boot.env.clock.clone(),
        counters: Counters::new(&boot.metrics)?,
    };
    let thread = boot.env.threads.start(c"receiving").map_err(StartError::Thread)?;
    Ok(Some(Inbox::new(parts, thread)))
}

/// The endpoint that takes them.
pub(super) fn routes(inbox: &Option<Inbox>) -> Routes {
    match inbox {
        Some(inbox) => send::routes(inbox.clone()),
        None => Routes::new(Api::Federation, ()).finish(),
    }
}
