//! The operators' API, as their tools speak it.

mod logins;
mod notices;
mod reports;
mod rooms;
mod tokens;
mod users;

use serde_json::{Value, json};

use crate::common::{Server, User};

/// Checks that an object has these keys and no others.
#[track_caller]
fn has_keys(value: &Value, keys: &[&str]) {
    let mut found: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = keys.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{value}");
}

/// Nobody but administrators gets anywhere.
#[track_caller]
fn for_administrators(server: &Server, user: &User, method: &str, at: &str) {
    user.http.send(method, at, b"{}").refused(403, "M_FORBIDDEN");
    server.http.send(method, at, b"{}").refused(401, "M_MISSING_TOKEN");
    server.http.with_token("forged").send(method, at, b"{}").refused(401, "M_UNKNOWN_TOKEN");
}

#[test]
fn the_server_tells_operators_its_version() {
    let server = Server::start();
    let (root, alice) = (server.admin("root"), server.user("alice"));
    let at = "/_synapse/admin/v1/server_version";
    let version = root.http.get(at).text("server_version");
    assert_eq!(version, format!("Parlour {}", env!("CARGO_PKG_VERSION")));
    for_administrators(&server, &alice, "GET", at);
}

#[test]
fn a_listener_without_the_admin_api_has_none_of_it() {
    let listeners = |apis: &str| {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let port = port.port();
        (port, format!(r#"{{ address = "127.0.0.1", port = {port}, apis = {apis} }}"#))
    };
    let server = Server::prepare(&[]);
    let own = server.base().rsplit(':').next().unwrap();
    let (_, other) = listeners(r#"["admin"]"#);
    let all = format!(r#"[{{ address = "127.0.0.1", port = {own}, apis = ["client"] }}, {other}]"#);
    let mut server = server.with(&[("PARLOUR_LISTENERS", &all)]);
    server.restart();
    let alice = server.user("alice");
    alice.http.get("/_synapse/admin/v1/server_version").refused(404, "M_UNRECOGNIZED");
    alice.http.get("/_synapse/admin/v2/users").refused(404, "M_UNRECOGNIZED");
    assert_eq!(
        alice.http.get("/_matrix/client/v3/joined_rooms").ok().body["joined_rooms"],
        json!([])
    );
}
