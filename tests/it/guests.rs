//! Guests: what they may do, where they may be, and how they become users.

use serde_json::{Value, json};

use crate::common::{Ask, PASSWORD, Server, User, path};

const REGISTER: &str = "/_matrix/client/v3/register";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const FORBIDDEN: &str = "M_GUEST_ACCESS_FORBIDDEN";

fn server() -> Server {
    Server::start_with(&[("PARLOUR_REGISTRATION__GUESTS", "true")])
}

#[track_caller]
fn guest(server: &Server) -> User {
    let answer = server.http.post(&format!("{REGISTER}?kind=guest"), &json!({})).ok();
    User::from_login(&server.http, &answer)
}

fn allow(host: &User, room: &str, access: &str) {
    let access = json!({ "guest_access": access });
    host.set_state(room, "m.room.guest_access", "", access).ok();
}

fn open_room(host: &User) -> String {
    let room = host.public_room();
    allow(host, &room, "can_join");
    room
}

#[test]
fn a_guest_chooses_nothing_but_the_name_of_its_device() {
    let server = server();
    let body = json!({ "username": "me", "password": PASSWORD, "device_id": "MINE",
        "inhibit_login": true, "refresh_token": true, "initial_device_display_name": "Browser" });
    let answer = server.http.post(&format!("{REGISTER}?kind=guest"), &body).ok();
    assert!(answer["refresh_token"].is_null(), "{}", answer.body);
    let guest = User::from_login(&server.http, &answer);
    assert!(guest.id != "@me:localhost" && guest.device != "MINE", "{guest:?}");
    let me = guest.http.get(WHOAMI).ok();
    assert_eq!((&me["is_guest"], &me["user_id"]), (&json!(true), &json!(guest.id)));
    let device = path("/_matrix/client/v3/devices/{}", &[&guest.device]);
    assert_eq!(guest.http.get(&device).ok()["display_name"], "Browser");
    let alice = server.user("alice");
    assert_ne!(alice.http.get(WHOAMI).ok()["is_guest"], true);
    server.http.post(&format!("{REGISTER}?kind=cat"), &body).refused(400, "M_INVALID_PARAM");
}

// Checklist 8.9
#[test]
fn guests_may_use_what_is_on_the_list_and_no_more() {
    let server = server();
    let (alice, guest) = (server.user("alice"), guest(&server));
    let room = open_room(&alice);
    guest.join(&room).ok();
    let event = guest.say(&room, "hello").event_id();
    guest.send(&room, "org.example.anything", json!({})).ok();
    let own = path("/_matrix/client/v3/profile/{}/", &[&guest.id]);
    guest.http.put(&(own.clone() + "displayname"), &json!({ "displayname": "Guest" })).ok();
    guest.http.send("DELETE", &(own.clone() + "displayname"), b"").ok();
    for what in ["state", "members", "messages?dir=b", "state/m.room.create/"] {
        guest.room(&room, what).ok();
    }
    for what in ["event", "context"] {
        guest.room(&room, &path(&format!("{what}/{{}}"), &[&event])).ok();
    }
    guest.sync(Ask::initial()).ok();
    guest.http.get("/_matrix/client/versions").ok();
    guest.http.get("/_matrix/client/v3/devices").ok();
    // What needs no token is open to guests as it is to strangers.
    guest.http.get("/_matrix/client/v3/publicRooms").ok();
    guest.http.get(own.trim_end_matches('/')).ok();
    guest.http.get(&path("/_matrix/client/v1/room_summary/{}", &[&room])).ok();
    let device = path("/_matrix/client/v3/devices/{}", &[&guest.device]);
    guest.http.put(&device, &json!({ "display_name": "x" })).ok();
    // State is up to the room's power levels.
    guest.set_state(&room, "m.room.topic", "", json!({ "topic": "x" })).refused(403, "M_FORBIDDEN");
    let avatar = json!({ "avatar_url": "mxc://localhost/x" });
    guest.http.put(&(own.clone() + "avatar_url"), &avatar).refused(403, FORBIDDEN);
    guest.http.send("DELETE", &(own + "avatar_url"), b"").refused(403, FORBIDDEN);
    guest.redact(&room, &event, "x").refused(403, FORBIDDEN);
    guest.create_room(json!({})).refused(403, FORBIDDEN);
    guest.invite(&room, &alice).refused(403, FORBIDDEN);
    guest.room(&room, "joined_members").refused(403, FORBIDDEN);
    let by_alias = path("/_matrix/client/v3/join/{}", &[&room]);
    guest.http.post(&by_alias, &json!({})).refused(403, FORBIDDEN);
    guest.http.send("DELETE", &device, b"").refused(403, FORBIDDEN);
    let password = json!({ "new_password": "x" });
    guest.http.post("/_matrix/client/v3/account/password", &password).refused(403, FORBIDDEN);
    guest.http.post("/_matrix/client/v3/account/deactivate", &json!({})).refused(403, FORBIDDEN);
    guest.http.post("/_matrix/client/v3/account/3pid", &json!({})).refused(403, FORBIDDEN);
    guest.http.get("/_matrix/client/v3/capabilities").refused(403, FORBIDDEN);
    guest.http.get("/_matrix/client/v3/joined_rooms").refused(403, FORBIDDEN);
    guest.leave(&room).ok();
}

// Checklist 8.9
#[test]
fn guests_are_only_where_they_are_wanted() {
    let mut server = server();
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let guests = [guest(&server), guest(&server)];
    let [first, second] = &guests;
    let (room, other) = (alice.public_room(), open_room(&alice));
    first.join(&room).refused(403, FORBIDDEN);
    allow(&alice, &room, "forbidden");
    first.join(&room).refused(403, FORBIDDEN);
    let join = json!({ "membership": "join" });
    first.set_state(&room, "m.room.member", &first.id, join.clone()).refused(403, FORBIDDEN);
    // An invite is no way in either.
    alice.invite(&room, first).ok();
    first.join(&room).refused(403, FORBIDDEN);
    allow(&alice, &room, "can_join");
    first.join(&room).ok();
    second.set_state(&room, "m.room.member", &second.id, join).ok();
    bob.join(&room).ok();
    first.join(&other).ok();
    let since = bob.sync(Ask::initial()).next_batch();
    allow(&alice, &room, "forbidden");
    let is_out = |watcher: &User, guest: &User| {
        watcher.state(&room, "m.room.member", &guest.id)["membership"] == "leave"
    };
    if !(is_out(&bob, first) && is_out(&bob, second)) {
        bob.sync_until(&since, |_| is_out(&bob, first) && is_out(&bob, second));
    }
    assert_eq!(bob.state(&room, "m.room.member", &bob.id)["membership"], "join");
    let elsewhere = alice.state(&other, "m.room.member", &first.id);
    assert_eq!(elsewhere["membership"], "join");
    // What was left undone at a kill is done after it.
    let since = alice.sync(Ask::initial()).next_batch();
    alice.set_state(&other, "m.room.guest_access", "", json!({})).ok();
    server.restart();
    let alice = server.again(&alice);
    let is_out = || alice.state(&other, "m.room.member", &first.id)["membership"] == "leave";
    if !is_out() {
        alice.sync_until(&since, |_| is_out());
    }
}

#[test]
fn a_guest_becomes_a_user_and_keeps_its_rooms() {
    let mut server = server();
    let alice = server.user("alice");
    let (guest, other) = (guest(&server), guest(&server));
    let room = open_room(&alice);
    guest.join(&room).ok();
    let name = guest.id.trim_start_matches('@').trim_end_matches(":localhost");
    let with = |name: &str, token: &str| {
        json!({ "username": name, "password": PASSWORD, "guest_access_token": token,
            "auth": { "type": "m.login.dummy" } })
    };
    let refused = |body: Value, status: u16, errcode: &str| {
        server.http.post(REGISTER, &body).refused(status, errcode);
    };
    refused(with(name, &alice.token), 403, "M_FORBIDDEN");
    refused(with(name, "x"), 403, "M_FORBIDDEN");
    refused(with("somebody", &guest.token), 400, "M_INVALID_USERNAME");
    refused(with(name, &other.token), 400, "M_INVALID_USERNAME");
    let mut unnamed = with(name, &guest.token);
    unnamed.as_object_mut().unwrap().remove("username");
    refused(unnamed, 400, "M_MISSING_PARAM");
    let answer = server.http.post(REGISTER, &with(name, &guest.token)).ok();
    let user = User::from_login(&server.http, &answer);
    assert_eq!(user.id, guest.id);
    guest.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(user.http.get(WHOAMI).ok()["is_guest"], true);
    // Rooms that want no guests may keep users.
    allow(&alice, &room, "forbidden");
    server.restart();
    let user = server.again(&user);
    user.say(&room, "still here").event_id();
    user.create_room(json!({})).ok();
    server.login(name);
    // On the same device there is nothing else to end.
    let name = other.id.trim_start_matches('@').trim_end_matches(":localhost");
    let mut body = with(name, &other.token);
    body["device_id"] = json!(other.device);
    let again = User::from_login(&server.http, &server.http.post(REGISTER, &body).ok());
    assert_eq!(again.device, other.device);
    again.http.get(WHOAMI).ok();
    server.again(&other).http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
}

// Checklist 8.9
#[test]
fn guests_come_into_rooms_of_other_servers_when_these_are_here_and_want_them() {
    let near = Server::start_federated(&[("PARLOUR_REGISTRATION__GUESTS", "true")]);
    let far = Server::start_federated(&[]);
    let (alice, bob, guest) = (near.user("alice"), far.user("bob"), guest(&near));
    let room = open_room(&bob);
    let join = path("/_matrix/client/v3/join/{}?via={}", &[&room, &far.name()]);
    // Whether the room wants guests nobody here knows: other servers do not ask who is one.
    guest.join(&room).refused(403, FORBIDDEN);
    assert!(bob.state(&room, "m.room.member", &guest.id).status == 404);
    alice.http.post(&join, &json!({})).ok();
    guest.join(&room).ok();
    guest.say(&room, "hello").event_id();
    // When the room does not want them any more, they go, wherever that was said.
    let since = alice.sync(Ask::initial()).next_batch();
    allow(&bob, &room, "forbidden");
    let is_out = || alice.state(&room, "m.room.member", &guest.id)["membership"] == "leave";
    if !is_out() {
        alice.sync_until(&since, |_| is_out());
    }
    guest.join(&room).refused(403, FORBIDDEN);
}
