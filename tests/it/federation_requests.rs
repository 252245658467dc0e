//! Requests between servers: who asks, what they may ask, and what we ask them.

use serde_json::{Value, json};

use crate::common::{Origin, Server, User, path};

fn profile_of(user: &User) -> String {
    path("/_matrix/federation/v1/query/profile?user_id={}", &[&user.id])
}

// Checklist 11.4, 11.5, 11.6
#[test]
fn a_request_is_believed_if_its_server_has_signed_it() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, origin) = (near.user("alice"), far.origin());
    let at = profile_of(&alice);
    let (name, key, sig) =
        (near.name(), origin.key.key_id(), origin.signature(&near.name(), "GET", &at, b""));
    let from = &origin.name;
    let ask = |header: &str| near.http.with_header("Authorization", header).get(&at);
    for header in [
        format!(r#"X-Matrix origin="{from}",destination="{name}",key="{key}",sig="{sig}""#),
        format!(r#"X-Matrix origin="{from}",key="{key}",sig="{sig}""#),
        format!("X-Matrix origin={from},destination={name},key={key},sig={sig}"),
        format!(r#"x-matrix  Origin={from} , KEY="{key}",sig="{sig}",new="\"" "#),
        format!(r#"X-Matrix origin="{from}",key="{key}",signature="{sig}""#),
    ] {
        ask(&header).ok();
    }
    let two = near
        .http
        .with_header("Authorization", "Bearer x")
        .with_header("Authorization", &format!("X-Matrix origin={from},key={key},sig={sig}"));
    two.get(&at).ok();
    let wrong = origin.signature(&near.name(), "GET", "/elsewhere", b"");
    for header in [
        String::new(),
        "Bearer x".to_owned(),
        format!("X-Matrix origin={from},key={key}"),
        format!("X-Matrix origin={from},destination={from},key={key},sig={sig}"),
        format!("X-Matrix origin={from},key=ed25519:unknown,sig={sig}"),
        format!("X-Matrix origin={from},key={key},sig={wrong}"),
        format!("X-Matrix origin={from},key={key},sig=x"),
        format!("X-Matrix origin=localhost:1,key={key},sig={sig}"),
    ] {
        ask(&header).refused(401, "M_UNAUTHORIZED");
    }
    // It does not ask itself, and this one isn't spoken to.
    Origin { name, ..origin.clone() }.get(&near, &at).refused(403, "M_FORBIDDEN");
    let stranger = Origin { name: "elsewhere.example.org".to_owned(), ..origin };
    stranger.get(&near, &at).refused(403, "M_FORBIDDEN");
}

// Checklist 11.4
#[test]
fn a_body_is_signed_too() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let alice = near.user("alice");
    let (origin, at) = (far.origin(), profile_of(&alice));
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.allow_non_standard_methods(true).build().new_agent();
    let with_body = |header: &str| {
        let request = ureq::http::Request::builder().uri(format!("{}{at}", near.base()));
        let request = request.header("Authorization", header).body(r#"{"b":1.5,"a":[]}"#);
        agent.run(request.unwrap()).unwrap().status().as_u16()
    };
    let header = |body: &[u8]| {
        let sig = origin.signature(&near.name(), "GET", &at, body);
        format!("X-Matrix origin={},key={},sig={sig}", origin.name, origin.key.key_id())
    };
    // As JSON, whatever its white space.
    assert_eq!(with_body(&header(br#"{ "a": [], "b": 1.5 }"#)), 200);
    assert_eq!(with_body(&header(b"")), 401);
    assert_eq!(with_body(&header(b"{}")), 401);
}

#[test]
fn paths_that_are_none() {
    let server = Server::start_federated(&[]);
    let none = "/_matrix/federation/v1/nothing";
    server.http.get(none).refused(404, "M_UNRECOGNIZED");
    server.http.get("/_matrix/federation/v1/query/nothing").refused(404, "M_UNRECOGNIZED");
    server.http.post("/_matrix/federation/v1/version", &json!({})).refused(405, "M_UNRECOGNIZED");
    let version = server.http.get("/_matrix/federation/v1/version").ok();
    assert_eq!(version["server"]["name"], "Parlour");
    server.http.get("/.well-known/matrix/server").refused(404, "M_NOT_FOUND");
    let delegate = ("PARLOUR_FEDERATION__DELEGATE_TO", "matrix.example.org:443");
    let delegating = Server::start_with(&[delegate]);
    let told = delegating.http.get("/.well-known/matrix/server").ok();
    assert_eq!(told["m.server"], "matrix.example.org:443");
    let alone = Server::start_with(&[("PARLOUR_FEDERATION__ENABLED", "false")]);
    alone.http.get("/_matrix/key/v2/server").refused(404, "M_UNRECOGNIZED");
    let elsewhere = "/_matrix/client/v3/profile/%40bob%3Alocalhost%3A1";
    alone.http.get(elsewhere).refused(403, "M_FORBIDDEN");
}

// Checklist 13.22
#[test]
fn profiles_of_others() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let at = |field: &str| path("/_matrix/client/v3/profile/{}", &[&bob.id]) + field;
    bob.http.put(&at("/displayname"), &json!({ "displayname": "Bob" })).ok();
    bob.http.put(&at("/m.tz"), &json!({ "m.tz": "Europe/London" })).ok();
    let whole = json!({ "displayname": "Bob", "m.tz": "Europe/London" });
    assert_eq!(alice.http.get(&at("")).ok().body, whole);
    assert_eq!(alice.http.get(&at("/displayname")).ok().body, json!({ "displayname": "Bob" }));
    alice.http.get(&at("/avatar_url")).refused(404, "M_NOT_FOUND");
    let nobody = path("/_matrix/client/v3/profile/{}", &[&format!("@nobody:{}", far.name())]);
    alice.http.get(&nobody).refused(404, "M_NOT_FOUND");
    alice.http.get("/_matrix/client/v3/profile/%40x%3Aexample.org").refused(403, "M_FORBIDDEN");

    // The same as the other server asks for it.
    let origin = far.origin();
    let ask = |query: &str| origin.get(&near, &(profile_of(&alice) + query));
    ask("").ok();
    let own = path("/_matrix/client/v3/profile/{}/displayname", &[&alice.id]);
    alice.http.put(&own, &json!({ "displayname": "Alice" })).ok();
    assert_eq!(ask("&field=displayname").ok().body, json!({ "displayname": "Alice" }));
    ask("&field=avatar_url").refused(404, "M_NOT_FOUND");
    origin.get(&near, &profile_of(&bob)).refused(404, "M_NOT_FOUND");
    origin.get(&near, "/_matrix/federation/v1/query/profile").refused(400, "M_MISSING_PARAM");

    far.kill();
    assert_eq!(alice.http.get(&at("")).status, 502);
}

// Checklist 13.22
#[test]
fn aliases_of_others() {
    let (near, far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    let room = bob.create_room(json!({ "room_alias_name": "hall" })).room_id();
    let alias = format!("#hall:{}", far.name());
    let at = |alias: &str| path("/_matrix/client/v3/directory/room/{}", &[alias]);
    let found = alice.http.get(&at(&alias)).ok();
    assert_eq!(found.body, json!({ "room_id": room, "servers": [far.name()] }));
    let missing = format!("#cellar:{}", far.name());
    alice.http.get(&at(&missing)).refused(404, "M_NOT_FOUND");
    alice.http.get(&at("#hall:example.org")).refused(403, "M_FORBIDDEN");

    let query =
        |alias: &str| path("/_matrix/federation/v1/query/directory?room_alias={}", &[alias]);
    let origin = near.origin();
    assert_eq!(origin.get(&far, &query(&alias)).ok()["room_id"], room);
    origin.get(&far, &query(&missing)).refused(404, "M_NOT_FOUND");
    // Only of its own.
    origin.get(&far, &query(&format!("#x:{}", near.name()))).refused(404, "M_NOT_FOUND");
    origin.get(&far, &query("hall")).refused(400, "M_INVALID_PARAM");
}

#[test]
fn a_canonical_alias_of_another_server_is_asked_for_there() {
    let (near, mut far) = (Server::start_federated(&[]), Server::start_federated(&[]));
    let (alice, bob) = (near.user("alice"), far.user("bob"));
    bob.create_room(json!({ "room_alias_name": "hall" })).room_id();
    let room = alice.public_room();
    let set = |aliases: Value| alice.set_state(&room, "m.room.canonical_alias", "", aliases);
    let hall = format!("#hall:{}", far.name());
    set(json!({ "alias": hall })).refused(400, "M_BAD_ALIAS");
    set(json!({ "alt_aliases": [hall] })).refused(400, "M_BAD_ALIAS");
    set(json!({ "alias": format!("#cellar:{}", far.name()) })).refused(400, "M_BAD_ALIAS");
    let many: Vec<_> = (0..11).map(|n| format!("#{n}:{}", far.name())).collect();
    set(json!({ "alt_aliases": many })).refused(400, "M_INVALID_PARAM");
    far.kill();
    set(json!({ "alias": hall })).refused(400, "M_BAD_ALIAS");
}

// Checklist 13.23
#[test]
fn openid_tokens_prove_who_somebody_is() {
    let mut server = Server::start_federated(&[]);
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let at = |user: &User| path("/_matrix/client/v3/user/{}/openid/request_token", &[&user.id]);
    let given = alice.http.post(&at(&alice), &json!({})).ok();
    assert_eq!(given["matrix_server_name"], server.name());
    assert_eq!((&given["token_type"], &given["expires_in"]), (&json!("Bearer"), &json!(3600)));
    alice.http.post(&at(&bob), &json!({})).refused(403, "M_FORBIDDEN");
    server.http.post(&at(&alice), &json!({})).refused(401, "M_MISSING_TOKEN");
    let token = given.text("access_token");
    let ask = |server: &Server, token: &str| {
        server.http.get(&path("/_matrix/federation/v1/openid/userinfo?access_token={}", &[token]))
    };
    assert_eq!(ask(&server, &token).ok()["sub"], alice.id);
    for wrong in ["", "x", "x.y", &token[1..], &token[..token.len() - 2], &alice.token] {
        ask(&server, wrong).refused(401, "M_UNKNOWN_TOKEN");
    }
    server.http.get("/_matrix/federation/v1/openid/userinfo").refused(400, "M_MISSING_PARAM");
    let as_client = server.http.with_header("Authorization", &format!("Bearer {token}"));
    as_client.get("/_matrix/client/v3/account/whoami").refused(401, "M_UNKNOWN_TOKEN");
    server.restart();
    assert_eq!(ask(&server, &token).ok()["sub"], alice.id);
}
