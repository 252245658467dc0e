//! What the fuzz targets do with some bytes: in a file of its own, so that `event/tests` does the
//! same with drawn bytes where there is no nightly toolchain. Where a room version is needed, the
//! first byte chooses it.

use std::sync::Arc;

use parlour_event::{
    Pdu, RoomVersion, auth,
    hashes::reference_hash,
    json::{Value, canonicalise, parse, parse_lax, parse_object, parse_strict, to_canonical},
    redaction::redact,
    signing::verify_event,
};
use ruma::OwnedEventId;

fn version_and_rest(bytes: &[u8]) -> Option<(&'static RoomVersion, &[u8])> {
    let (&choice, rest) = bytes.split_first()?;
    let versions = RoomVersion::all();
    Some((versions.get(usize::from(choice) % versions.len())?, rest))
}

/// Reading and writing JSON: what is written is read again as the same.
pub(crate) fn canonical_json(bytes: &[u8]) {
    let _ = canonicalise(bytes);
    let strict = parse_strict(bytes);
    match parse_lax(bytes) {
        Ok(lax) => {
            let written = to_canonical(&lax);
            assert_eq!(parse_lax(&written), Ok(lax.clone()));
            if let Ok(strict) = strict {
                assert_eq!(parse_strict(&written), Ok(strict));
            }
        }
        Err(_) => assert!(strict.is_err()),
    }
}

/// Events from outside.
pub(crate) fn pdu(bytes: &[u8]) {
    let Some((version, bytes)) = version_and_rest(bytes) else { return };
    let Ok(object) = parse_object(version, bytes) else { return };
    let _ = verify_event(version, &object, |_, _| None);
    if let Ok(pdu) = Pdu::from_wire(version, object) {
        let again = parse_object(version, &pdu.to_bytes()).expect("what we write, we read");
        let again = Pdu::from_wire(version, again).expect("still valid");
        assert_eq!(again.event_id(), pdu.event_id());
    }
}

/// Redaction keeps what identifies an event.
pub(crate) fn redaction(bytes: &[u8]) {
    let Some((version, bytes)) = version_and_rest(bytes) else { return };
    let Ok(object) = parse_object(version, bytes) else { return };
    let redacted = redact(version, object.clone());
    assert_eq!(redact(version, redacted.clone()), redacted);
    assert_eq!(reference_hash(version, &redacted), reference_hash(version, &object));
}

/// The authorisation rules on hostile events: an array of the event, then the room's state.
pub(crate) fn authorisation(bytes: &[u8]) {
    let Some((version, bytes)) = version_and_rest(bytes) else { return };
    let Ok(Value::Array(events)) = parse(version, bytes) else { return };
    let pdus = events.into_iter().enumerate().filter_map(|(index, event)| {
        let Value::Object(object) = event else { return None };
        let id = OwnedEventId::try_from(format!("${index}:fuzz")).expect("an event id");
        Pdu::from_trusted(version, id, object).ok().map(Arc::new)
    });
    let pdus: Vec<_> = pdus.collect();
    let Some((event, state)) = pdus.split_first() else { return };
    let find = |event_type: &str, state_key: &str| {
        let matches =
            |pdu: &&Arc<Pdu>| pdu.event_type() == event_type && pdu.state_key() == Some(state_key);
        state.iter().find(matches).cloned()
    };
    let _ = auth::check(version, event, &find);
    let (kind, sender, key) = (event.event_type(), event.sender(), event.state_key());
    let _ = auth::auth_types(version, kind, sender, key, event.content());
}
