//! Room versions of MSC3757: state keys that belong to a user.

use parlour_event::RoomVersion;
use serde_json::json;

use crate::support::*;

fn room(version: &str) -> Room {
    let mut room = Room::joined(11).member(BOB, "join").member(CAROL, "join").member(DAVE, "join");
    room.version = RoomVersion::parse(version).unwrap();
    let users = json!({ ALICE: 100, BOB: 50, CAROL: 50 });
    room.levels(json!({ "users": users, "state_default": 0 }))
}

#[test]
fn a_state_key_belongs_to_the_user_that_it_begins_with() {
    let set = |sender: &str, key: &str| state(sender, "org.example", key, json!({}));
    let other = Deny("must not be another user's ID");
    let nobody = Deny("neither a user ID nor one with an underscore");
    for version in ["org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
        room(version).table(&[
            ("the own id", set(BOB, BOB), Allow),
            ("the own id and more", set(BOB, "@bob:a.org_device"), Allow),
            ("the own id and nothing more", set(BOB, "@bob:a.org_"), Allow),
            ("more than one underscore", set(BOB, "@bob:a.org_a_b:c"), Allow),
            ("a peer's", set(BOB, CAROL), other),
            ("a peer's and more", set(BOB, "@carol:c.org_device"), other),
            ("that of somebody with less power", set(ALICE, "@carol:c.org_device"), Allow),
            ("the plain id of somebody with less power", set(ALICE, CAROL), Allow),
            ("that of somebody with more power", set(BOB, "@alice:a.org_x"), other),
            ("a longer server name", set(DAVE, "@dave:d.organisation"), other),
            ("an underscore in the localpart", set(DAVE, "@dave_x:d.org"), other),
            ("no server", set(ALICE, "@bob"), nobody),
            ("no server behind the colon", set(ALICE, "@bob:_x"), nobody),
            ("no user at all", set(BOB, "bob"), Allow),
        ]);
    }
    for version in ["10", "11"] {
        room(version).table(&[
            ("the own id", set(BOB, BOB), Allow),
            ("the own id and more", set(BOB, "@bob:a.org_device"), other),
            ("that of somebody with less power", set(ALICE, CAROL), other),
        ]);
    }
}
