//! State that the server looks at before it sends it.

use serde_json::{Value, json};

use crate::common::Server;

#[test]
fn nobody_denies_the_own_server_by_mistake() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let set = |content: Value| alice.set_state(&room, "m.room.server_acl", "", content);
    for content in [
        json!({}),
        json!({ "allow": ["*"], "deny": ["LOCAL*"] }),
        json!({ "allow": ["elsewhere.example"] }),
    ] {
        set(content.clone()).refused(400, "M_INVALID_PARAM");
        let initial = json!([{ "type": "m.room.server_acl", "content": content }]);
        alice.create_room(json!({ "initial_state": initial })).refused(400, "M_INVALID_PARAM");
    }
    set(json!({ "allow": "*" })).refused(400, "M_BAD_JSON");
    set(json!({ "allow": ["*"], "deny": ["*.evil.example"], "allow_ip_literals": false })).ok();
    set(json!({ "allow": ["loc?lhost"] })).ok();
}

#[test]
fn a_policy_server_needs_a_name_and_a_key() {
    let server = Server::start();
    let alice = server.user("alice");
    let room = alice.public_room();
    let set = |content: Value| alice.set_state(&room, "m.room.policy", "", content);
    let key = "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS/s";
    for content in [
        json!({ "via": "policy.example" }),
        json!({ "via": "policy.example", "public_keys": {} }),
        json!({ "via": "policy.example", "public_keys": { "ed25519": "short" } }),
        json!({ "via": "policy.example", "public_keys": { "other": key } }),
        json!({ "via": "not a name", "public_keys": { "ed25519": key } }),
        json!({ "public_keys": { "ed25519": key } }),
    ] {
        set(content).refused(400, "M_BAD_JSON");
    }
    set(json!({ "via": "policy.example", "public_keys": { "ed25519": key } })).ok();
    // Nothing in it turns it off.
    set(json!({})).ok();
}
