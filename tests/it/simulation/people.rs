//! People, and what they do: what they may, and what they may not.

use std::collections::{BTreeMap, BTreeSet};

use parlour::embed::{Bytes, Client, Homeserver, http::Request};
use serde_json::{Value, json};

use super::Weather;
use crate::common::{Random, path};

/// What somebody may try, and how often of a hundred times.
const DEEDS: [(Deed, u64); 15] = [
    (Deed::Say, 32),
    (Deed::Topic, 9),
    (Deed::Kick, 7),
    (Deed::Ban, 4),
    (Deed::Unban, 4),
    (Deed::Invite, 4),
    (Deed::Leave, 5),
    (Deed::Join, 8),
    (Deed::Knock, 2),
    (Deed::Empower, 5),
    (Deed::Rules, 5),
    (Deed::Redact, 4),
    (Deed::Type, 3),
    (Deed::Receipt, 4),
    (Deed::Look, 4),
];

/// What somebody tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Say,
    Topic,
    Kick,
    Ban,
    Unban,
    Invite,
    Leave,
    Join,
    Knock,
    Empower,
    Rules,
    Redact,
    Type,
    Receipt,
    Look,
}

impl Deed {
    /// Any.
    pub(super) fn any(random: &mut Random) -> Self {
        let mut left = random.below(DEEDS.iter().map(|(_, weight)| weight).sum());
        for (deed, weight) in DEEDS {
            if left < weight {
                return deed;
            }
            left -= weight;
        }
        Self::Say
    }
}

/// Where it all happens.
#[derive(Clone, Default)]
pub(super) struct Place {
    pub(super) room: String,
    /// Who is in this room may be let into the other one.
    pub(super) lobby: String,
    /// Who may come in, one of which is the rule at any time.
    pub(super) rules: &'static [&'static str],
    /// Servers to come in through.
    pub(super) via: Vec<String>,
}

/// Somebody on one of the servers.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) id: String,
    /// The number of the server.
    pub(super) at: usize,
    /// Nobody puts this one out, and nobody changes what this one may do.
    pub(super) is_safe: bool,
    client: Client,
    token: String,
    weather: Weather,
}

/// A room's state by type and key.
pub(super) type State = BTreeMap<(String, String), String>;

/// An answer's status and body.
pub(super) type Answer = (u16, Value);

impl Person {
    /// Registers somebody.
    pub(super) async fn new(
        server: &Homeserver,
        at: usize,
        name: &str,
        is_safe: bool,
        weather: &Weather,
    ) -> Self {
        let (client, weather) = (server.client(), weather.clone());
        let (id, token) = (format!("@{name}:{}", server.name()), String::new());
        let mut person = Self { id, at, is_safe, client, token, weather };
        let body = json!({ "username": name, "password": "correct horse battery staple",
            "auth": { "type": "m.login.dummy" } });
        let (status, answer) = person.ask("POST", "register", body).await;
        assert_eq!(status, 200, "{answer}");
        person.token = answer["access_token"].as_str().unwrap().to_owned();
        person
    }

    /// Asks the server; what it cannot answer for an error inside is a failure.
    pub(super) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if method == "GET" { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/_matrix/client/v3/{path}"))
            .header("Authorization", format!("Bearer {}", self.token));
        let answer = self.client.call(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let content: Value = serde_json::from_slice(answer.body()).unwrap();
        let outcome = content["event_id"].as_str().or(content["errcode"].as_str());
        let told = format!("{} {method} {path}: {status} {}", self.id, outcome.unwrap_or("-"));
        self.weather.note(&told);
        assert!(!matches!(status, 500 | 405), "{told}: {content}");
        (status, content)
    }

    /// The same in a room.
    pub(super) async fn in_room(
        &self,
        method: &str,
        room: &str,
        rest: &str,
        body: Value,
    ) -> Answer {
        self.ask(method, &(path("rooms/{}/", &[room]) + rest), body).await
    }

    /// Says something; the event's id, if the server has taken it.
    pub(super) async fn say(&self, room: &str, text: &str) -> Option<String> {
        let body = json!({ "msgtype": "m.text", "body": text });
        let rest = path("send/m.room.message/{}", &[text]);
        let (status, answer) = self.in_room("PUT", room, &rest, body).await;
        (status == 200).then(|| answer["event_id"].as_str().unwrap().to_owned())
    }

    /// Comes into a room, through any of these servers.
    pub(super) async fn join(&self, room: &str, via: &[String]) -> bool {
        self.go_to("join", room, via).await == 200
    }

    /// Joins a room or knocks there, through any of these servers.
    async fn go_to(&self, how: &str, room: &str, via: &[String]) -> u16 {
        let via: String = via.iter().map(|via| path("via={}&", &[via])).collect();
        let at = path("{}/{}?", &[how, room]) + via.trim_end_matches('&');
        self.ask("POST", &at, json!({})).await.0
    }

    /// Whether somebody is in the room, as this one's server sees it.
    pub(super) async fn sees(&self, room: &str, other: &Self) -> bool {
        let rest = path("state/m.room.member/{}", &[&other.id]);
        self.in_room("GET", room, &rest, Value::Null).await.1["membership"] == "join"
    }

    /// Sets a piece of the room's state.
    pub(super) async fn set(&self, room: &str, kind: &str, content: Value) -> bool {
        self.in_room("PUT", room, &path("state/{}/", &[kind]), content).await.0 == 200
    }

    /// Gives somebody this much power.
    async fn empower(&self, room: &str, whom: &str, power: u64) {
        let at = "state/m.room.power_levels/";
        let (status, mut levels) = self.in_room("GET", room, at, Value::Null).await;
        if status == 200 {
            levels["users"][whom] = power.into();
            self.set(room, "m.room.power_levels", levels).await;
        }
    }

    /// Tries something, about somebody else and about an event if it takes any. The id of what was
    /// said, if it was.
    pub(super) async fn act(
        &self,
        deed: Deed,
        Place { room, lobby, rules, via }: &Place,
        number: u64,
        whom: &str,
        event: &str,
    ) -> Option<String> {
        let about = json!({ "user_id": whom });
        match deed {
            Deed::Say => return self.say(room, &format!("message {number}")).await,
            Deed::Topic => {
                self.set(room, "m.room.topic", json!({ "topic": format!("topic {number}") })).await;
            }
            Deed::Kick => drop(self.in_room("POST", room, "kick", about).await),
            Deed::Ban => drop(self.in_room("POST", room, "ban", about).await),
            Deed::Unban => drop(self.in_room("POST", room, "unban", about).await),
            Deed::Invite => drop(self.in_room("POST", room, "invite", about).await),
            Deed::Leave if self.is_safe => {}
            Deed::Leave => drop(self.in_room("POST", room, "leave", json!({})).await),
            Deed::Join => drop(self.join(room, via).await),
            Deed::Knock => drop(self.go_to("knock", room, via).await),
            Deed::Empower => self.empower(room, whom, [0, 50][(number % 2) as usize]).await,
            Deed::Rules => {
                let rule = rules[number as usize % rules.len()];
                let mut content = json!({ "join_rule": rule });
                if rule.ends_with("restricted") {
                    content["allow"] = json!([{ "type": "m.room_membership", "room_id": lobby }]);
                }
                self.set(room, "m.room.join_rules", content).await;
            }
            Deed::Redact => {
                let rest = path("redact/{}/{}", &[event, &number.to_string()]);
                self.in_room("PUT", room, &rest, json!({})).await;
            }
            Deed::Type => {
                let body = json!({ "typing": number.is_multiple_of(2), "timeout": 5_000 });
                self.in_room("PUT", room, &path("typing/{}", &[&self.id]), body).await;
            }
            Deed::Receipt => {
                let rest = path("receipt/m.read/{}", &[event]);
                self.in_room("POST", room, &rest, json!({})).await;
            }
            Deed::Look => {
                self.ask("GET", "sync?timeout=2000", Value::Null).await;
                self.in_room("GET", room, "messages?dir=b&limit=20", Value::Null).await;
            }
        }
        None
    }

    /// The room's state, by type and key.
    pub(super) async fn state(&self, room: &str) -> Option<State> {
        let (status, events) = self.in_room("GET", room, "state", Value::Null).await;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
        (status == 200).then(|| {
            let events = events.as_array().unwrap().iter();
            let place = |event| (text(event, "type"), text(event, "state_key"));
            events.map(|event| (place(event), text(event, "event_id"))).collect()
        })
    }

    /// All messages in the room, of which those of before have to be asked for elsewhere.
    pub(super) async fn messages(&self, room: &str) -> BTreeSet<String> {
        let (mut seen, mut from) = (BTreeSet::new(), String::new());
        loop {
            let rest = format!("messages?dir=b&limit=100{from}");
            let (status, page) = self.in_room("GET", room, &rest, Value::Null).await;
            let chunk = page["chunk"].as_array().filter(|_| status == 200);
            let said = chunk.into_iter().flatten().filter(|e| e["type"] == "m.room.message");
            seen.extend(said.map(|event| event["event_id"].as_str().unwrap().to_owned()));
            match page["end"].as_str() {
                Some(end) => from = path("&from={}", &[end]),
                None => return seen,
            }
        }
    }
}
