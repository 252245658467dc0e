//! Rooms whose events a policy server has to sign, while the rooms go on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::{Arc, Mutex};

use parlour_actors::{
    Engine, LocalEvent, PolicyError, PolicySource, RoomError, Sent, Transaction, keyring::BoxFuture,
};
use parlour_event::{
    Pdu, RoomVersion,
    content::Membership,
    signing::{self, SigningKey},
};
use ruma::{OwnedRoomId, ServerName};
use support::{create, engine, member, message, remote_member, state};
use tokio::sync::Semaphore;

const VERSION: &str = "12";
const POLICY: &str = "policy.org";

/// A policy server that signs what it is let.
#[derive(Debug)]
struct Judge {
    asked: Mutex<usize>,
    /// A permit for each answer.
    answers: Semaphore,
    refuses: bool,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[3; 32], "policy_server").unwrap()
}

impl PolicySource for Judge {
    fn sign<'a>(
        &'a self,
        server: &'a ServerName,
        event: &'a Pdu,
    ) -> BoxFuture<'a, Result<Option<String>, PolicyError>> {
        Box::pin(async move {
            assert_eq!(server, POLICY);
            *self.asked.lock().unwrap() += 1;
            self.answers.acquire().await.unwrap().forget();
            if self.refuses {
                return Err(PolicyError::Silent("it sleeps".to_owned()));
            }
            let mut event = event.json().clone();
            signing::sign_event(RoomVersion::parse(VERSION).unwrap(), &mut event, POLICY, &key());
            let by = event["signatures"].get(POLICY).unwrap();
            Ok(Some(by.get("ed25519:policy_server").unwrap().as_str().unwrap().to_owned()))
        })
    }
}

async fn guarded(refuses: bool) -> (Engine, OwnedRoomId, Arc<Judge>) {
    let engine = engine().await;
    let judge = Judge { asked: Mutex::default(), answers: Semaphore::new(0), refuses };
    let judge = Arc::new(judge);
    engine.rooms.ask_policy_servers(judge.clone());
    let room = create(&engine, VERSION).await;
    let content = format!(
        r#"{{"via":"{POLICY}","public_keys":{{"ed25519":"{}"}}}}"#,
        key().public_key().to_base64()
    );
    let policy = state("alice", "m.room.policy", "", &content);
    engine.rooms.send(&room, policy).await.unwrap();
    engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
    remote_member(&engine, &room, "@judge:policy.org", "join").await;
    (engine, room, judge)
}

impl Judge {
    /// Waits until it has been asked so often.
    async fn until_asked(&self, times: usize) {
        while *self.asked.lock().unwrap() < times {
            tokio::task::yield_now().await;
        }
    }
}

fn spawn(
    engine: &Engine,
    room: &OwnedRoomId,
    event: LocalEvent,
) -> tokio::task::JoinHandle<Result<Sent, RoomError>> {
    let (rooms, room) = (engine.rooms.clone(), room.clone());
    tokio::spawn(async move { rooms.send(&room, event).await })
}

#[actix::test]
async fn a_room_goes_on_while_its_policy_server_thinks() {
    let (engine, room, judge) = guarded(false).await;
    let waiting: Vec<_> = (0..20)
        .map(|number| spawn(&engine, &room, message("alice", &format!("message {number}"))))
        .collect();
    judge.until_asked(8).await;
    assert_eq!(*judge.asked.lock().unwrap(), 8, "not all at once");
    // What is not asked about passes, and what comes from elsewhere.
    remote_member(&engine, &room, "@guest:far.org", "join").await;
    judge.answers.add_permits(20);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let num = engine.store.room_num(room.as_str()).unwrap().unwrap();
    let head = engine.store.room_head(num).unwrap().unwrap();
    assert!(head.extremities.len() < 20, "{head:?}");
    assert_eq!(head.joined, 4);
    engine.stop().await;
}

#[actix::test]
async fn what_was_signed_must_still_be_right() {
    let (engine, room, judge) = guarded(false).await;
    let (rooms, id) = (engine.rooms.clone(), room.clone());
    let kick = tokio::spawn(async move {
        let kick = member("alice", "bob", "leave");
        rooms.change_membership(&id, kick, &[Membership::Join]).await
    });
    judge.until_asked(1).await;
    let said = spawn(&engine, &room, message("bob", "am I still here?"));
    judge.until_asked(2).await;
    let leave = spawn(&engine, &room, member("bob", "bob", "leave"));
    judge.until_asked(3).await;
    // Each is signed as it stands; in which order they come in is chance, but one of the two that
    // put bob out comes first, and what depends on his being in does not come after that.
    judge.answers.add_permits(3);
    let (kick, said, leave) = (kick.await.unwrap(), said.await.unwrap(), leave.await.unwrap());
    assert!(
        kick.is_ok()
            || matches!(kick, Err(RoomError::WrongMembership { .. } | RoomError::Forbidden(_))),
        "{kick:?}"
    );
    assert!(said.is_ok() || matches!(said, Err(RoomError::Forbidden(_))), "{said:?}");
    assert!(kick.is_ok() || leave.is_ok());
    engine.stop().await;
}

#[actix::test]
async fn a_transaction_is_one_event_also_if_it_was_asked_about_twice() {
    let (engine, room, judge) = guarded(false).await;
    let transaction = Transaction { hash: [9; 16], device: "D".to_owned(), txn_id: "t".to_owned() };
    let event = LocalEvent { transaction: Some(transaction), ..message("alice", "once") };
    let twice = [spawn(&engine, &room, event.clone()), spawn(&engine, &room, event.clone())];
    judge.until_asked(2).await;
    judge.answers.add_permits(2);
    let [first, second] = twice;
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first.event_id, second.event_id);
    let again = engine.rooms.send(&room, event).await.unwrap();
    assert_eq!(again.event_id, first.event_id);
    assert_eq!(*judge.asked.lock().unwrap(), 2);
    engine.stop().await;
}

#[actix::test]
async fn a_refusal_keeps_nobody_who_goes_for_good() {
    let (engine, room, judge) = guarded(true).await;
    judge.answers.add_permits(10);
    let leave = || member("bob", "bob", "leave");
    let from = &[Membership::Join];
    let refused = engine.rooms.change_membership(&room, leave(), from).await;
    assert!(matches!(refused, Err(RoomError::Policy(PolicyError::Silent(_)))), "{refused:?}");
    engine.rooms.depart(&room, leave(), from).await.unwrap();
    let again = engine.rooms.depart(&room, leave(), from).await;
    assert!(matches!(again, Err(RoomError::WrongMembership { .. })), "{again:?}");
    engine.stop().await;
}
