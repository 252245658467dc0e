//! Puts together what lets users into rooms: here, and on other servers.

use std::sync::Arc;

use parlour_actors::Engine;

use super::federation::Network;
use crate::{
    client::membership::{Elsewhere, Members},
    federation::{
        acl::RoomGuard,
        handshake::HandshakeContext,
        invite::{self, InviteContext},
        join, knock, leave,
        outbound::membership::Handshakes,
        third_party::{self, ThirdPartyContext},
    },
    http::Routes,
    server::Boot,
    view::View,
};

/// What changes memberships.
pub(super) fn members(boot: &Boot, engine: &Engine, view: &View, network: &Network) -> Members {
    let server_name = boot.config.server.name.clone();
    let handshakes = Handshakes {
        client: network.client.clone(),
        checker: network.checker.clone(),
        ring: network.ring.clone(),
        key: engine.keys.signing().clone(),
        server_name: server_name.clone(),
        env: boot.env.clone(),
    };
    let (rooms, out_of_band) = (engine.rooms.clone(), engine.out_of_band.clone());
    Members {
        view: view.clone(),
        rooms: rooms.clone(),
        users: engine.users.clone(),
        typing: engine.typing.clone(),
        server_name,
        elsewhere: Elsewhere::new(view.clone(), rooms, out_of_band, handshakes),
    }
}

/// What other servers ask for their users.
pub(super) fn routes(
    boot: &Boot,
    engine: &Engine,
    network: &Network,
    members: &Members,
    guard: &RoomGuard,
) -> Routes {
    if !boot.config.federation.enabled {
        return Routes::none();
    }
    let (view, key) = (members.view.clone(), engine.keys.signing().clone());
    let (guard, checker) = (guard.clone(), network.checker.clone());
    let handshakes = Arc::new(HandshakeContext {
        view,
        rooms: engine.rooms.clone(),
        guard: guard.clone(),
        checker: checker.clone(),
        server_name: members.server_name.clone(),
        key: key.clone(),
    });
    let invites = InviteContext {
        members: members.clone(),
        guard: guard.clone(),
        out_of_band: engine.out_of_band.clone(),
        checker,
        key,
    };
    let third_party = ThirdPartyContext { members: members.clone(), guard };
    join::routes(handshakes.clone())
        .and(leave::routes(handshakes.clone()))
        .and(knock::routes(handshakes))
        .and(invite::routes(Arc::new(invites)))
        .and(third_party::routes(Arc::new(third_party)))
}
