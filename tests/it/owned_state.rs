//! State that belongs to a user (MSC3757), in room versions of its own.

use serde_json::json;

use crate::common::Server;

#[test]
fn members_set_the_state_that_is_theirs() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let capabilities = alice.http.get("/_matrix/client/v3/capabilities").ok();
    let available = &capabilities["capabilities"]["m.room_versions"]["available"];
    let versions = ["org.matrix.msc3757.10", "org.matrix.msc3757.11"];
    let rooms = versions.map(|version| {
        assert_eq!(available[version], "unstable");
        let levels = json!({ "events": { "org.example": 0 } });
        let body = json!({ "preset": "public_chat", "room_version": version,
            "power_level_content_override": levels });
        let room = alice.create_room(body).room_id();
        bob.join(&room).ok();
        room
    });
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    for (room, version) in rooms.iter().zip(versions) {
        let own = format!("{}_device", bob.id);
        assert_eq!(alice.state(room, "m.room.create", "").ok()["room_version"], version);
        bob.set_state(room, "org.example", &own, json!({ "by": "bob" })).ok();
        alice.set_state(room, "org.example", &own, json!({ "by": "alice" })).ok();
        assert_eq!(bob.state(room, "org.example", &own).ok()["by"], "alice");
        let others = format!("{}_device", alice.id);
        bob.set_state(room, "org.example", &others, json!({})).refused(403, "M_FORBIDDEN");
        bob.set_state(room, "org.example", "@nobody", json!({})).refused(400, "M_BAD_JSON");
    }
    let room = alice.public_room();
    let own = format!("{}_device", alice.id);
    alice.set_state(&room, "org.example", &own, json!({})).refused(403, "M_FORBIDDEN");
}
