//! The list of what a user was notified of.

use serde_json::{Value, json};

use crate::common::{Server, User, path};

fn list(user: &User, query: &str) -> Value {
    user.http.get(&format!("/_matrix/client/v3/notifications?{query}")).ok().body
}

fn ids(page: &Value) -> Vec<&str> {
    let all = page["notifications"].as_array().unwrap().iter();
    all.map(|one| one["event"]["event_id"].as_str().unwrap()).collect()
}

fn mention(user: &User, room: &str, whom: &User) -> String {
    let content = json!({ "msgtype": "m.text", "body": "you!",
        "m.mentions": { "user_ids": [whom.id] } });
    user.send(room, "m.room.message", content).event_id()
}

fn read(user: &User, room: &str, event: &str) {
    let at = path("/_matrix/client/v3/rooms/{}/receipt/m.read/{}", &[room, event]);
    user.http.post(&at, &json!({})).ok();
}

#[test]
fn notifications_of_all_rooms_are_listed_newest_first() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let rooms = [alice.public_room(), alice.public_room(), alice.public_room()];
    alice.say(&rooms[0], "before he came").ok();
    rooms.iter().for_each(|room| drop(bob.join(room).ok()));
    let mut sent = Vec::new();
    for n in 0..6 {
        let room = &rooms[n % 2];
        sent.insert(0, alice.say(room, &n.to_string()).event_id());
        alice.send(room, "org.example.quiet", json!({})).ok();
        bob.send(&rooms[2], "org.example.own", json!({})).ok();
    }
    sent.insert(0, mention(&alice, &rooms[2], &bob));
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let all = list(&bob, "");
    assert_eq!(ids(&all), sent);
    assert!(all["next_token"].is_null(), "{all}");
    let newest = &all["notifications"][0];
    assert_eq!(newest["room_id"], json!(rooms[2]));
    let loud = json!(["notify", { "set_tweak": "sound", "value": "default" },
        { "set_tweak": "highlight" }]);
    assert_eq!(newest["actions"], loud);
    assert_eq!(newest["ts"], newest["event"]["origin_server_ts"]);
    assert_eq!(ids(&list(&bob, "only=highlight")), [&sent[0]]);
    assert_eq!(ids(&list(&bob, "only=anything")), sent);
    let mut pages = Vec::new();
    let mut query = "limit=3".to_owned();
    loop {
        let page = list(&bob, &query);
        pages.push(page["notifications"].as_array().unwrap().len());
        let first = pages.iter().sum::<usize>() - pages[pages.len() - 1];
        assert_eq!(ids(&page), sent[first..first + pages[pages.len() - 1]]);
        let Some(token) = page["next_token"].as_str() else { break };
        query = path("limit=3&from={}", &[token]);
    }
    assert_eq!(pages, [3, 3, 1]);
    assert_eq!(ids(&list(&alice, "")), Vec::<&str>::new(), "own words are no news");
}

#[test]
fn invites_are_listed_until_they_are_answered() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let [alice, carol] = ["alice", "carol"].map(|name| near.user(name));
    let bob = far.user("bob");
    let room = alice.create_room(json!({ "preset": "private_chat" })).room_id();
    for whom in [&bob, &carol] {
        alice.invite(&room, whom).ok();
        let page = list(whom, "");
        let all = page["notifications"].as_array().unwrap();
        assert_eq!((all.len(), &all[0]["room_id"]), (1, &json!(room)), "{page}");
        assert_eq!(all[0]["event"]["content"]["membership"], "invite");
        assert_eq!(all[0]["event"]["state_key"], json!(whom.id));
        assert_eq!(all[0]["read"], false);
        let actions = json!(["notify", { "set_tweak": "sound", "value": "default" }]);
        assert_eq!(all[0]["actions"], actions);
        assert_eq!(ids(&list(whom, "only=highlight")), Vec::<&str>::new());
        let ignored =
            path("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", &[&whom.id]);
        whom.http.put(&ignored, &json!({ "ignored_users": { (&*alice.id): {} } })).ok();
        assert_eq!(ids(&list(whom, "")), Vec::<&str>::new(), "of one who is ignored");
        whom.http.put(&ignored, &json!({ "ignored_users": {} })).ok();
        assert_eq!(ids(&list(whom, "")).len(), 1);
        whom.leave(&room).ok();
        assert_eq!(ids(&list(whom, "")), Vec::<&str>::new());
    }
}

#[test]
fn the_list_says_what_has_been_read() {
    let server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let [room, other] = [alice.public_room(), alice.public_room()];
    for room in [&room, &other] {
        bob.join(room).ok();
    }
    let first = alice.say(&room, "one").event_id();
    let gone = alice.say(&room, "two").event_id();
    let last = alice.say(&room, "three").event_id();
    alice.say(&other, "elsewhere").ok();
    let flags = || {
        let page = list(&bob, "");
        let all = page["notifications"].as_array().unwrap().iter();
        all.map(|one| one["read"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(flags(), [false, false, false, false]);
    read(&bob, &room, &first);
    assert_eq!(flags(), [false, false, false, true]);
    alice.redact(&room, &gone, "a mistake").ok();
    assert_eq!(flags(), [false, false, true]);
    bob.say(&room, "an answer").ok();
    assert_eq!(flags(), [false, true, true]);
    let mute = path("/_matrix/client/v3/pushrules/global/room/{}", &[&room]);
    bob.http.put(&mute, &json!({ "actions": [] })).ok();
    assert_eq!(flags(), [false], "the rules that count are those of now");
    bob.http.send("DELETE", &mute, b"").ok();
    bob.leave(&other).ok();
    assert_eq!(ids(&list(&bob, "")), [&last, &first]);
}

#[test]
fn parameters_are_checked() {
    let server = Server::start();
    let alice = server.user("alice");
    let at = "/_matrix/client/v3/notifications";
    server.http.get(at).refused(401, "M_MISSING_TOKEN");
    for query in ["from=nonsense", "from=g1_1_1", "limit=x", "limit=-1"] {
        alice.http.get(&format!("{at}?{query}")).refused(400, "M_INVALID_PARAM");
    }
    for query in ["limit=0", "limit=9007199254740991", "from=s1_0_0"] {
        assert_eq!(list(&alice, query), json!({ "notifications": [] }));
    }
}
