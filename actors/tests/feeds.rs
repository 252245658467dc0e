//! What the feeds of users who sync are told, by whoever made it durable or by the notifier.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use parlour_actors::{
    Engine,
    notifier::{News, Told},
};
use parlour_event::StreamPos;
use support::{create, engine, member, message, settle, user};

/// Sends messages one after the other and then all at once, and returns where they are.
async fn talk(engine: &Engine, room: &ruma::RoomId) -> Vec<StreamPos> {
    let mut places = Vec::new();
    for number in 0..5 {
        let sent = engine.rooms.send(room, message("alice", &number.to_string())).await.unwrap();
        places.push(sent.pos);
    }
    let all = (5..12).map(|number| engine.rooms.send(room, message("alice", &number.to_string())));
    for sent in futures_util::future::join_all(all).await {
        places.push(sent.unwrap().pos);
    }
    places.sort_unstable();
    places
}

#[actix::test]
async fn few_and_many_are_told_everything_in_order() {
    for members in [3, 100] {
        let engine = engine().await;
        let room = create(&engine, "11").await;
        let mut feeds = Vec::new();
        for number in 0..members {
            let name = format!("user{number}");
            engine.rooms.send(&room, member(&name, &name, "join")).await.unwrap();
            feeds.push(engine.feeds.of(user(&name).as_str()).await.unwrap());
        }
        settle(&engine).await;
        let before = News { pos: engine.changes.current(), ..News::default() };
        feeds.iter().for_each(|feed| feed.begin(before));
        let last_heard = feeds.last().unwrap();
        let places = talk(&engine, &room).await;
        // Many may be told after the answer.
        while engine.feeds.told() < *places.last().unwrap() {
            let seen = News { pos: engine.feeds.told(), ..News::default() };
            last_heard.past(seen, &engine.feeds).await;
            tokio::task::yield_now().await;
        }
        for feed in &feeds {
            let Told::Arrivals(arrivals) = feed.since(before) else { panic!("{members}") };
            let told: Vec<_> = arrivals.iter().map(|arrival| arrival.pos).collect();
            assert_eq!(told, places, "{members}");
        }
        engine.stop().await;
    }
}
