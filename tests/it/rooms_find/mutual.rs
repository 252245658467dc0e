//! `mutual_rooms`

use serde_json::json;

use crate::common::{Answer, Server, User, path};

fn mutual(user: &User, parameters: &str) -> Answer {
    user.http.get(&format!("/_matrix/client/v1/mutual_rooms?{parameters}"))
}

fn with(user: &User) -> String {
    path("user_id={}", &[&user.id])
}

// Checklist 6.13
#[test]
fn rooms_that_both_are_joined_to_are_mutual() {
    let server = Server::start();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| server.user(name));
    let [both, left, invited] = [(); 3].map(|()| alice.public_room());
    for room in [&both, &left] {
        bob.join(room).ok();
    }
    bob.leave(&left).ok();
    alice.invite(&invited, &bob).ok();
    for (user, other) in [(&alice, &bob), (&bob, &alice)] {
        assert_eq!(mutual(user, &with(other)).ok().body, json!({ "joined": [both], "count": 1 }));
    }
    let none = json!({ "joined": [], "count": 0 });
    assert_eq!(mutual(&alice, &with(&carol)).ok().body, none);
    for nobody in ["user_id=@nobody:localhost", "user_id=@x:elsewhere.example"] {
        assert_eq!(mutual(&alice, nobody).ok().body, none);
    }
    let old = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms";
    let found = alice.http.get(&format!("{old}?{}", with(&bob))).ok();
    assert_eq!(found.body, json!({ "joined": [both] }));
    mutual(&alice, &with(&alice)).refused(400, "M_INVALID_PARAM");
    mutual(&alice, "").refused(400, "M_MISSING_PARAM");
    for bad in ["user_id=bob", "user_id=@b%C3%B6b:localhost", "user_id=@a:localhost&from=x"] {
        mutual(&alice, bad).refused(400, "M_INVALID_PARAM");
    }
}

// Checklist 6.13
#[test]
fn many_mutual_rooms_come_in_batches() {
    let mut server = Server::start();
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let rooms: Vec<_> = (0..101).map(|_| alice.public_room()).collect();
    rooms.iter().for_each(|room| drop(bob.join(room).ok()));
    let first = mutual(&alice, &with(&bob)).ok();
    assert_eq!((&first["joined"], &first["count"]), (&json!(rooms[..100]), &json!(101)));
    // A batch that comes later does not depend on what was before.
    bob.leave(&rooms[0]).ok();
    server.restart();
    let [alice, bob] = [&alice, &bob].map(|user| server.again(user));
    let from = path("&from={}", &[first["next_batch"].as_str().unwrap()]);
    let second = mutual(&alice, &(with(&bob) + &from)).ok();
    assert_eq!(second.body, json!({ "joined": rooms[100..], "count": 100 }));
}
