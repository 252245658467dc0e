//! TURN servers.

use serde_json::json;

use crate::common::Server;

const TURN: &str = "/_matrix/client/v3/voip/turnServer";
const URIS: &str = r#"["turn:turn.example.org?transport=udp", "turns:turn.example.org"]"#;

#[test]
fn users_get_credentials_of_their_own() {
    let server = Server::start_with(&[
        ("PARLOUR_TURN__URIS", URIS),
        ("PARLOUR_TURN__SHARED_SECRET", "north"),
        ("PARLOUR_TURN__LIFETIME_SECONDS", "600"),
    ]);
    let [alice, bob] = ["alice", "bob"].map(|name| server.user(name));
    let answer = alice.http.get(TURN).ok();
    assert_eq!(answer["ttl"], 600);
    assert_eq!(
        answer["uris"],
        json!(["turn:turn.example.org?transport=udp", "turns:turn.example.org"])
    );
    let (until, user) = answer["username"].as_str().unwrap().split_once(':').unwrap();
    assert_eq!(user, alice.id);
    assert!(until.parse::<u64>().unwrap() > 1_600_000_000, "{until}");
    // The password's value is tested where it is computed.
    assert_ne!(answer["password"], bob.http.get(TURN).ok()["password"]);
    server.http.get(TURN).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn credentials_may_be_the_same_for_all() {
    let server = Server::start_with(&[
        ("PARLOUR_TURN__URIS", URIS),
        ("PARLOUR_TURN__USERNAME", "all"),
        ("PARLOUR_TURN__PASSWORD", "together"),
    ]);
    let answer = server.user("alice").http.get(TURN).ok();
    assert_eq!((&answer["username"], &answer["password"]), (&json!("all"), &json!("together")));
    assert_eq!(answer["ttl"], 86_400);
}

#[test]
fn without_servers_there_are_no_credentials() {
    let server = Server::start();
    server.user("alice").http.get(TURN).refused(404, "M_NOT_FOUND");
}
