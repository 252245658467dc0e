//! Knocking at rooms of other servers.

use super::*;

fn room_with(owner: &User, rule: &str, version: &str) -> String {
    let rules = json!([{ "type": "m.room.join_rules", "content": { "join_rule": rule } }]);
    let body = json!({ "name": "Behind", "initial_state": rules, "room_version": version });
    owner.create_room(body).room_id()
}

// Checklist 4.8, 8.5, 8.6
#[test]
fn who_knocks_elsewhere_is_let_in_by_an_invite() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let via = near.name();
    let mut since = now(&bob);
    for (version, rule) in [("7", "knock"), ("10", "knock_restricted"), ("12", "knock")] {
        let room = room_with(&alice, rule, version);
        assert_eq!(knock_via(&bob, &room, &[&via]).room_id(), room);
        let knocked = alice.state(&room, "m.room.member", &bob.id).ok();
        assert_eq!(
            (&knocked["membership"], &knocked["reason"]),
            (&json!("knock"), &json!("please"))
        );
        let sync = sync_to(&bob, &since, "knock", &room);
        let seen = told(&sync, "knock", &room);
        assert_eq!(seen["m.room.name"]["name"], "Behind");
        assert_eq!(seen["m.room.create"]["room_version"], version);
        assert_eq!(seen["m.room.member"]["membership"], "knock");
        far.restart();
        let bob = far.again(&bob);
        assert_eq!(sections(&bob.sync(Ask::initial()).ok(), &room), ["knock"]);
        alice.invite(&room, &bob).ok();
        let sync = sync_to(&bob, &sync.next_batch(), "invite", &room);
        bob.join(&room).ok();
        since = sync_to(&bob, &sync.next_batch(), "join", &room).next_batch();
    }
}

// Checklist 8.5
#[test]
fn a_knock_can_be_taken_back() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = room_with(&alice, "knock", "11");
    let since = now(&bob);
    knock_via(&bob, &room, &[]).ok();
    let since = sync_to(&bob, &since, "knock", &room).next_batch();
    bob.leave(&room).ok();
    sync_to(&bob, &since, "leave", &room);
    assert_eq!(membership(&alice, &room, &bob), "leave");
    knock_via(&bob, &room, &[]).ok();
    assert_eq!(membership(&alice, &room, &bob), "knock");
}

#[test]
fn not_every_room_can_be_knocked_at() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let via = near.name();
    let public = alice.public_room();
    knock_via(&bob, &public, &[&via]).refused(403, "M_FORBIDDEN");
    knock_via(&bob, "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &[&via])
        .refused(404, "M_NOT_FOUND");
    knock_via(&bob, "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &[]).refused(404, "M_UNKNOWN");
    let old = alice.create_room(json!({ "room_version": "6" })).room_id();
    knock_via(&bob, &old, &[]).refused(403, "M_FORBIDDEN");
}
