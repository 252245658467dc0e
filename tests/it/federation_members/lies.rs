//! Answers that no honest server gives.

use std::sync::{Arc, Mutex, mpsc};

use super::*;
use crate::common::{Asked, FakeRoom, FakeServer, bytes};

/// How a server treats who wants to join its room.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Honest,
    /// A template for something else.
    OtherRoom,
    OtherUser,
    NoJoin,
    NewVersion,
    /// An answer to the join.
    NoCreate,
    CreateOfOther,
    NoSignatures,
    Omitted,
    /// The state's copies of its events are not signed, those of the auth chain are.
    GoodInChain,
    Nonsense,
    Broken,
    Refused,
    Incompatible,
    Ungranted,
    /// Knows only the first version of `send_join`.
    Old,
}

fn template(room: &FakeRoom, mode: Mode, asked: &Asked) -> Vec<u8> {
    let user = if mode == Mode::OtherUser { "@other:localhost:1" } else { &asked.part(6) };
    let membership = if mode == Mode::NoJoin { "leave" } else { "join" };
    let mut event = room.template(user, membership);
    if mode == Mode::OtherRoom {
        event.insert("room_id".to_owned(), "!other:localhost".into());
    }
    FakeRoom::offer(if mode == Mode::NewVersion { "99" } else { "10" }, event)
}

fn state(room: &FakeRoom, other: &FakeRoom, mode: Mode) -> Vec<u8> {
    let mut events: Vec<_> = room.events.iter().map(|event| event.json().clone()).collect();
    let good = FakeRoom::answer(events.clone());
    match mode {
        Mode::NoCreate => drop(events.remove(0)),
        Mode::CreateOfOther => events[0] = other.events[0].json().clone(),
        Mode::NoSignatures | Mode::GoodInChain => events.iter_mut().for_each(|event| {
            event.insert("signatures".to_owned(), Json::Object(Object::new()));
        }),
        _ => {}
    }
    let mut answer = FakeRoom::answer(events);
    match mode {
        Mode::Omitted => drop(answer.insert("members_omitted".to_owned(), true.into())),
        Mode::GoodInChain => answer.extend(good.into_iter().filter(|(key, _)| key == "auth_chain")),
        _ => {}
    }
    bytes(answer)
}

fn answer(rooms: &[FakeRoom; 2], mode: Mode, asked: &Asked) -> Option<(u16, Vec<u8>)> {
    let [room, other] = rooms;
    let error = |status, code: &str| {
        let body = json!({ "errcode": code, "error": "no", "room_version": "99" });
        Some((status, body.to_string().into_bytes()))
    };
    if asked.is("v1/make_join") {
        return match mode {
            Mode::Refused => error(403, "M_FORBIDDEN"),
            Mode::Incompatible => error(400, "M_INCOMPATIBLE_ROOM_VERSION"),
            Mode::Ungranted => error(400, "M_UNABLE_TO_GRANT_JOIN"),
            Mode::Broken => error(500, "M_UNKNOWN"),
            _ => Some((200, template(room, mode, asked))),
        };
    }
    match mode {
        Mode::Nonsense => Some((200, b"{}".to_vec())),
        Mode::Old if asked.is("v1/send_join") => {
            Some((200, [b"[200,", &state(room, other, mode)[..], b"]"].concat()))
        }
        Mode::Old => None,
        _ if asked.is("v2/send_join") => Some((200, state(room, other, mode))),
        _ => None,
    }
}

fn fake(mode: &Arc<Mutex<Mode>>) -> (FakeServer, String) {
    let mode = mode.clone();
    let server = FakeServer::start(|origin| {
        let room = FakeRoom::new(&origin, &format!("!room:{}", origin.name));
        let rooms = [room, FakeRoom::new(&origin, "!other:localhost")];
        move |asked: &Asked| answer(&rooms, *mode.lock().unwrap(), asked)
    });
    let room = format!("!room:{}", server.name());
    (server, room)
}

// Checklist 13.13, 13.14, 13.20
#[test]
fn what_makes_no_sense_lets_nobody_in() {
    let far = Server::start_federated(&[]);
    let mode = Arc::new(Mutex::new(Mode::Honest));
    let (eve, room) = fake(&mode);
    let bob = far.user("bob");
    for (how, status, code) in [
        (Mode::OtherRoom, 502, "M_UNKNOWN"),
        (Mode::OtherUser, 502, "M_UNKNOWN"),
        (Mode::NoJoin, 502, "M_UNKNOWN"),
        (Mode::NewVersion, 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        (Mode::NoCreate, 502, "M_UNKNOWN"),
        (Mode::CreateOfOther, 502, "M_UNKNOWN"),
        (Mode::NoSignatures, 502, "M_UNKNOWN"),
        (Mode::Omitted, 502, "M_UNKNOWN"),
        (Mode::Nonsense, 502, "M_UNKNOWN"),
        (Mode::Broken, 502, "M_UNKNOWN"),
        (Mode::Refused, 403, "M_FORBIDDEN"),
        (Mode::Incompatible, 400, "M_INCOMPATIBLE_ROOM_VERSION"),
        (Mode::Ungranted, 400, "M_UNABLE_TO_GRANT_JOIN"),
    ] {
        *mode.lock().unwrap() = how;
        let answer = bob.join(&room);
        assert_eq!(answer["errcode"], code, "{how:?}: {}", answer.body);
        answer.refused(status, code);
        assert!(sections(&bob.sync(Ask::initial()).ok(), &room).is_empty(), "{how:?}");
        bob.room(&room, "state").refused(403, "M_FORBIDDEN");
    }
    // What was signed is never anything but a join.
    for asked in eve.asked().iter().filter(|asked| asked.is("v2/send_join")) {
        assert_eq!(asked.body["content"]["membership"], "join");
        assert_eq!((&asked.body["room_id"], &asked.body["sender"]), (&json!(room), &json!(bob.id)));
    }
    for how in [Mode::Honest, Mode::Old] {
        *mode.lock().unwrap() = how;
        bob.join(&room).ok();
        assert_eq!(membership(&bob, &room, &bob), "join");
        bob.leave(&room).ok();
    }
}

#[test]
fn of_two_copies_of_an_event_the_good_one_counts() {
    let far = Server::start_federated(&[]);
    let mode = Arc::new(Mutex::new(Mode::GoodInChain));
    let (_eve, room) = fake(&mode);
    let bob = far.user("bob");
    bob.join(&room).ok();
    let state = bob.room(&room, "state").ok();
    let types: Vec<_> = state.body.as_array().unwrap().iter().map(|event| &event["type"]).collect();
    for kind in ["m.room.create", "m.room.power_levels", "m.room.join_rules"] {
        assert!(types.iter().any(|found| **found == kind), "{kind}: {types:?}");
    }
}

#[test]
fn who_cannot_let_in_leaves_it_to_others() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, mode) = (near.user("alice"), Arc::new(Mutex::new(Mode::Honest)));
    let (eve, _) = fake(&mode);
    for (number, how) in
        [Mode::OtherRoom, Mode::Broken, Mode::Ungranted, Mode::NoCreate].into_iter().enumerate()
    {
        let (room, bob) = (alice.public_room(), far.user(&format!("bob{number}")));
        *mode.lock().unwrap() = how;
        join_via(&bob, &room, &[eve.name(), &near.name()]).ok();
        let room = alice.public_room();
        *mode.lock().unwrap() = Mode::Refused;
        join_via(&bob, &room, &[eve.name(), &near.name()]).refused(403, "M_FORBIDDEN");
    }
}

// Checklist 13.19
#[test]
fn an_invite_is_what_was_sent_and_nothing_else() {
    let near = Server::start_federated(&[]);
    let alice = near.user("alice");
    let honest = Arc::new(Mutex::new(false));
    let signs = honest.clone();
    let eve = FakeServer::start(|origin| {
        move |asked: &Asked| {
            if !asked.is("v2/invite") {
                return None;
            }
            let version = RoomVersion::parse(asked.body["room_version"].as_str()?)?;
            let text = asked.body["event"].to_string();
            let mut event = json::parse_object(version, text.as_bytes()).ok()?;
            if !*signs.lock().unwrap() {
                set(&mut event, "membership", "ban");
            }
            let (name, key) = (&origin.name, &origin.key);
            parlour_event::signing::sign_event(version, &mut event, name, key);
            Some((200, bytes(Object::from([("event".to_owned(), Json::Object(event))]))))
        }
    });
    let room = alice.public_room();
    let user = format!("@mallory:{}", eve.name());
    let invite = || alice.membership(&room, "invite", json!({ "user_id": user }));
    invite().refused(502, "M_UNKNOWN");
    assert_eq!(alice.state(&room, "m.room.member", &user).status, 404);
    *honest.lock().unwrap() = true;
    invite().ok();
    assert_eq!(alice.state(&room, "m.room.member", &user).ok()["membership"], "invite");
    // Whole events were told, the create event first of all.
    let asked = eve.asked();
    let told = &asked.last().unwrap().body["invite_room_state"];
    assert!(kinds(told).contains(&"m.room.create"));
    assert!(told.as_array().unwrap().iter().all(|event| event["signatures"].is_object()));
}

// Checklist 13.19
#[test]
fn old_servers_get_the_first_version() {
    let near = Server::start_federated(&[]);
    let alice = near.user("alice");
    let eve = FakeServer::start(|origin| {
        move |asked: &Asked| {
            if !asked.is("v1/invite") {
                return None;
            }
            let version = RoomVersion::parse("2")?;
            let mut event = json::parse_object(version, asked.body.to_string().as_bytes()).ok()?;
            event.remove("unsigned");
            parlour_event::signing::sign_event(version, &mut event, &origin.name, &origin.key);
            let event = Object::from([("event".to_owned(), Json::Object(event))]);
            Some((200, [b"[200,", &bytes(event)[..], b"]"].concat()))
        }
    });
    let user = json!({ "user_id": format!("@mallory:{}", eve.name()) });
    for (version, status) in [("1", 200), ("2", 200), ("3", 502)] {
        let room = alice.create_room(json!({ "room_version": version })).room_id();
        assert_eq!(alice.membership(&room, "invite", user.clone()).status, status, "{version}");
    }
    let asked = eve.asked();
    let last = asked.iter().rfind(|asked| asked.is("v1/invite")).unwrap();
    assert!(kinds(&last.body["unsigned"]["invite_room_state"]).contains(&"m.room.create"));
}

/// A server with a room of a hundred, and who is told when somebody joins it.
fn large_room() -> (FakeServer, mpsc::Receiver<()>) {
    let (asks, asked) = mpsc::channel();
    let asks = Mutex::new(asks);
    let eve = FakeServer::start(|origin| {
        let mut room = FakeRoom::new(&origin, &format!("!room:{}", origin.name));
        (0..100).for_each(|number| room.join(&room.user(&format!("member{number}"))));
        move |request: &Asked| {
            if request.is("v2/send_join") {
                let _ = asks.lock().unwrap().send(());
            }
            room.honest(request)
        }
    });
    (eve, asked)
}

#[test]
fn a_room_comes_whole_or_not_at_all() {
    let mut far = Server::start_federated(&[]);
    let bob = far.user("bob");
    for pause in [0, 10, 30, 60] {
        let (eve, asked) = large_room();
        let room = format!("!room:{}", eve.name());
        let user = far.again(&bob);
        let at = path("/_matrix/client/v3/join/{}", &[&room]);
        let joining = std::thread::spawn(move || user.http.try_send("POST", &at, b"{}").is_ok());
        asked.recv().unwrap();
        // Not to wait for something: the server is to die somewhere in the middle.
        std::thread::sleep(std::time::Duration::from_millis(pause));
        far.restart();
        joining.join().unwrap();
        let bob = far.again(&bob);
        if sections(&bob.sync(Ask::initial()).ok(), &room).is_empty() {
            bob.room(&room, "state").refused(403, "M_FORBIDDEN");
            bob.join(&room).ok();
        }
        assert_eq!(state_of(&bob, &room).len(), 105, "four, a hundred members, and bob");
        bob.say(&room, "here").ok();
    }
}
