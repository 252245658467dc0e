//! What every event costs: JSON, hashes, signatures, redaction, building. On one event of about
//! 700 bytes of a version 10 room.

#![allow(missing_docs)] // the macros of criterion

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use parlour_event::{
    Pdu, RoomVersion, hashes,
    json::{self, Object},
    pdu::{EventReference, PduBuilder},
    redaction,
    signing::{self, SigningKey},
};
use ruma::{OwnedEventId, owned_room_id, owned_user_id, server_name};

fn version() -> &'static RoomVersion {
    RoomVersion::parse("10").expect("supported")
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32], "bench").expect("a valid version")
}

fn reference(byte: u8) -> EventReference {
    let id = format!("${}", hashes::encode_base64_url(&[byte; 32]));
    OwnedEventId::try_from(id).expect("an event id").into()
}

fn builder() -> PduBuilder {
    let body = "It is a truth universally acknowledged, that a room in want of a server";
    PduBuilder {
        room_id: Some(owned_room_id!("!SVkFJHzfwvuaIEawgC:parlour.example.org")),
        sender: owned_user_id!("@elizabeth:parlour.example.org"),
        event_type: "m.room.message".to_owned(),
        state_key: None,
        content: Object::from([
            ("body".to_owned(), body.into()),
            ("msgtype".to_owned(), "m.text".into()),
        ]),
        prev_events: vec![reference(1)],
        auth_events: vec![reference(2), reference(3), reference(4)],
        depth: 1_234,
        origin_server_ts: 1_700_000_000_000,
        redacts: None,
        event_localpart: None,
    }
}

fn build(builder: PduBuilder, key: &SigningKey) -> Pdu {
    let server = server_name!("parlour.example.org");
    builder.build_and_sign(version(), server, key).expect("a valid event")
}

fn event(c: &mut Criterion) {
    let key = key();
    let public = key.public_key();
    let pdu = build(builder(), &key);
    let bytes = pdu.to_bytes();
    println!("the event has {} bytes", bytes.len());
    let mut group = c.benchmark_group("pdu");
    group.bench_function("parse_strict", |b| {
        b.iter(|| json::parse_object(version(), black_box(&bytes)));
    });
    group.bench_function("canonical", |b| b.iter(|| black_box(&pdu).to_bytes()));
    group.bench_function("content_hash", |b| {
        b.iter(|| hashes::content_hash(black_box(pdu.json())));
    });
    group.bench_function("reference_hash", |b| {
        b.iter(|| hashes::reference_hash(version(), black_box(pdu.json())));
    });
    group.bench_function("sign", |b| {
        b.iter_batched_ref(
            || pdu.json().clone(),
            |event| signing::sign_event(version(), event, "parlour.example.org", &key),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("verify", |b| {
        b.iter(|| signing::verify_event(version(), black_box(pdu.json()), |_, _| Some(public)));
    });
    group.bench_function("redact", |b| {
        b.iter_batched(
            || pdu.json().clone(),
            |event| redaction::redact(version(), event),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("build_and_sign", |b| {
        b.iter_batched(builder, |builder| build(builder, &key), BatchSize::SmallInput);
    });
    group.bench_function("receive", |b| {
        b.iter(|| {
            let object = json::parse_object(version(), black_box(&bytes)).expect("JSON");
            let pdu = Pdu::from_wire(version(), object).expect("a valid event");
            signing::verify_event(version(), pdu.json(), |_, _| Some(public)).expect("signed");
            pdu
        });
    });
    group.finish();
}

criterion_group!(benches, event);
criterion_main!(benches);
