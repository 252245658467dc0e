//! Who is online here, as other servers hear of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use parlour_actors::presence::State;
use support::remote_member;
use world::{World, server};

const ALICE: &str = "@alice:parlour.test";

/// How often a server was told what alice is.
fn told(world: &World, server: &str) -> Vec<String> {
    let edus = world.edus(server).into_iter().filter(|edu| edu["edu_type"] == "m.presence");
    let push = edus.flat_map(|edu| edu["content"]["push"].as_array().unwrap().clone());
    let of_alice = push.filter(|push| push["user_id"] == ALICE);
    of_alice.map(|push| push["presence"].as_str().unwrap().to_owned()).collect()
}

// Checklist 9.8
#[actix::test]
async fn who_is_online_is_told_again_and_to_whoever_comes() {
    let server = server().await;
    let room = server.room_with(&["far.org", "dead.org"]).await;
    server.world.fail("dead.org");
    let _syncing = server.engine.presence.syncs(ALICE, "DEVICE", State::Online);
    server.until(|world| told(world, "far.org") == ["online"]).await;
    // Whoever comes later hears of it when something happens there.
    remote_member(&server.engine, &room, "@guest:late.org", "join").await;
    server.say(&room, "welcome").await;
    server.until(|world| told(world, "late.org") == ["online"]).await;
    assert_eq!(told(&server.world, "far.org"), ["online"]);
    // That she has not done anything for a minute is news; after that there is none.
    let both = |world: &World, times| {
        ["far.org", "late.org"].iter().all(|server| told(world, server).len() == times)
    };
    server.pass(Duration::from_secs(90));
    server.until(|world| both(world, 2)).await;
    server.pass(Duration::from_secs(20 * 60));
    server.until(|world| both(world, 3)).await;
    server.pass(Duration::from_secs(20 * 60));
    server.until(|world| both(world, 4)).await;
    assert_eq!(told(&server.world, "far.org"), ["online"; 4]);
    assert!(told(&server.world, "dead.org").is_empty());
    server.stop().await;
}
