//! Aliases, published rooms, and memberships that change only from where they should.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use parlour_actors::{RoomError, directory::AliasError};
use parlour_event::{RoomNum, content::Membership};
use support::{create, engine, member, user};

#[actix::test]
async fn an_alias_belongs_to_one_room_at_a_time() {
    let engine = engine().await;
    let directory = &engine.directory;
    let (alias, alice) = ("#a:parlour.test", user("alice"));
    let claim = directory.claim(alias).unwrap();
    assert!(matches!(directory.claim(alias), Err(AliasError::Taken)), "somebody holds it");
    drop(claim);
    let claim = directory.claim(alias).unwrap();
    directory.add(claim, RoomNum(1), alice.as_str()).await.unwrap();
    assert!(matches!(directory.claim(alias), Err(AliasError::Taken)), "it leads to a room");
    let other = directory.claim("#b:parlour.test").unwrap();
    directory.add(other, RoomNum(1), alice.as_str()).await.unwrap();
    assert_eq!(directory.aliases_of(RoomNum(1)).unwrap(), [alias, "#b:parlour.test"]);
    assert_eq!(directory.aliases_of(RoomNum(2)).unwrap(), [""; 0]);
    directory.remove(alias, RoomNum(2)).await.unwrap();
    let entry = directory.alias(alias).unwrap().unwrap();
    assert_eq!((entry.room, entry.creator.as_str()), (RoomNum(1), alice.as_str()));
    directory.remove(alias, RoomNum(1)).await.unwrap();
    assert_eq!(directory.alias(alias).unwrap(), None);
    assert_eq!(directory.aliases_of(RoomNum(1)).unwrap(), ["#b:parlour.test"]);
    engine.stop().await;
}

#[actix::test]
async fn rooms_are_published_and_taken_back() {
    let engine = engine().await;
    let directory = &engine.directory;
    assert!(!directory.is_published(RoomNum(1)).unwrap());
    directory.publish(RoomNum(1), true).await.unwrap();
    assert!(directory.is_published(RoomNum(1)).unwrap());
    assert!(!directory.is_published(RoomNum(2)).unwrap());
    directory.publish(RoomNum(1), false).await.unwrap();
    assert!(!directory.is_published(RoomNum(1)).unwrap());
    engine.stop().await;
}

#[actix::test]
async fn a_kick_that_comes_after_a_ban_does_not_end_it() {
    const PRESENT: &[Membership] = &[Membership::Join, Membership::Invite];
    let engine = engine().await;
    let room = create(&engine, "12").await;
    engine.rooms.send(&room, member("bob", "bob", "join")).await.unwrap();
    let kick = || engine.rooms.change_membership(&room, member("alice", "bob", "leave"), PRESENT);
    // Both are on their way at once; the room takes the ban first.
    let ban = engine.rooms.send(&room, member("alice", "bob", "ban"));
    let (banned, kicked) = futures_util::future::join(ban, kick()).await;
    banned.unwrap();
    let refused = |result| match result {
        Err(RoomError::WrongMembership { user: whom, is }) => (whom, is),
        other => panic!("{other:?}"),
    };
    let bob = user("bob").to_string();
    assert_eq!(refused(kicked), (bob.clone(), Membership::Ban));
    assert_eq!(refused(kick().await), (bob, Membership::Ban));
    // Whoever was never there counts as gone.
    let nobody = engine.rooms.change_membership(&room, member("alice", "carol", "leave"), PRESENT);
    assert_eq!(refused(nobody.await), (user("carol").to_string(), Membership::Leave));
    let unban = member("alice", "bob", "leave");
    engine.rooms.change_membership(&room, unban, &[Membership::Ban]).await.unwrap();
    engine.stop().await;
}
