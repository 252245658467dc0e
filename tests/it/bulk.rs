//! Users, rooms and history in bulk: afterwards everything is as if people had made it.

mod jobs;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::common::{Ask, Server, User, deadline, path};

const BULK: &str = "/_parlour/test/v1/bulk";

/// Begins a job.
#[track_caller]
fn begin(root: &User, order: &Value) -> String {
    root.http.post(BULK, order).text("job_id")
}

/// How a job stands.
#[track_caller]
fn job(root: &User, id: &str) -> Value {
    root.http.get(&path("/_parlour/test/v1/bulk/{}", &[id])).ok().body
}

/// Waits until a job has come so far.
#[track_caller]
fn wait_for(root: &User, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let until = deadline(Duration::from_secs(60));
    loop {
        let job = job(root, id);
        if enough(&job) {
            return job;
        }
        assert!(!until.passed() && job["status"] == "active", "{job}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Does a job to its end, which must be a good one.
#[track_caller]
fn done(root: &User, order: &Value) -> Value {
    let id = begin(root, order);
    let job = wait_for(root, &id, |job| job["status"] != "active");
    assert_eq!((&job["status"], &job["refused"]), (&json!("complete"), &json!(0)), "{job}");
    for what in ["users", "rooms", "members", "messages"] {
        assert_eq!(job[what]["done"], job[what]["wanted"], "{what}: {job}");
    }
    job
}

/// Logs users in who were made in bulk.
#[track_caller]
fn logins(server: &Server, root: &User, users: &[String]) -> Vec<User> {
    let answer = root.http.post("/_parlour/test/v1/logins", &json!({ "users": users })).ok();
    let all = answer["logins"].as_array().unwrap().iter().map(|login| {
        let text = |key: &str| login[key].as_str().unwrap().to_owned();
        let (id, device, token) = (text("user_id"), text("device_id"), text("access_token"));
        User { id, device, http: server.http.with_token(&token), token }
    });
    all.collect()
}

/// The user ids of some users of a prefix.
fn named(server: &Server, prefix: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let id = |number| format!("@{prefix}-{number}:{}", server.name());
    numbers.into_iter().map(id).collect()
}

/// The text of all messages of a room, oldest first, by pages.
#[track_caller]
fn said(user: &User, room: &str) -> Vec<String> {
    let (mut said, mut from) = (Vec::new(), String::new());
    loop {
        let page = user.room(room, &format!("messages?dir=f&limit=50{from}")).ok();
        let messages = page.chunk().into_iter().filter(|event| event["type"] == "m.room.message");
        said.extend(messages.map(|event| event["content"]["body"].as_str().unwrap().to_owned()));
        match page["end"].as_str() {
            Some(end) => from = path("&from={}", &[end]),
            None => return said,
        }
    }
}

/// The room's state without what differs from room to room: by type and key, content and sender.
fn state(user: &User, room: &str, names: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let neutral = |value: &Value| {
        let rename = |text: String, (name, neutral): &(&str, &str)| text.replace(name, neutral);
        let text = names.iter().fold(value.to_string(), rename);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let events = user.room(room, "state").ok();
    let events = events.body.as_array().unwrap().iter().map(|event| {
        let key = neutral(&json!([event["type"], event["state_key"]])).to_string();
        (key, neutral(&json!([event["sender"], event["content"]])))
    });
    events.collect()
}

#[test]
fn what_is_made_in_bulk_is_as_if_people_had_made_it() {
    let server = Server::start();
    let root = server.admin("root");
    let order = json!({ "users": 40, "rooms": 2, "members": 30, "messages": 150, "published": true,
        "password": "a word for all" });
    let made = done(&root, &order);
    assert_eq!((&made["users"]["done"], &made["members"]["done"]), (&json!(40), &json!(60)));
    let rooms: Vec<_> = made["room_ids"].as_array().unwrap().iter().collect();
    let room = rooms[0].as_str().unwrap();
    let people = logins(&server, &root, &named(&server, "bulk", [0, 1, 29, 39]));
    let [first, second, last, outsider] = &people[..] else { panic!("{people:?}") };

    // The same room, made by hand.
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let name = |user: &User, name: &str| {
        let at = path("/_matrix/client/v3/profile/{}/displayname", &[&user.id]);
        user.http.put(&at, &json!({ "displayname": name })).ok();
    };
    name(&alice, "Alice");
    name(&bob, "Bob");
    let body = json!({ "preset": "public_chat", "visibility": "public",
        "name": "Room 0 of bulk" });
    let by_hand = alice.create_room(body).room_id();
    bob.join(&by_hand).ok();
    let hand =
        state(&alice, &by_hand, &[(&alice.id, "A"), ("Alice", "a"), (&bob.id, "B"), ("Bob", "b")]);
    let bulk = state(
        first,
        room,
        &[(&second.id, "B"), ("bulk 1\"", "b\""), (&first.id, "A"), ("bulk 0\"", "a\"")],
    );
    for (key, hand) in &hand {
        assert_eq!(bulk.get(key), Some(hand), "{key}");
    }
    assert_eq!(bulk.len(), hand.len() + 28, "nothing else but the other members");

    // Who is in, by whatever tells it.
    let joined = first.room(room, "joined_members").ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 30);
    let about = path("/_synapse/admin/v1/rooms/{}", &[room]);
    assert_eq!(root.http.get(&about).ok()["joined_members"], 30);
    let all = root.http.get("/_matrix/client/v3/publicRooms").ok();
    let listed = all["chunk"].as_array().unwrap().iter().find(|listed| listed["room_id"] == room);
    assert_eq!(listed.unwrap()["num_joined_members"], 30);
    let of =
        |user: &User| user.http.get("/_matrix/client/v3/joined_rooms").ok()["joined_rooms"].clone();
    assert_eq!(of(outsider), json!([rooms[1]]), "the second room goes round");
    assert_eq!(of(second).as_array().unwrap().len(), 2, "in both");
    outsider.say(room, "let me in").refused(403, "M_FORBIDDEN");

    // The history, and what is behind it.
    let messages = said(last, room);
    let numbers = messages.iter().map(|text| text.split(' ').next().unwrap().parse().unwrap());
    assert_eq!(numbers.collect::<Vec<usize>>(), (0..150).collect::<Vec<_>>());
    let sync = last.sync(Ask::initial()).ok();
    let summary = &sync["rooms"]["join"][room]["summary"];
    assert_eq!(summary["m.joined_member_count"], 30, "{summary}");
    assert_eq!(sync.timeline(room).last().unwrap()["content"]["body"], *messages[149]);
    let search = json!({ "search_categories": { "room_events": { "search_term": "parlour" } } });
    let found = first.http.post("/_matrix/client/v3/search", &search).ok();
    let count = found["search_categories"]["room_events"]["count"].as_u64().unwrap();
    assert!(count > 0 && count < 300, "{count}");
    let search = json!({ "search_term": "bulk 29" });
    let known = first.http.post("/_matrix/client/v3/user_directory/search", &search).ok();
    assert_eq!(known["results"][0]["user_id"], last.id.as_str(), "{}", known.body);

    // It goes on as any other room.
    second.say(room, "by hand").event_id();
    last.sync_until(&sync.next_batch(), |sync| {
        sync.timeline(room).iter().any(|event| event["content"]["body"] == "by hand")
    });
    last.leave(room).ok();
    first.set_state(room, "m.room.topic", "", json!({ "topic": "bulk" })).event_id();
    second.set_state(room, "m.room.topic", "", json!({})).refused(403, "M_FORBIDDEN");
    let login = json!({ "type": "m.login.password", "password": "a word for all",
        "identifier": { "type": "m.id.user", "user": "bulk-7" } });
    server.http.post("/_matrix/client/v3/login", &login).ok();
}

#[test]
fn other_servers_believe_what_was_made_in_bulk() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let root = near.admin("root");
    for version in ["1", "6", "12"] {
        let order = json!({ "prefix": format!("v{version}"), "users": 12, "rooms": 1,
            "members": 12, "messages": 20, "room_version": version });
        let made = done(&root, &order);
        let room = made["room_ids"][0].as_str().unwrap();
        let carol = far.user(&format!("carol{version}"));
        let at = path("/_matrix/client/v3/join/{}?server_name={}", &[room, &near.name()]);
        let at = at + &path("&via={}", &[&near.name()]);
        carol.http.post(&at, &json!({})).ok();
        let joined = carol.room(room, "joined_members").ok();
        assert_eq!(joined["joined"].as_object().unwrap().len(), 13);
        let host = logins(&near, &root, &named(&near, &format!("v{version}"), [3])).remove(0);
        let since = host.sync(Ask::initial()).ok().next_batch();
        carol.say(room, "from afar").event_id();
        host.sync_until(&since, |sync| {
            sync.timeline(room).iter().any(|event| event["content"]["body"] == "from afar")
        });
        // Those who come in bulk now are told to the other server.
        let since = carol.sync(Ask::initial()).ok().next_batch();
        let more = json!({ "prefix": format!("more{version}"), "users": 70 });
        done(&root, &more);
        let joins = named(&near, &format!("more{version}"), 0..70);
        let joined = done(&root, &json!({ "joins": [{ "room_id": room, "users": joins }] }));
        assert_eq!(joined["members"]["done"], 70);
        let count = |sync: &crate::common::Answer| {
            let summary = &sync["rooms"]["join"][room]["summary"];
            summary["m.joined_member_count"].as_u64()
        };
        carol.sync_until(&since, |sync| count(sync) == Some(83));
    }
}

#[test]
fn users_enter_rooms_that_are_there() {
    let server = Server::start();
    let (root, alice, bob) = (server.admin("root"), server.user("alice"), server.user("bob"));
    let (open, closed) = (alice.public_room(), alice.create_room(json!({})).room_id());
    bob.join(&open).ok();
    let since = bob.sync(Ask::initial()).ok().next_batch();
    done(&root, &json!({ "prefix": "guest", "users": 100 }));
    let users = named(&server, "guest", 0..100);
    let job = done(&root, &json!({ "joins": [{ "room_id": open, "users": users }] }));
    assert_eq!(job["members"]["done"], 100);
    // Whoever waits is told as of any other join.
    let told =
        bob.sync(Ask::since(&since).filter(json!({ "room": { "timeline": { "limit": 200 } } })));
    let told = told.ok();
    let joins = told.timeline(&open);
    assert_eq!(joins.len(), 100);
    assert!(joins.iter().all(|event| event["content"]["membership"] == "join"));
    assert_eq!(joins[7]["content"]["displayname"], "guest 7");
    assert_eq!(told["rooms"]["join"][&open]["summary"]["m.joined_member_count"], 102);
    // Once more changes nothing, but they speak.
    let speak = json!({ "joins": [{ "room_id": open, "users": users[..3], "messages": 70 }] });
    let job = done(&root, &speak);
    assert_eq!((&job["members"]["done"], &job["messages"]["done"]), (&json!(3), &json!(70)));
    assert_eq!(said(&bob, &open).len(), 70);
    let told = bob.sync(Ask::since(&told.next_batch())).ok();
    let speakers = told.timeline(&open).into_iter().map(|event| event["sender"].clone());
    assert!(speakers.into_iter().all(|sender| users[..3].iter().any(|user| sender == **user)));
    let silent = json!({ "joins": [{ "room_id": open, "users": [], "messages": 1 }] });
    root.http.post(BULK, &silent).refused(400, "M_INVALID_PARAM");
    let again = json!({ "joins": [{ "room_id": open, "users": users }] });
    done(&root, &again);
    let next = bob.sync(Ask::since(&told.next_batch())).ok();
    assert!(next.timeline(&open).is_empty());
    // A room's rules hold here, too, and so does it that there are such users.
    let nobody = format!("@nobody:{}", server.name());
    let order = json!({ "joins": [{ "room_id": closed, "users": [users[0], nobody, users[1]] }] });
    let id = begin(&root, &order);
    let job = wait_for(&root, &id, |job| job["status"] != "active");
    let counts = (&job["status"], &job["refused"], &job["members"]["done"]);
    assert_eq!(counts, (&json!("complete"), &json!(3), &json!(0)), "{job}");
    assert!(job["first_refusal"].as_str().unwrap().contains("nobody"), "{job}");
    let banned = logins(&server, &root, &users[..1]).remove(0);
    banned.leave(&open).ok();
    alice.membership(&open, "ban", json!({ "user_id": banned.id })).ok();
    let order = json!({ "joins": [{ "room_id": open, "users": [users[0]] }] });
    let id = begin(&root, &order);
    let job = wait_for(&root, &id, |job| job["status"] != "active");
    assert_eq!(job["refused"], 1, "{job}");
}
