//! Keys: the file, the document, vouching for others, and asking for them.

use std::{fs, os::unix::fs::PermissionsExt as _};

use parlour_event::signing::{self, PublicKey};
use serde_json::{Value, json};

use crate::common::{Server, canonical, parse, path};

const OWN: &str = "/_matrix/key/v2/server";
const HOUR: u64 = 3_600_000;

fn key_ids(document: &Value) -> Vec<String> {
    document["verify_keys"].as_object().unwrap().keys().cloned().collect()
}

/// Checks that a server has signed a document with one of these keys.
#[track_caller]
fn assert_signed(document: &Value, server: &str, keys: &Value) {
    let key = |id: &str| PublicKey::from_base64(keys["verify_keys"][id]["key"].as_str()?).ok();
    signing::verify_json(&parse(document), server, key).unwrap();
}

fn now(server: &Server) -> u64 {
    // The server's own clock: when an account was made just now.
    let user = server.user("clock");
    let room = user.public_room();
    let event = user.say(&room, "what time is it?").event_id();
    let event = user.room(&room, &path("event/{}", &[&event])).ok();
    event["origin_server_ts"].as_u64().unwrap()
}

// Checklist 11.9, 11.10
#[test]
fn the_document_is_canonical_signed_and_the_same_for_long() {
    let key = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI";
    let expired = 1_500_000_000_000_u64;
    let old = format!(r#"[{{ id = "ed25519:0ld", expired_ts = {expired}, key = "{key}" }}]"#);
    let mut server = Server::start_with(&[("PARLOUR_FEDERATION__OLD_KEYS", &old)]);
    let text = server.http.text(OWN);
    let document = server.http.get(OWN).ok().body;
    assert_eq!(text, canonical(&document));
    assert_eq!(text, server.http.text(OWN), "made anew for each request");
    assert_eq!(document["server_name"], "localhost");
    assert_signed(&document, "localhost", &document);
    let until = document["valid_until_ts"].as_u64().unwrap();
    let ahead = until - now(&server);
    assert!((HOUR..=7 * 24 * HOUR).contains(&ahead), "{ahead}");
    assert_eq!(
        document["old_verify_keys"],
        json!({ "ed25519:0ld": { "expired_ts": expired, "key": key } })
    );
    let ids = key_ids(&document);
    let version = ids[0].strip_prefix("ed25519:").unwrap();
    assert!(version.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    server.restart();
    assert_eq!(key_ids(&server.http.get(OWN).ok().body), ids);
}

#[test]
fn the_key_is_a_file_that_only_its_owner_reads_and_a_backup_has() {
    let mut server = Server::start();
    let user = server.user("alice");
    user.public_room();
    let ids = key_ids(&server.http.get(OWN).ok().body);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = server.data().join("signing.key");
    assert_eq!(mode(&file), 0o600);
    assert!(fs::read_to_string(&file).unwrap().starts_with(&ids[0].replace(':', " ")));

    server.run(&["backup", "copy"]).ok();
    let copy = server.home().join("copy");
    assert_eq!(mode(&copy.join("signing.key")), 0o600);
    let mut second = Server::prepare(&[]);
    second.run(&["restore", copy.to_str().unwrap()]).ok();
    assert_eq!(mode(&second.data().join("signing.key")), 0o600);
    second.launch();
    assert_eq!(key_ids(&second.http.get(OWN).ok().body), ids);

    // Another server's key is not written over.
    let third = Server::prepare(&[]);
    fs::create_dir(third.data()).unwrap();
    fs::write(third.data().join("signing.key"), "ed25519 mine x\n").unwrap();
    let complaint = third.run(&["restore", copy.to_str().unwrap()]).failed();
    assert!(complaint.contains("signing.key exists already"), "{complaint}");

    // Events that nobody could check any more are worse than no server.
    server.kill();
    fs::remove_file(&file).unwrap();
    let complaint = server.run(&["serve"]).failed();
    assert!(complaint.contains("signing.key is missing"), "{complaint}");
    fs::write(&file, "nonsense\n").unwrap();
    let complaint = server.run(&["serve"]).failed();
    assert!(complaint.contains("signing.key, line 1"), "{complaint}");
    fs::remove_file(&file).unwrap();
    server.run(&["new-signing-key"]).ok();
    server.restart();
    let new = key_ids(&server.http.get(OWN).ok().body);
    assert_ne!(new, ids);

    // A further one signs; the others stay published.
    server.run(&["new-signing-key"]).ok();
    server.restart();
    let document = server.http.get(OWN).ok().body;
    let both = key_ids(&document);
    assert!(both.len() == 2 && both.contains(&new[0]), "{both:?}");
    assert_signed(&document, "localhost", &document);
}

// Checklist 11.8
#[test]
fn a_notary_vouches_for_others_even_when_they_are_gone() {
    let notary = Server::start_federated(&[]);
    let mut other = Server::start_federated(&[]);
    let [own, others] = [&notary, &other].map(|server| server.http.get(OWN).ok().body);
    let one = |server: &str, query: &str| {
        let at = path("/_matrix/key/v2/query/{}", &[server]) + query;
        notary.http.get(&at).ok()["server_keys"].as_array().unwrap().clone()
    };
    let many = |criteria: Value| {
        let body = json!({ "server_keys": criteria });
        notary.http.post("/_matrix/key/v2/query", &body).ok()["server_keys"].clone()
    };
    let (name, own_name) = (other.name(), notary.name());
    let check = |document: &Value| {
        assert_eq!(document["verify_keys"], others["verify_keys"]);
        assert_signed(document, &name, &others);
        assert_signed(document, &own_name, &own);
    };
    // What it has never heard of and cannot reach is left out.
    let nobody = "localhost:1";
    assert_eq!(one(nobody, ""), Vec::<Value>::new());
    check(&one(&name, "")[0]);
    check(&many(json!({ &name: {} }))[0]);
    check(&many(json!({ &name: { "ed25519:any": {} }, nobody: {} }))[0]);
    assert_eq!(many(json!({})), json!([]));
    // Of itself it knows without asking.
    assert_eq!(one(&notary.name(), ""), std::slice::from_ref(&own));
    let crowd: serde_json::Map<_, _> =
        (0..501).map(|n| (format!("server{n}.example.org"), json!({}))).collect();
    let crowd = json!({ "server_keys": crowd });
    notary.http.post("/_matrix/key/v2/query", &crowd).refused(400, "M_INVALID_PARAM");
    notary.http.post("/_matrix/key/v2/query", &json!({})).refused(400, "M_BAD_JSON");
    notary.http.get("/_matrix/key/v2/query/%20").refused(400, "M_INVALID_PARAM");
    let bad = path("/_matrix/key/v2/query/{}?minimum_valid_until_ts=x", &[nobody]);
    notary.http.get(&bad).refused(400, "M_INVALID_PARAM");

    other.kill();
    check(&one(&name, "")[0]);
    // Nobody can promise that much; what there is must do.
    check(&one(&name, "?minimum_valid_until_ts=9007199254740991")[0]);
    let late = json!({ "ed25519:any": { "minimum_valid_until_ts": 9_007_199_254_740_991_u64 } });
    check(&many(json!({ &name: late }))[0]);
    let mut notary = notary;
    notary.restart();
    let at = path("/_matrix/key/v2/query/{}", &[&name]);
    assert_eq!(notary.http.get(&at).ok()["server_keys"][0]["server_name"], name);
}

// Checklist 11.8
#[test]
fn a_dead_servers_keys_come_from_a_notary() {
    let notary = Server::start_federated(&[]);
    let mut dead = Server::start_federated(&[]);
    let trusted = json!([notary.name()]).to_string();
    let trusting =
        Server::start_federated(&[("PARLOUR_FEDERATION__TRUSTED_KEY_SERVERS", &trusted)]);
    let doubting = Server::start_federated(&[]);
    let at = path("/_matrix/key/v2/query/{}", &[&dead.name()]);
    notary.http.get(&at).ok();
    dead.kill();
    let user = trusting.user("alice");
    let profile = path("/_matrix/federation/v1/query/profile?user_id={}", &[&user.id]);
    dead.origin().get(&trusting, &profile).ok();
    dead.origin().get(&doubting, &profile).refused(401, "M_UNAUTHORIZED");
}
