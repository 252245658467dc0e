//! Users who do not want every invite.

use serde_json::{Value, json};

use crate::common::{Ask, Server, User, path};

const STABLE: &str = "m.invite_permission_config";
const FILTER: &str = "org.matrix.msc4155.invite_permission_config";

fn set(user: &User, kind: &str, content: Value) {
    let at = path("/_matrix/client/v3/user/{}/account_data/{}", &[&user.id, kind]);
    user.http.put(&at, &content).ok();
}

/// Whether a first sync tells of the invite.
fn is_told(user: &User, room: &str) -> bool {
    user.sync(Ask::initial()).ok()["rooms"]["invite"][room].is_object()
}

// Checklist 6.8
#[test]
fn an_invite_that_is_blocked_is_refused_everywhere() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let early = alice.create_room(json!({ "invite": [bob.id] })).room_id();
    let room = alice.create_room(json!({})).room_id();
    assert!(is_told(&bob, &early));
    set(&bob, STABLE, json!({ "default_action": "block" }));
    alice.invite(&room, &bob).refused(403, "M_INVITE_BLOCKED");
    let content = json!({ "membership": "invite" });
    alice.set_state(&room, "m.room.member", &bob.id, content).refused(403, "M_INVITE_BLOCKED");
    for body in [
        json!({ "invite": [bob.id] }),
        json!({ "initial_state": [{ "type": "m.room.member", "state_key": bob.id,
            "content": { "membership": "invite" } }] }),
    ] {
        alice.create_room(body).refused(403, "M_INVITE_BLOCKED");
    }
    // What was there before is not shown either, nor does it come with an incremental sync.
    assert!(!is_told(&bob, &early));
    bob.join(&early).ok();
    set(&bob, STABLE, json!({}));
    alice.invite(&room, &bob).ok();
    assert!(is_told(&bob, &room));
    // What makes no sense forbids nothing.
    for content in [json!({ "default_action": "dance" }), json!({ "default_action": 1 })] {
        set(&bob, STABLE, content);
        alice.create_room(json!({ "invite": [bob.id] })).ok();
    }
}

// Checklist 6.8
#[test]
fn users_and_servers_can_be_told_apart() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let invite = |by: &User| by.create_room(json!({ "invite": [bob.id] }));
    set(&bob, FILTER, json!({ "allowed_users": ["@al?ce:*"], "blocked_servers": ["local*"] }));
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let room = invite(&alice).room_id();
    bob.sync_until(&token, |sync| sync["rooms"]["invite"][&room].is_object());
    invite(&carol).refused(403, "M_INVITE_BLOCKED");
    // An invite that is ignored is made, and not shown.
    set(&bob, FILTER, json!({ "ignored_users": [carol.id] }));
    let token = bob.sync(Ask::initial()).ok().next_batch();
    let ignored = invite(&carol).room_id();
    let shown = invite(&alice).room_id();
    let sync = bob.sync_until(&token, |sync| sync["rooms"]["invite"][&shown].is_object());
    assert!(sync["rooms"]["invite"][&ignored].is_null());
    assert!(!is_told(&bob, &ignored));
    bob.join(&ignored).ok();
    // What is off does nothing; what blocks everybody blocks friends, too.
    set(&bob, FILTER, json!({ "enabled": false, "blocked_users": ["*"] }));
    invite(&carol).ok();
    set(&bob, FILTER, json!({ "allowed_users": ["*"] }));
    set(&bob, STABLE, json!({ "default_action": "block" }));
    invite(&alice).refused(403, "M_INVITE_BLOCKED");
}
