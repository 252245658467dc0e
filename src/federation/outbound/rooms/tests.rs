//! What goes over the wire, and what comes of answers.

use std::sync::{Arc, Mutex};

use actix::System;
use bytes::Bytes;
use parlour_actors::keyring::BoxFuture;
use parlour_event::signing::SigningKey;
use prometheus::{IntCounterVec, Opts};
use ruma::{event_id, room_id, server_name};

use super::*;
use crate::{
    config::ServerFilter,
    federation::outbound::{
        client::ClientOptions,
        transport::{Transport, TransportError},
    },
};

/// Gives everybody the same answer.
#[derive(Debug)]
struct Answering {
    body: &'static str,
    asked: Mutex<Vec<(String, String)>>,
}

impl Transport for Answering {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        request: http::Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<http::Response<Bytes>, TransportError>> {
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        let line = format!("{} {}", request.method(), request.uri());
        self.asked.lock().unwrap().push((line, body));
        Box::pin(std::future::ready(Ok(http::Response::new(self.body.into()))))
    }
}

/// What is asked, and how it ends, when this is the answer.
fn ask<T>(
    body: &'static str,
    question: impl AsyncFnOnce(&RoomClient) -> Result<T, AskError>,
) -> (String, String, Result<T, AskError>) {
    let transport = Arc::new(Answering { body, asked: Mutex::default() });
    let client = FederationClient::new(ClientOptions {
        server_name: server_name!("near.org").to_owned(),
        key: Arc::new(SigningKey::from_seed(&[1; 32], "key").unwrap()),
        servers: ServerFilter::default(),
        transport: transport.clone(),
        outcomes: IntCounterVec::new(Opts::new("a", "b"), &["outcome"]).unwrap(),
    });
    let result = System::new().block_on(question(&RoomClient::new(client)));
    let (line, body) = transport.asked.lock().unwrap().pop().unwrap();
    (line, body, result)
}

// Checklist 13.12
#[test]
fn questions_are_those_of_the_specification() {
    let (far, room, event) = (server_name!("far.org"), room_id!("!r:far.org"), event_id!("$e"));
    let state = r#"{"pdus":[{"a":1.5}],"auth_chain":[]}"#;
    let (line, _, told) = ask(state, async |client| client.state(far, room, event).await);
    assert_eq!(line, "GET /_matrix/federation/v1/state/!r:far.org?event_id=%24e");
    assert_eq!(told.unwrap().state[0].get(), r#"{"a":1.5}"#);
    let ids = r#"{"pdu_ids":["$a"],"auth_chain_ids":["$b"]}"#;
    let (line, _, told) = ask(ids, async |client| client.state_ids(far, room, event).await);
    assert_eq!(line, "GET /_matrix/federation/v1/state_ids/!r:far.org?event_id=%24e");
    assert_eq!(told.unwrap().auth_chain, ["$b"]);
    let one = r#"{"origin":"far.org","origin_server_ts":1,"pdus":[{}]}"#;
    let (line, _, told) = ask(one, async |client| client.event(far, event).await);
    assert_eq!(line, "GET /_matrix/federation/v1/event/$e");
    assert_eq!(told.unwrap().get(), "{}");
    let chain = r#"{"auth_chain":[{}]}"#;
    let (line, _, told) = ask(chain, async |client| client.event_auth(far, room, event).await);
    assert_eq!(line, "GET /_matrix/federation/v1/event_auth/!r:far.org/$e");
    assert_eq!(told.unwrap().len(), 1);
    let page = r#"{"origin":"far.org","origin_server_ts":1,"pdus":[{},{},{}]}"#;
    let events = vec![event.to_owned()];
    let (line, _, told) = ask(page, async |client| client.backfill(far, room, events, 2).await);
    assert_eq!(line, "GET /_matrix/federation/v1/backfill/!r:far.org?v=%24e&limit=2");
    assert_eq!(told.unwrap().len(), 2);
}

// Checklist 13.12
#[test]
fn no_more_missing_events_are_taken_than_were_asked_for() {
    let (far, room) = (server_name!("far.org"), room_id!("!r:far.org"));
    let gap = Gap {
        latest: vec![event_id!("$new").to_owned()],
        earliest: vec![event_id!("$old").to_owned()],
        min_depth: 7,
        limit: 2,
    };
    let answer = r#"{"events":[{},{},{}]}"#;
    let (line, body, told) =
        ask(answer, async |client| client.get_missing_events(far, room, gap).await);
    assert_eq!(line, "POST /_matrix/federation/v1/get_missing_events/!r:far.org");
    let wanted = serde_json::json!({ "limit": 2, "min_depth": 7, "earliest_events": ["$old"],
        "latest_events": ["$new"] });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), wanted);
    assert_eq!(told.unwrap().len(), 2);
}

#[test]
fn answers_that_are_none() {
    let (far, event) = (server_name!("far.org"), event_id!("$e"));
    let bodies =
        ["", "{}", "[]", r#"{"pdus":[]}"#, r#"{"origin":"far.org","origin_server_ts":1,"pdus":5}"#];
    for body in bodies {
        let (_, _, told) = ask(body, async |client| client.event(far, event).await);
        assert!(matches!(told, Err(AskError::Answer(_))), "{body}: {told:?}");
    }
    // What is nested deeply is read, since one such event must not spoil all others of an answer.
    let deep: &'static str = Box::leak(
        format!(
            r#"{{"origin":"far.org","origin_server_ts":1,"pdus":[{{"a":{}1{}}}]}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        )
        .into_boxed_str(),
    );
    let (_, _, told) = ask(deep, async |client| client.event(far, event).await);
    assert_eq!(told.unwrap().get().len(), 200_000 + 7);
}
