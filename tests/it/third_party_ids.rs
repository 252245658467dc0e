//! Third-party identifiers: nobody has one here, and what would need one says so.

use serde_json::json;

use crate::common::Server;

const ACCOUNT: &str = "/_matrix/client/v3/account";

#[test]
fn nobody_has_or_gets_a_third_party_identifier() {
    let server = Server::start();
    let alice = server.user("alice");
    let at = |end: &str| format!("{ACCOUNT}/3pid{end}");
    assert_eq!(alice.http.get(&at("")).ok()["threepids"], json!([]));
    let session = json!({ "client_secret": "secret", "sid": "1" });
    alice.http.post(&at("/add"), &session).refused(403, "M_THREEPID_AUTH_FAILED");
    let mut bind = session.clone();
    bind["id_server"] = json!("id.example");
    bind["id_access_token"] = json!("x");
    alice.http.post(&at("/bind"), &bind).refused(403, "M_SERVER_NOT_TRUSTED");
    let old = json!({ "three_pid_creds": bind });
    alice.http.post(&at(""), &old).refused(403, "M_THREEPID_AUTH_FAILED");
    let r0 = "/_matrix/client/r0/account/3pid";
    alice.http.post(r0, &old).refused(403, "M_THREEPID_AUTH_FAILED");
    let mail = json!({ "medium": "email", "address": "alice@localhost" });
    for gone in ["/delete", "/unbind"] {
        let answer = alice.http.post(&at(gone), &mail).ok();
        assert_eq!(answer["id_server_unbind_result"], "no-support");
    }
    for end in ["", "/add", "/bind", "/delete", "/unbind"] {
        alice.http.post(&at(end), &json!({})).refused(400, "M_BAD_JSON");
        server.http.post(&at(end), &json!({})).refused(401, "M_MISSING_TOKEN");
    }
    server.http.get(&at("")).refused(401, "M_MISSING_TOKEN");
}

#[test]
fn no_mail_and_no_text_message_is_sent() {
    let server = Server::start();
    let mail = json!({ "client_secret": "secret", "email": "a@localhost", "send_attempt": 1 });
    let phone = json!({ "client_secret": "secret", "country": "GB", "phone_number": "7",
        "send_attempt": 1 });
    for (medium, body) in [("email", mail), ("msisdn", phone)] {
        let mut trusting = body.clone();
        trusting["id_server"] = json!("id.example");
        for (path, status, errcode) in [
            (format!("{ACCOUNT}/3pid"), 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED"),
            (format!("{ACCOUNT}/password"), 403, "M_THREEPID_DENIED"),
            ("/_matrix/client/v3/register".to_owned(), 403, "M_THREEPID_DENIED"),
        ] {
            let path = format!("{path}/{medium}/requestToken");
            server.http.post(&path, &body).refused(status, errcode);
            server.http.post(&path, &trusting).refused(400, "M_SERVER_NOT_TRUSTED");
            server.http.post(&path, &json!({})).refused(400, "M_BAD_JSON");
        }
    }
}
