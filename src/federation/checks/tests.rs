//! Events of a server whose key everybody may ask for.

use std::sync::Mutex;

use actix::System;
use bytes::Bytes;
use parlour_actors::{
    Engine, EngineOptions, RoomLimits,
    env::Env,
    keyring::{BoxFuture, KeyRing, KeyRingOptions, KeySource, NotaryQuery, SourceError},
    metrics::NoMetrics,
};
use parlour_event::{json::Value, pdu::PduBuilder, signing::SigningKey};
use ruma::{OwnedRoomId, UserId};

use super::*;

/// `far.org`, and who asked for its keys.
#[derive(Debug)]
struct Far {
    key: SigningKey,
    asked: Mutex<usize>,
}

impl Far {
    fn document(&self) -> Bytes {
        let now = Env::system().clock.now_ms();
        let (id, key) = (self.key.key_id(), self.key.public_key().to_base64());
        let text = format!(
            r#"{{"server_name":"far.org","valid_until_ts":{},"old_verify_keys":{{}},
                "verify_keys":{{"{id}":{{"key":"{key}"}}}}}}"#,
            now + 3_600_000
        );
        let mut object = json::parse_lax(text.as_bytes()).unwrap().as_object().unwrap().clone();
        signing::sign_json(&mut object, "far.org", &self.key);
        json::to_canonical(&Value::Object(object)).into()
    }
}

impl KeySource for Far {
    fn ask_server<'a>(
        &'a self,
        server: &'a ServerName,
    ) -> BoxFuture<'a, Result<Bytes, SourceError>> {
        *self.asked.lock().unwrap() += 1;
        let answer = match server.as_str() {
            "far.org" => Ok(self.document()),
            _ => Err(SourceError("nobody is there".to_owned())),
        };
        Box::pin(std::future::ready(answer))
    }

    fn ask_notary<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a [NotaryQuery],
    ) -> BoxFuture<'a, Result<Vec<Bytes>, SourceError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A checker, and who has the key to events that it lets through.
struct Scene {
    far: Arc<Far>,
    checker: EventChecker,
    engine: Engine,
}

impl Scene {
    async fn new() -> Self {
        let options = EngineOptions {
            server_name: "near.org".try_into().unwrap(),
            storage: None,
            state_cache_bytes: 1 << 20,
            rooms: RoomLimits::default(),
            presence: None,
            room_version: RoomVersion::parse("12").unwrap(),
            env: Env::system(),
            metrics: Arc::new(NoMetrics),
        };
        let engine = Engine::start(options).await.unwrap();
        let key = SigningKey::from_seed(&[3; 32], "far").unwrap();
        let far = Arc::new(Far { key, asked: Mutex::new(0) });
        let options = KeyRingOptions {
            server_name: "near.org".try_into().unwrap(),
            old_keys: Vec::new(),
            notaries: Vec::new(),
            source: far.clone(),
        };
        let (keys, store) = (engine.keys.clone(), engine.store.clone());
        let ring = KeyRing::new(options, keys, store, engine.persister.clone(), Env::system());
        let checker = EventChecker::new(ring, Workers::start(&engine.threads, "check", 2).unwrap());
        Self { far, checker, engine }
    }

    /// A message of a user of a server, signed with `far.org`'s key.
    fn message(&self, version: &RoomVersion, server: &str, body: &str) -> Object {
        let local = |sigil| format!("{sigil}room:{server}");
        let room: OwnedRoomId = match version.rules().authorization.room_create_event_id_as_room_id
        {
            true => format!("!{}", "A".repeat(43)).try_into().unwrap(),
            false => local('!').try_into().unwrap(),
        };
        let builder = PduBuilder {
            room_id: Some(room),
            sender: UserId::parse(local('@')).unwrap(),
            event_type: "m.room.message".to_owned(),
            state_key: None,
            content: Object::from([("body".to_owned(), body.into())]),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 5,
            origin_server_ts: Env::system().clock.now_ms(),
            redacts: None,
            event_localpart: Some("id".to_owned()),
        };
        let server = <&ServerName>::try_from(server).unwrap();
        builder.build_and_sign(version, server, &self.far.key).unwrap().into_json()
    }

    async fn check(&self, version: &'static RoomVersion, events: Vec<Object>) -> Vec<Checked> {
        let events = events.into_iter().map(|event| raw(&event));
        self.checker.check(version, events.collect()).await.unwrap()
    }
}

fn raw(event: &Object) -> Box<RawValue> {
    RawValue::from_string(json::to_canonical_string(&Value::Object(event.clone()))).unwrap()
}

fn run<T>(test: impl AsyncFnOnce(&Scene) -> T) -> T {
    System::new().block_on(async {
        let scene = Scene::new().await;
        let result = test(&scene).await;
        scene.engine.stop().await;
        result
    })
}

// Checklist 13.1, 13.7, 13.8
#[test]
fn events_are_dropped_redacted_or_taken() {
    run(async |scene| {
        for version in RoomVersion::all() {
            let good = scene.message(version, "far.org", "hello");
            let mut unsigned = good.clone();
            unsigned.remove("signatures");
            let mut resigned = good.clone();
            let stranger = SigningKey::from_seed(&[4; 32], "far").unwrap();
            signing::sign_event(version, &mut resigned, "far.org", &stranger);
            let mut changed = good.clone();
            changed.insert(
                "content".to_owned(),
                Value::Object([("body".to_owned(), "x".into())].into()),
            );
            let mut moved = good.clone();
            moved.insert("depth".to_owned(), 6.into());
            let unknown = scene.message(version, "dead.org", "hello");
            let events = vec![good.clone(), unsigned, resigned, changed, moved, unknown];
            let checked = scene.check(version, events).await;
            let [good_one, unsigned, resigned, changed, moved, unknown] = &checked[..] else {
                panic!("six results")
            };
            let good_one = good_one.as_ref().unwrap();
            assert_eq!(*good_one.json(), good, "{}", version.id());
            // Nothing but the hash is wrong with it: it is what is left after a redaction.
            let changed = changed.as_ref().unwrap();
            assert_eq!(changed.event_id(), good_one.event_id());
            assert!(changed.content().is_empty());
            let fault = |checked: &Checked| checked.as_ref().unwrap_err().fault.clone();
            assert!(matches!(fault(unsigned), Fault::Format(_)));
            let invalid = SignatureError::Invalid {
                entity: "far.org".to_owned(),
                key_id: "ed25519:far".to_owned(),
            };
            assert_eq!(fault(resigned), Fault::Signature(invalid.clone()));
            assert_eq!(fault(moved), Fault::Signature(invalid));
            let missing = SignatureError::Unsigned("dead.org".to_owned());
            assert_eq!(fault(unknown), Fault::Signature(missing));
            assert!(unknown.as_ref().unwrap_err().event_id.is_some());
        }
    });
}

// Checklist 13.1, 13.8
#[test]
fn what_is_wrong_with_the_format_is_told_with_the_events_id() {
    run(async |scene| {
        let version = RoomVersion::parse("11").unwrap();
        let mut large = scene.message(version, "far.org", &"x".repeat(65_000));
        let padding = 65_537 - json::to_canonical(&Value::Object(large.clone())).len();
        let grow = |event: &mut Object, bytes: usize| {
            let body = format!("{}{}", "x".repeat(65_000), "y".repeat(bytes));
            let content = Object::from([("body".to_owned(), body.into())]);
            event.insert("content".to_owned(), Value::Object(content));
        };
        let mut largest = large.clone();
        grow(&mut largest, padding - 1);
        grow(&mut large, padding);
        // What is unsigned does not count.
        largest.insert("unsigned".to_owned(), Value::Object([("age".to_owned(), 5.into())].into()));
        let mut untyped = scene.message(version, "far.org", "hello");
        untyped.insert("type".to_owned(), 5.into());
        let checked = scene.check(version, vec![largest, large, untyped]).await;
        let largest = checked[0].as_ref().unwrap();
        assert!(!largest.json().contains_key("unsigned"));
        let large = checked[1].as_ref().unwrap_err();
        assert_eq!(large.event_id.as_ref(), Some(largest.event_id()));
        let too_large = FormatError::TooLarge { bytes: 65_537 };
        assert_eq!(large.fault, Fault::Format(too_large));
        assert!(checked[2].as_ref().unwrap_err().event_id.is_some());
        for garbage in ["5", "[]", r#"{"a":1.5}"#, "{}", &"[".repeat(200)] {
            let Ok(raw) = RawValue::from_string(garbage.to_owned()) else { continue };
            let checked = scene.checker.check(version, vec![raw]).await.unwrap();
            assert!(matches!(checked[0].as_ref().unwrap_err().fault, Fault::Format(_)));
        }
    });
}

#[test]
fn many_events_keep_their_order_and_ask_for_a_key_once() {
    run(async |scene| {
        let version = RoomVersion::parse("11").unwrap();
        let events = (0..200).map(|n| scene.message(version, "far.org", &n.to_string()));
        let checked = scene.check(version, events.collect()).await;
        for (number, checked) in checked.iter().enumerate() {
            let body = checked.as_ref().unwrap().content()["body"].clone();
            assert_eq!(body, number.to_string().into());
        }
        assert_eq!(*scene.far.asked.lock().unwrap(), 1);
    });
}

#[test]
fn whatever_comes_nothing_panics() {
    run(async |scene| {
        let version = RoomVersion::parse("11").unwrap();
        let good = scene.message(version, "far.org", "hello");
        let values = [Value::Null, 5.into(), "".into(), "x".into(), Value::Array(Vec::new())];
        let mut events = Vec::new();
        for name in good.keys() {
            for value in &values {
                let mut event = good.clone();
                event.insert(name.clone(), value.clone());
                events.push(event);
            }
            let mut event = good.clone();
            event.remove(name);
            events.push(event);
        }
        for checked in scene.check(version, events).await {
            assert_ne!(checked.err().map(|error| error.fault), Some(Fault::Unchecked));
        }
    });
}
