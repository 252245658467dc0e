use std::sync::Arc;

use parlour_actors::env::{Clock, ManualClock, SystemEntropy};
use ruma::api::client::uiaa::{Dummy, FallbackAcknowledgement, RegistrationToken};
use serde_json::Value;

use super::*;

fn uiaa() -> (Uiaa, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, entropy: Arc::new(SystemEntropy) };
    (Uiaa::new(env), clock)
}

fn dummy(session: Option<&str>) -> AuthData {
    let mut dummy = Dummy::new();
    dummy.session = session.map(str::to_owned);
    AuthData::Dummy(dummy)
}

fn token(token: &str, session: Option<&str>) -> AuthData {
    let mut data = RegistrationToken::new(token.to_owned());
    data.session = session.map(str::to_owned);
    AuthData::RegistrationToken(data)
}

/// Accepts every dummy, and the token `good`.
async fn verify(auth: &AuthData) -> Result<Result<(), Refusal>, ApiError> {
    Ok(match auth {
        AuthData::RegistrationToken(data) if data.token != "good" => {
            Err(Refusal::forbidden("wrong token"))
        }
        _ => Ok(()),
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
    let (uiaa, _) = uiaa();
    let request = uiaa.fingerprint("register", &[Some("alice")]);
    let ask = async |auth: Option<AuthData>| {
        uiaa.check(&both(), request, auth.as_ref(), verify).await.map_err(body)
    };
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
    let poll = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(id.to_owned()));
    assert_eq!(ask(Some(poll.clone())).await.unwrap_err()["completed"], half["completed"]);
    let _passed = ask(Some(dummy(Some(id)))).await.unwrap();
    // The request itself failed and is sent again: everything is done still.
    let passed = ask(Some(poll.clone())).await.unwrap();
    uiaa.finish(passed);
    let gone = ask(Some(poll)).await.unwrap_err();
    assert_eq!(gone["errcode"], "M_UNKNOWN");
    assert_ne!(gone["session"], id);
}

#[actix_web::test]
async fn one_request_may_do_the_only_stage_without_a_session() {
    let (uiaa, _) = uiaa();
    let request = uiaa.fingerprint("register", &[Some("alice")]);
    let flows = [vec![AuthType::Dummy]];
    let passed = uiaa.check(&flows, request, Some(&dummy(None)), verify).await;
    uiaa.finish(passed.unwrap());
    let other = uiaa.check(&flows, request, Some(&token("good", None)), verify).await;
    assert_eq!(body(other.unwrap_err())["errcode"], "M_UNRECOGNIZED");
}

#[actix_web::test]
async fn a_session_belongs_to_one_request() {
    let (uiaa, _) = uiaa();
    let flows = [vec![AuthType::Dummy]];
    let alice = uiaa.fingerprint("register", &[Some("alice"), None]);
    for other in [
        uiaa.fingerprint("register", &[Some("bob"), None]),
        uiaa.fingerprint("register", &[None, Some("alice")]),
        uiaa.fingerprint("register", &[Some("alice"), Some("")]),
        uiaa.fingerprint("delete", &[Some("alice"), None]),
    ] {
        assert_ne!(alice, other);
        let opened = body(uiaa.check(&flows, alice, None, verify).await.unwrap_err());
        let id = opened["session"].as_str().unwrap();
        let refused = uiaa.check(&flows, other, Some(&dummy(Some(id))), verify).await;
        assert_eq!(body(refused.unwrap_err())["errcode"], "M_FORBIDDEN");
        let _passed = uiaa.check(&flows, alice, Some(&dummy(Some(id))), verify).await.unwrap();
    }
    // Who asked without parameters has not said yet what for.
    let probe = uiaa.fingerprint("register", &[None, None]);
    let opened = body(uiaa.check(&flows, probe, None, verify).await.unwrap_err());
    let id = opened["session"].as_str().unwrap();
    let _passed = uiaa.check(&flows, alice, Some(&dummy(Some(id))), verify).await.unwrap();
}

#[actix_web::test]
async fn sessions_expire_and_are_bounded() {
    let (uiaa, clock) = uiaa();
    let flows = [vec![AuthType::Dummy]];
    let request = uiaa.fingerprint("register", &[Some("alice")]);
    let opened = body(uiaa.check(&flows, request, None, verify).await.unwrap_err());
    let id = opened["session"].as_str().unwrap();
    clock.advance(LIFETIME);
    let late = uiaa.check(&flows, request, Some(&dummy(Some(id))), verify).await;
    assert_eq!(body(late.unwrap_err())["errcode"], "M_UNKNOWN");
    for _ in 0..MAX_SESSIONS + 10 {
        uiaa.open(request);
    }
    let sessions = uiaa.lock();
    assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
    assert_eq!(sessions.by_age.len(), MAX_SESSIONS);
}
