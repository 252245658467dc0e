//! Pages about the server, and networks that it does not know.

use serde_json::json;

use crate::common::Server;

#[test]
fn support_and_policy_server_are_what_the_configuration_says() {
    let server = Server::start();
    for page in ["support", "policy_server"] {
        let at = format!("/.well-known/matrix/{page}");
        server.http.get(&at).refused(404, "M_NOT_FOUND");
    }
    let key = "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s".replace('_', "/").replace('-', "+");
    let contacts = concat!(
        r#"[{ role = "m.role.admin", email_address = "admin@example.org" }, "#,
        r#"{ role = "m.role.security", matrix_id = "@security:example.org" }]"#,
    );
    let server = Server::start_with(&[
        ("PARLOUR_SUPPORT__PAGE", "https://example.org/help"),
        ("PARLOUR_SUPPORT__CONTACTS", contacts),
        ("PARLOUR_ROOMS__POLICY_SERVER_KEY", &key),
    ]);
    let support = server.http.get("/.well-known/matrix/support").ok();
    let expected = json!({ "support_page": "https://example.org/help", "contacts": [
        { "role": "m.role.admin", "email_address": "admin@example.org" },
        { "role": "m.role.security", "matrix_id": "@security:example.org" } ] });
    assert_eq!(support.body, expected);
    let policy = server.http.get("/.well-known/matrix/policy_server").ok();
    assert_eq!(policy.body, json!({ "public_keys": { "ed25519": key } }));
}

#[test]
fn there_are_no_third_party_networks() {
    let server = Server::start();
    let alice = server.user("alice");
    let at = |what: &str| format!("/_matrix/client/v3/thirdparty/{what}");
    assert_eq!(alice.http.get(&at("protocols")).ok().body, json!({}));
    for what in [
        "protocol/irc",
        "location/irc?channel=tea",
        "location?alias=%23tea:localhost",
        "user/irc?nick=tea",
        "user?userid=@tea:localhost",
    ] {
        alice.http.get(&at(what)).refused(404, "M_NOT_FOUND");
        server.http.get(&at(what)).refused(401, "M_MISSING_TOKEN");
    }
}
