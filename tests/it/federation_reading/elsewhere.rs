//! What servers tell each other that have no room in common.

use serde_json::{Value, json};

use super::{each, get, pair, post};
use crate::common::{Asked, FakeServer, Server, User, path};

fn publish(user: &User, room: &str) {
    let at = path("/_matrix/client/v3/directory/list/room/{}", &[room]);
    user.http.put(&at, &json!({ "visibility": "public" })).ok();
}

fn named(user: &User, name: &str, more: Value) -> String {
    let mut body = json!({ "name": name, "preset": "public_chat" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    user.create_room(body).room_id()
}

fn space(user: &User, name: &str) -> String {
    named(user, name, json!({ "creation_content": { "type": "m.space" } }))
}

fn add(user: &User, space: &str, child: &str, via: &Server, suggested: bool) {
    let content = json!({ "via": [via.name()], "suggested": suggested });
    user.set_state(space, "m.space.child", child, content).ok();
}

#[test]
fn the_lists_of_published_rooms() {
    let (near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    for name in ["One", "Two", "Three"] {
        publish(&alice, &named(&alice, name, json!({})));
    }
    let own = json!({ "creation_content": { "m.federate": false } });
    publish(&alice, &named(&alice, "Ours", own));
    let space = space(&alice, "Space");
    publish(&alice, &space);
    let origin = far.origin();
    let all = |more: &str| get(&origin, &near, &format!("publicRooms{more}"), &[]);
    let found = all("").ok();
    let mut names = each(&found["chunk"], "name");
    names.sort();
    // What lets nobody in from there is not shown there.
    assert_eq!(names, ["One", "Space", "Three", "Two"]);
    assert_eq!(found["total_room_count_estimate"], 4);
    assert_eq!(all("?limit=0").ok()["chunk"].as_array().unwrap().len(), 4);
    let first = all("?limit=3").ok();
    assert_eq!((first["chunk"].as_array().unwrap().len(), &first["prev_batch"]), (3, &Value::Null));
    let second = all(&path("?limit=3&since={}", &[&first.clone().text("next_batch")])).ok();
    assert_eq!(second["chunk"].as_array().unwrap().len(), 1);
    assert_eq!(second["next_batch"], Value::Null);
    let back = all(&path("?limit=3&since={}", &[&second.text("prev_batch")])).ok();
    assert_eq!(back["chunk"], first["chunk"]);
    all("?since=nonsense").refused(400, "M_INVALID_PARAM");
    assert_eq!(all("?include_all_networks=true").ok()["chunk"].as_array().unwrap().len(), 4);
    assert_eq!(all("?third_party_instance_id=irc").ok()["chunk"], json!([]));

    let search = |body: Value| post(&origin, &near, "publicRooms", &[], &body);
    assert_eq!(each(&search(json!({})).ok()["chunk"], "name").len(), 4);
    let term = |term: &str| json!({ "filter": { "generic_search_term": term } });
    assert_eq!(each(&search(term("tw")).ok()["chunk"], "name"), ["Two"]);
    let types = json!({ "filter": { "room_types": ["m.space"] }, "limit": 5 });
    assert_eq!(each(&search(types).ok()["chunk"], "room_id"), [&*space]);
    assert_eq!(search(json!({ "third_party_instance_id": "irc" })).ok()["chunk"], json!([]));
    search(json!({ "limit": "many" })).refused(400, "M_BAD_JSON");

    // The same for the other server's users.
    let name = near.name();
    let at = |more: &str| path("/_matrix/client/v3/publicRooms?server={}", &[&name]) + more;
    let first = bob.http.get(&at("&limit=3")).ok();
    assert_eq!(first["chunk"].as_array().unwrap().len(), 3);
    let rest = bob.http.get(&at(&path("&since={}", &[&first.text("next_batch")]))).ok();
    assert_eq!((&rest["chunk"].as_array().unwrap().len(), &rest["next_batch"]), (&1, &Value::Null));
    let found = bob.http.post(&at(""), &term("SPACE")).ok();
    assert_eq!(each(&found["chunk"], "room_id"), [&*space]);
    far.http.get(&at("")).refused(403, "M_FORBIDDEN");
    bob.http.get("/_matrix/client/v3/publicRooms?server=example.org").refused(403, "M_FORBIDDEN");
    drop(near);
    assert_eq!(bob.http.get(&at("")).status, 502);
}

/// Root has Open, Closed (which nobody may see), Sub (with Deep), and a room that nobody knows.
struct Tree {
    root: String,
    open: String,
    closed: String,
    sub: String,
}

fn tree(user: &User, home: &Server) -> Tree {
    let [root, sub, deep] = ["Root", "Sub", "Deep"].map(|name| space(user, name));
    let open = named(user, "Open", json!({}));
    let closed = named(user, "Closed", json!({ "preset": "private_chat" }));
    add(user, &root, &open, home, true);
    add(user, &root, &closed, home, false);
    add(user, &root, &sub, home, false);
    add(user, &root, &format!("!nowhere:{}", home.name()), home, false);
    add(user, &sub, &deep, home, false);
    Tree { root, open, closed, sub }
}

// Checklist 13.25
#[test]
fn spaces_are_described_to_servers_that_could_enter_them() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated_by_address());
    let alice = near.user("alice");
    let Tree { root, open, closed, sub } = tree(&alice, &near);
    let origin = far.origin();
    let of =
        |room: &str, more: &str| get(&origin, &near, &format!("hierarchy/{{}}{more}"), &[room]);
    let found = of(&root, "").ok();
    assert_eq!(found["room"]["name"], "Root");
    assert_eq!(found["room"]["children_state"].as_array().unwrap().len(), 4);
    let mut children = each(&found["children"], "room_id");
    children.sort();
    let mut expected = vec![open.clone(), sub];
    expected.sort();
    assert_eq!(children, expected, "one level, and what is known");
    assert_eq!(found["inaccessible_children"], json!([closed]));
    let suggested = of(&root, "?suggested_only=true").ok();
    assert_eq!(each(&suggested["children"], "room_id"), [&*open]);
    assert_eq!(suggested["inaccessible_children"], json!([]));
    let plain = of(&open, "").ok();
    assert_eq!(plain["room"]["children_state"], json!([]));
    of(&closed, "").refused(404, "M_NOT_FOUND");
    of("!nowhere:example.org", "").refused(404, "M_NOT_FOUND");
    // Whom the room keeps out cannot enter it.
    let list = json!({ "allow": ["*"], "allow_ip_literals": false });
    alice.set_state(&open, "m.room.server_acl", "", list).ok();
    let found = of(&root, "?suggested_only=true").ok();
    assert_eq!(found["inaccessible_children"], json!([open]));
    of(&open, "").refused(404, "M_NOT_FOUND");
}

// Checklist 8.15
#[test]
fn a_walk_leads_on_to_other_servers() {
    let (near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let Tree { root, open, .. } = tree(&alice, &near);
    let top = space(&bob, "Top");
    let last = named(&bob, "Last", json!({}));
    add(&bob, &top, &root, &near, true);
    add(&bob, &top, &last, &far, false);
    let walk = |more: &str| {
        let at = path("/_matrix/client/v1/rooms/{}/hierarchy", &[&top]);
        bob.http.get(&(at + more)).ok()
    };
    let names = |more: &str| each(&walk(more)["rooms"], "name");
    let mut all = names("");
    all.sort();
    assert_eq!(all, ["Deep", "Last", "Open", "Root", "Sub", "Top"]);
    assert_eq!(names("?suggested_only=true"), ["Top", "Root", "Open"]);
    let mut one_deep = names("?max_depth=1");
    one_deep.sort();
    assert_eq!(one_deep, ["Last", "Root", "Top"]);
    let (mut paged, mut from) = (Vec::new(), String::new());
    loop {
        let page = walk(&format!("?limit=2{from}"));
        paged.extend(each(&page["rooms"], "name"));
        let Some(next) = page["next_batch"].as_str() else { break };
        from = path("&from={}", &[next]);
    }
    paged.sort();
    assert_eq!(paged, all);
    // The whole may be elsewhere.
    let at = path("/_matrix/client/v1/rooms/{}/hierarchy", &["!nowhere:example.org"]);
    bob.http.get(&at).refused(403, "M_FORBIDDEN");

    let summary = |user: &User, room: &str| {
        let at = path("/_matrix/client/v1/room_summary/{}?via={}", &[room, &near.name()]);
        user.http.get(&at)
    };
    let found = summary(&bob, &open).ok();
    assert_eq!((&found["name"], &found["membership"]), (&json!("Open"), &Value::Null));
    far.http
        .get(&path("/_matrix/client/v1/room_summary/{}?via={}", &[&open, &near.name()]))
        .refused(404, "M_NOT_FOUND");
    let put = path("/_matrix/client/v3/directory/room/{}", &[&format!("#open:{}", near.name())]);
    alice.http.put(&put, &json!({ "room_id": open })).ok();
    assert_eq!(summary(&bob, &format!("#open:{}", near.name())).ok()["room_id"], open);
    summary(&bob, &format!("#none:{}", near.name())).refused(404, "M_NOT_FOUND");
    summary(&bob, "!nowhere:example.org").refused(404, "M_NOT_FOUND");
}

// Checklist 5.9
#[test]
fn users_without_keys_have_none() {
    let (near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let origin = far.origin();
    let devices = |user: &str| get(&origin, &near, "user/devices/{}", &[user]);
    let expected = json!({ "user_id": alice.id, "stream_id": 0, "devices": [] });
    assert_eq!(devices(&alice.id).ok().body, expected);
    devices(&bob.id).refused(400, "M_INVALID_PARAM");
    let carol = near.user("carol");
    carol.confirmed("POST", "/_matrix/client/v3/account/deactivate", json!({})).ok();
    for user in [&carol.id, &format!("@nobody:{}", near.name())] {
        let expected = json!({ "user_id": user, "stream_id": 0, "devices": [] });
        assert_eq!(devices(user).ok().body, expected);
    }
    devices("alice").refused(400, "M_INVALID_PARAM");
    let query = |body: Value| post(&origin, &near, "user/keys/query", &[], &body);
    let nobody = format!("@nobody:{}", near.name());
    let found = query(json!({ "device_keys": { &alice.id: [], &nobody: ["X"] } })).ok();
    assert_eq!(found["device_keys"], json!({ &alice.id: {} }));
    query(json!({ "device_keys": { &bob.id: [] } })).refused(400, "M_INVALID_PARAM");
    query(json!({})).refused(400, "M_BAD_JSON");
    let claim = |body: Value| post(&origin, &near, "user/keys/claim", &[], &body);
    let wanted = |user: &str| json!({ "one_time_keys": { user: { "D": "signed_curve25519" } } });
    assert_eq!(claim(wanted(&alice.id)).ok()["one_time_keys"], json!({}));
    claim(wanted(&bob.id)).refused(400, "M_INVALID_PARAM");
    claim(json!({ "one_time_keys": [] })).refused(400, "M_BAD_JSON");
    near.http
        .get(&path("/_matrix/federation/v1/user/devices/{}", &[&alice.id]))
        .refused(401, "M_UNAUTHORIZED");
}

#[test]
fn strangers_have_no_other_server_asked() {
    let (near, far) = pair();
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let profile = path("/_matrix/client/v3/profile/{}", &[&bob.id]);
    alice.http.get(&profile).ok();
    near.http.get(&profile).refused(403, "M_FORBIDDEN");
    let own = path("/_matrix/client/v3/profile/{}", &[&alice.id]);
    near.http.get(&own).ok();
    let alias = format!("#hall:{}", far.name());
    bob.create_room(json!({ "room_alias_name": "hall" })).ok();
    let at = path("/_matrix/client/v3/directory/room/{}", &[&alias]);
    alice.http.get(&at).ok();
    near.http.get(&at).refused(403, "M_FORBIDDEN");
}

/// What a server answers that has something wrong in everything.
fn partly_wrong(asked: &Asked) -> Option<(u16, Vec<u8>)> {
    let room = |id: &str, rule: &str| {
        json!({ "room_id": id, "num_joined_members": 3, "world_readable": true,
            "guest_can_join": false, "join_rule": rule, "children_state": [] })
    };
    let answer = if asked.is("v1/publicRooms") {
        let odd = json!({ "room_id": "!odd:example.org", "canonical_alias": "none" });
        json!({ "chunk": [5, odd, room("!good:example.org", "public")], "next_batch": "more" })
    } else if asked.is("v1/hierarchy") {
        json!({ "room": room(&asked.part(5), "new"), "inaccessible_children": [],
            "children": [5, { "room_id": 7 }, room("!good:example.org", "newer")] })
    } else if asked.is("v1/query/profile") {
        json!({ "displayname": 5, "avatar_url": "mxc://example.org/a", "org.example": { "a": 1 } })
    } else {
        return None;
    };
    Some((200, answer.to_string().into_bytes()))
}

#[test]
fn what_is_wrong_with_one_thing_elsewhere_does_not_concern_the_others() {
    let (near, far) = (Server::start_federated(&[]), FakeServer::start(|_| partly_wrong));
    let alice = near.user("alice");
    let list = path("/_matrix/client/v3/publicRooms?server={}", &[far.name()]);
    for rooms in [alice.http.get(&list).ok(), alice.http.post(&list, &json!({})).ok()] {
        assert_eq!(rooms.chunk().len(), 1);
        assert_eq!(rooms.chunk()[0]["room_id"], "!good:example.org");
        assert_eq!(rooms["next_batch"], "more");
    }
    let (here, there) = (space(&alice, "Here"), format!("!there:{}", far.name()));
    alice.set_state(&here, "m.space.child", &there, json!({ "via": [far.name()] })).ok();
    let walk = path("/_matrix/client/v1/rooms/{}/hierarchy", &[&here]);
    let found = alice.http.get(&walk).ok();
    assert_eq!(
        (&found["rooms"][1]["room_id"], &found["rooms"][1]["join_rule"]),
        (&json!(there), &json!("private"))
    );
    let summary = path("/_matrix/client/v1/room_summary/{}?via={}", &[&there, far.name()]);
    assert_eq!(alice.http.get(&summary).ok()["join_rule"], "private");
    let bob = format!("@bob:{}", far.name());
    let profile = path("/_matrix/client/v3/profile/{}", &[&bob]);
    let expected = json!({ "avatar_url": "mxc://example.org/a", "org.example": { "a": 1 } });
    assert_eq!(alice.http.get(&profile).ok().body, expected);
    alice.http.get(&format!("{profile}/displayname")).refused(404, "M_NOT_FOUND");
}
