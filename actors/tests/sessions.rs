//! Devices and their tokens, through the engine's public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use parlour_actors::{
    Engine, RoomLimits,
    env::{Env, ManualClock},
    users::{MAX_DEVICES, NewDevice, RefreshError, Session, Standing, TokenKind},
};
use parlour_storage::schema::User;
use support::options;

const ALICE: &str = "@alice:parlour.test";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

async fn start() -> (Engine, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(1_000));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let limits = RoomLimits::default();
    let engine = Engine::start(parlour_actors::EngineOptions { env, ..options(None, limits) });
    let engine = engine.await.unwrap();
    engine.users.register(ALICE, User::default(), None).await.unwrap();
    (engine, clock)
}

async fn login(engine: &Engine, device: &str, kind: TokenKind) -> Session {
    let device_id = Some(device.to_owned());
    let device = NewDevice { device_id, display_name: None, ip: HERE, user_agent: None, kind };
    engine.users.login(ALICE, device).await.unwrap()
}

fn standing(engine: &Engine, session: &Session) -> Option<Standing> {
    engine.users.authenticate(&session.access_token).unwrap().map(|login| login.standing)
}

const FOR_EVER: TokenKind = TokenKind { refreshable: false, expires_in_ms: None };
const ONE_SECOND: TokenKind = TokenKind { refreshable: true, expires_in_ms: Some(1_000) };

#[actix::test]
async fn who_has_too_many_devices_loses_the_one_that_was_silent_longest() {
    let (engine, clock) = start().await;
    let mut sessions = Vec::new();
    for number in 0..MAX_DEVICES {
        sessions.push(login(&engine, &format!("D{number}"), FOR_EVER).await);
        clock.advance(std::time::Duration::from_millis(1));
    }
    // On a known device there is room always; and it was heard of now.
    sessions[0] = login(&engine, "D0", FOR_EVER).await;
    assert_eq!(engine.users.devices(ALICE).unwrap().len(), MAX_DEVICES);
    login(&engine, "MORE", FOR_EVER).await;
    let left = engine.users.device_ids(ALICE).unwrap();
    assert_eq!(left.len(), MAX_DEVICES);
    assert!(left.contains(&"D0".to_owned()) && !left.contains(&"D1".to_owned()), "{left:?}");
    assert_eq!(standing(&engine, &sessions[0]), Some(Standing::Good));
    assert_eq!(standing(&engine, &sessions[1]), None);
    engine.stop().await;
}

#[actix::test]
async fn tokens_pass_through_their_stages() {
    let (engine, clock) = start().await;
    let first = login(&engine, "PHONE", ONE_SECOND).await;
    let first_refresh = first.refresh_token.clone().unwrap();
    assert_eq!(standing(&engine, &first), Some(Standing::Good));
    let lost = engine.users.refresh(&first_refresh, None).await.unwrap();
    let second = engine.users.refresh(&first_refresh, Some(1_000)).await.unwrap();
    assert_eq!(standing(&engine, &lost), None, "the second answer counts");
    assert_eq!(standing(&engine, &first), Some(Standing::Good));
    assert_eq!(standing(&engine, &second), Some(Standing::Unconfirmed));
    let used = engine.users.authenticate(&second.access_token).unwrap().unwrap();
    assert_eq!((&*used.user, &*used.device), (ALICE, "PHONE"));
    // Confirmed twice, by two requests at once: no harm.
    for _ in 0..2 {
        engine.users.confirm(&used, &second.access_token).await.unwrap();
    }
    assert_eq!(standing(&engine, &second), Some(Standing::Good));
    assert_eq!(standing(&engine, &first), Some(Standing::Ended));
    let again = engine.users.refresh(&first_refresh, None).await;
    assert!(matches!(again, Err(RefreshError::Used)), "{again:?}");
    clock.advance(std::time::Duration::from_secs(1));
    assert_eq!(standing(&engine, &second), Some(Standing::Ended));
    engine.users.logout(ALICE, "PHONE").await.unwrap();
    for session in [&first, &second] {
        assert_eq!(standing(&engine, session), None);
    }
    engine.stop().await;
}
