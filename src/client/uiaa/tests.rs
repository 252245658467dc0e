use std::sync::Arc;

use parlour_actors::env::{Clock, ManualClock, SystemEntropy};
use ruma::{UserId, api::client::uiaa::AuthType, user_id};
use serde_json::{Map, Value};

use super::{
    desk::{Desk, Round},
    sessions::{Fingerprint, LIFETIME, MAX_SESSIONS},
    *,
};

fn desk() -> (Desk, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let env = Env::new(Arc::clone(&clock) as Arc<dyn Clock>, Arc::new(SystemEntropy));
    (Desk::new(env), clock)
}

fn dummy(session: Option<&str>) -> Auth {
    let stage = Some(AuthType::Dummy);
    Auth { stage, session: session.map(str::to_owned), ..Auth::default() }
}

fn token(token: &str, session: Option<&str>) -> Auth {
    let stage = Some(AuthType::RegistrationToken);
    let session = session.map(str::to_owned);
    Auth { stage, session, token: Some(token.to_owned()), ..Auth::default() }
}

fn poll(session: &str) -> Auth {
    Auth { session: Some(session.to_owned()), ..Auth::default() }
}

fn request(desk: &Desk, endpoint: &str, body: &str, owner: Option<&UserId>) -> Fingerprint {
    let parameters = (!body.is_empty()).then(|| body.as_bytes().to_vec());
    desk.fingerprint(&Asked { endpoint: endpoint.to_owned(), parameters }, owner)
}

async fn judge(
    desk: &Desk,
    flows: &[Vec<AuthType>],
    request: Fingerprint,
    auth: Option<Auth>,
) -> Result<Passed, Value> {
    let round = Round { flows, params: Map::new(), request, owner: None };
    desk.judge(&round, auth.as_ref(), verify).await.map_err(body)
}

/// Closes the session of a request that has succeeded.
fn finish(desk: &Desk, passed: Passed) {
    passed.session.iter().for_each(|id| drop(desk.lock().by_id.remove(id)));
}

/// Accepts every dummy, and the token `good`.
async fn verify(stage: &AuthType, auth: &Auth) -> Result<Result<Proof, Refusal>, ApiError> {
    Ok(match auth.token.as_deref() {
        None if *stage == AuthType::Dummy => Ok(Proof::Nothing),
        Some("good") => Ok(Proof::RegistrationToken("good".to_owned())),
        _ => Err(Refusal::forbidden("wrong token")),
    })
}

fn body(error: ApiError) -> Value {
    assert_eq!(error.status(), 401);
    let body = actix_web::body::to_bytes(error.into_response(0).into_body());
    let body = futures_util::FutureExt::now_or_never(body).unwrap().unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn both() -> Vec<Vec<AuthType>> {
    vec![vec![AuthType::RegistrationToken, AuthType::Dummy]]
}

#[actix_web::test]
async fn stages_are_done_in_order_and_a_done_one_is_not_tried_again() {
    let (desk, _) = desk();
    let request = request(&desk, "register", "alice", None);
    let ask = async |auth: Option<Auth>| judge(&desk, &both(), request, auth).await;
    let first = ask(None).await.unwrap_err();
    assert_eq!(first["completed"], Value::Null);
    assert_eq!(first["params"], serde_json::json!({}));
    assert_eq!(first["errcode"], Value::Null);
    let id = first["session"].as_str().unwrap();
    let early = ask(Some(dummy(Some(id)))).await.unwrap_err();
    assert_eq!((&early["errcode"], &early["session"]), (&"M_UNRECOGNIZED".into(), &id.into()));
    let wrong = ask(Some(token("bad", Some(id)))).await.unwrap_err();
    assert_eq!((&wrong["errcode"], &wrong["session"]), (&"M_FORBIDDEN".into(), &id.into()));
    assert!(wrong["flows"].is_array() && wrong["error"].is_string());
    let half = ask(Some(token("good", Some(id)))).await.unwrap_err();
    assert_eq!(half["completed"], serde_json::json!(["m.login.registration_token"]));
    assert_eq!(half["errcode"], Value::Null);
    let again = ask(Some(token("bad", Some(id)))).await.unwrap_err();
    assert_eq!(again["completed"], half["completed"]);
    assert_eq!(again["errcode"], Value::Null);
    assert_eq!(ask(Some(poll(id))).await.unwrap_err()["completed"], half["completed"]);
    let passed = ask(Some(dummy(Some(id)))).await.unwrap();
    let proofs: Vec<_> = passed.proofs().cloned().collect();
    assert_eq!(proofs, [Proof::RegistrationToken("good".to_owned()), Proof::Nothing]);
    // The request itself failed and is sent again: everything is done still.
    finish(&desk, ask(Some(poll(id))).await.unwrap());
    let gone = ask(Some(poll(id))).await.unwrap_err();
    assert_eq!(gone["errcode"], "M_UNKNOWN");
    assert_ne!(gone["session"], id);
}

#[actix_web::test]
async fn one_request_may_do_the_only_stage_without_a_session() {
    let (desk, _) = desk();
    let request = request(&desk, "register", "alice", None);
    let flows = [vec![AuthType::Dummy]];
    let _passed = judge(&desk, &flows, request, Some(dummy(None))).await.unwrap();
    let other = judge(&desk, &flows, request, Some(token("good", None))).await;
    assert_eq!(other.unwrap_err()["errcode"], "M_UNRECOGNIZED");
}

#[actix_web::test]
async fn a_session_belongs_to_one_request() {
    let (desk, _) = desk();
    let flows = [vec![AuthType::Dummy]];
    let alice = user_id!("@alice:localhost");
    let first = request(&desk, "register", "alice", Some(alice));
    for other in [
        request(&desk, "register", "bob", Some(alice)),
        request(&desk, "register", "", Some(alice)),
        request(&desk, "delete", "alice", Some(alice)),
        request(&desk, "register", "alice", None),
        request(&desk, "register", "alice", Some(user_id!("@bob:localhost"))),
    ] {
        assert_ne!(first, other);
        let opened = judge(&desk, &flows, first, None).await.unwrap_err();
        let id = opened["session"].as_str().unwrap();
        let refused = judge(&desk, &flows, other, Some(dummy(Some(id)))).await;
        assert_eq!(refused.unwrap_err()["errcode"], "M_FORBIDDEN");
        let _passed = judge(&desk, &flows, first, Some(dummy(Some(id)))).await.unwrap();
    }
    // Who asked without parameters has not said yet what for.
    let probe = request(&desk, "register", "", Some(alice));
    let opened = judge(&desk, &flows, probe, None).await.unwrap_err();
    let id = opened["session"].as_str().unwrap();
    let _passed = judge(&desk, &flows, first, Some(dummy(Some(id)))).await.unwrap();
}

#[actix_web::test]
async fn sessions_expire_and_are_bounded() {
    let (desk, clock) = desk();
    let flows = [vec![AuthType::Dummy]];
    let request = request(&desk, "register", "alice", None);
    let opened = judge(&desk, &flows, request, None).await.unwrap_err();
    let id = opened["session"].as_str().unwrap();
    clock.advance(LIFETIME);
    let late = judge(&desk, &flows, request, Some(dummy(Some(id)))).await;
    assert_eq!(late.unwrap_err()["errcode"], "M_UNKNOWN");
    for _ in 0..MAX_SESSIONS + 10 {
        desk.open(&Round { flows: &flows, params: Map::new(), request, owner: None });
    }
    let sessions = desk.lock();
    assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
    assert_eq!(sessions.by_age.len(), MAX_SESSIONS);
}
