//! `parlour admin`

use serde_json::{Value, json};

use crate::common::{PASSWORD, Ran, Server, User, path};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// A command as the administrator.
fn admin(server: &Server, root: &User, arguments: &[&str]) -> Ran {
    let arguments = [&["admin"], arguments].concat();
    server.run_with(&arguments, &[("PARLOUR_ADMIN_TOKEN", &root.token)])
}

/// The same, answered as JSON.
fn asked(server: &Server, root: &User, arguments: &[&str]) -> Value {
    let output = admin(server, root, &[arguments, &["--json"]].concat()).ok();
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[test]
fn the_first_administrator_is_made_by_the_shared_secret() {
    let server = Server::start();
    let made = ["admin", "create-user", "root", "--admin", "--display-name", "The root", "--json"];
    let made: Value = serde_json::from_str(&server.run(&made).ok()).unwrap();
    assert_eq!(made["user_id"], "@root:localhost");
    let login = json!({ "type": "m.login.password", "password": made["password"],
        "identifier": { "type": "m.id.user", "user": "root" } });
    let login = server.http.post("/_matrix/client/v3/login", &login).ok();
    let root = User::from_login(&server.http, &login);
    let version = admin(&server, &root, &["version"]).ok();
    assert_eq!(version, format!("Parlour {}\n", env!("CARGO_PKG_VERSION")));
    let table = server.run(&["admin", "create-user", "alice", "--password", PASSWORD]).ok();
    assert!(table.contains("@alice:localhost") && !table.contains(PASSWORD), "{table}");
    let alice = server.login("alice");
    let refused = admin(&server, &alice, &["users", "list"]).failed_in_one_line();
    assert_eq!(
        refused,
        "parlour: the server refuses: You are not a server admin (403 M_FORBIDDEN)"
    );
    let again = server.run(&["admin", "create-user", "alice"]).failed_in_one_line();
    assert!(again.contains("M_USER_IN_USE"), "{again}");
}

#[test]
fn without_a_secret_an_account_of_a_stopped_server_is_promoted() {
    let mut server = Server::start_with(&[("PARLOUR_REGISTRATION__SHARED_SECRET", "")]);
    let alice = server.user("alice");
    let secret = server.run(&["admin", "create-user", "root", "--admin"]).failed_in_one_line();
    assert!(secret.contains("registration.shared_secret"), "{secret}");
    let running = server.run(&["admin", "promote", "alice"]).failed_in_one_line();
    assert!(running.contains("another process"), "{running}");
    assert!(server.terminate().success());
    let nobody = server.run(&["admin", "promote", "nobody"]).failed_in_one_line();
    assert!(nobody.contains("@nobody:localhost"), "{nobody}");
    let foreign = server.run(&["admin", "promote", "@a:elsewhere.example"]).failed_in_one_line();
    assert!(foreign.contains("not a user of this server"), "{foreign}");
    let told = server.run(&["admin", "promote", "alice"]).ok();
    assert_eq!(told, "@alice:localhost is an administrator now.\n");
    server.restart();
    let alice = server.again(&alice);
    assert!(admin(&server, &alice, &["users", "list"]).ok().contains("@alice:localhost"));
}

#[test]
fn accounts_are_looked_after() {
    let server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let room = alice.public_room();
    let list = admin(&server, &root, &["users", "list"]).ok();
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[0].starts_with("NAME"), "{list}");
    assert_eq!(lines.len(), 3, "{list}");
    let page = admin(&server, &root, &["users", "list", "--limit", "1"]).ok();
    assert!(page.ends_with("There is more: --from 1\n"), "{page}");
    assert_eq!(asked(&server, &root, &["users", "list", "--name", "ali"])["total"], 1);
    let shown = |key: &str| asked(&server, &root, &["users", "show", "alice"])[key].clone();
    let done = |arguments: &[&str]| admin(&server, &root, arguments).ok();
    assert_eq!(done(&["users", "lock", "alice"]), "Locked.\n");
    assert_eq!(shown("locked"), true);
    done(&["users", "unlock", "@alice:localhost"]);
    done(&["users", "suspend", "alice"]);
    assert_eq!(shown("suspended"), true);
    done(&["users", "unsuspend", "alice"]);
    done(&["users", "promote", "alice"]);
    assert_eq!(shown("admin"), true);
    done(&["users", "demote", "alice"]);
    assert_eq!((shown("locked"), shown("admin")), (json!(false), json!(false)));
    assert!(done(&["users", "rooms", "alice"]).contains(&room));
    let password = done(&["users", "reset-password", "alice", "--keep-logins"]);
    assert!(password.starts_with("The new password: "), "{password}");
    alice.http.get(WHOAMI).ok();
    done(&["users", "reset-password", "alice", "--password", PASSWORD]);
    server.login("alice");
}

#[test]
fn logins_are_looked_after_and_accounts_closed() {
    let server = Server::start();
    let root = server.admin("root");
    let (alice, phone) = (server.user("alice"), server.login("alice"));
    let done = |arguments: &[&str]| admin(&server, &root, arguments).ok();
    let list = done(&["users", "devices", "alice"]);
    assert!(list.contains(&alice.device) && list.contains("127.0.0.1"), "{list}");
    assert!(done(&["users", "whois", "alice"]).contains(&phone.device));
    assert_eq!(done(&["users", "delete-devices", "alice", &alice.device]), "Deleted.\n");
    alice.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    let token = done(&["users", "login-as", "alice", "--lifetime", "60"]);
    let me = server.http.with_token(token.trim()).get(WHOAMI).ok();
    assert_eq!(me["user_id"], alice.id);
    assert_eq!(done(&["users", "deactivate", "alice", "--erase"]), "Deactivated.\n");
    phone.http.get(WHOAMI).refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(asked(&server, &root, &["users", "show", "alice"])["erased"], true);
}

#[test]
fn rooms_tokens_and_reports_are_looked_after() {
    let server = Server::start();
    let root = server.admin("root");
    let alice = server.user("alice");
    let room = alice.create_room(json!({ "name": "A \u{1b}[31mred\n room" })).room_id();
    let done = |arguments: &[&str]| admin(&server, &root, arguments).ok();
    assert!(done(&["rooms", "list"]).contains("A \u{fffd}[31mred\u{fffd} room"));
    assert_eq!(asked(&server, &root, &["rooms", "list", "--search", "red"])["total_rooms"], 1);
    assert!(done(&["rooms", "show", &room]).contains("state_events"));
    assert!(done(&["rooms", "members", &room]).contains(&alice.id));
    assert!(done(&["rooms", "state", &room, "--type", "m.room.create"]).contains("m.room.create"));
    assert_eq!(done(&["rooms", "block", &room]), "Blocked.\n");
    assert_eq!(done(&["rooms", "unblock", &room]), "No longer blocked.\n");
    let report = path("/_matrix/client/v3/rooms/{}/report", &[&room]);
    alice.http.post(&report, &json!({ "reason": "red" })).ok();
    assert!(done(&["reports", "list"]).contains("red"));
    let id = asked(&server, &root, &["reports", "list"])["event_reports"][0]["id"].to_string();
    assert!(done(&["reports", "show", &id]).contains(&alice.id));
    assert_eq!(done(&["reports", "delete", &id]), "Struck off.\n");
    let gone = asked(&server, &root, &["rooms", "delete", &room, "--block"]);
    assert_eq!(gone["kicked_users"], json!([alice.id]));
    assert!(done(&["rooms", "delete-status", &room]).contains("complete"));
    let other = alice.public_room();
    done(&["rooms", "delete", &other, "--background", "--no-purge"]);

    assert_eq!(done(&["tokens", "create", "ticket", "--uses", "3"]), "ticket\n");
    assert_eq!(asked(&server, &root, &["tokens", "show", "ticket"])["uses_allowed"], 3);
    done(&["tokens", "update", "ticket", "--uses", "0"]);
    assert!(done(&["tokens", "list", "--valid", "false"]).contains("ticket"));
    assert_eq!(done(&["tokens", "delete", "ticket"]), "Removed.\n");
    let unknown = admin(&server, &root, &["tokens", "show", "ticket"]).failed_in_one_line();
    assert!(unknown.contains("404 M_NOT_FOUND"), "{unknown}");
    let off = admin(&server, &root, &["notice", "alice", "hello"]).failed_in_one_line();
    assert!(off.contains("not enabled"), "{off}");
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let mut server = Server::start();
    let who = server.run(&["admin", "users", "list"]).failed_in_one_line();
    assert!(who.contains("--token") && who.contains("PARLOUR_ADMIN_TOKEN"), "{who}");
    let forged = server.run(&["admin", "--token", "x", "users", "list"]).failed_in_one_line();
    assert!(forged.contains("M_UNKNOWN_TOKEN"), "{forged}");
    server.kill();
    let dead = server.run(&["admin", "--token", "x", "version"]).failed_in_one_line();
    assert!(dead.contains("does the server run?"), "{dead}");
    let elsewhere = ["admin", "--token", "x", "--url", "http://127.0.0.1:1", "version"];
    assert!(server.run(&elsewhere).failed_in_one_line().contains("127.0.0.1:1"));
    let listeners = r#"[{ address = "127.0.0.1", port = 0, apis = ["client"] }]"#;
    let none = [("PARLOUR_LISTENERS", listeners)];
    let none = server.run_with(&["admin", "--token", "x", "version"], &none).failed_in_one_line();
    assert!(none.contains("--url"), "{none}");
}
