//! The same question to the crate `ruma-state-res`, and where its answer differs on purpose.

use std::sync::Arc;

use parlour_event::{Pdu, auth};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
};
use ruma_state_res::{Event, check_state_dependent_auth_rules, check_state_independent_auth_rules};
use serde_json::{json, value::RawValue};

use crate::support::*;

/// One of our events in the form that the crate reads.
pub(crate) struct Theirs {
    pdu: Arc<Pdu>,
    event_type: TimelineEventType,
    content: Box<RawValue>,
    auth_events: Vec<OwnedEventId>,
    rejected: bool,
}

impl Theirs {
    pub(crate) fn new(pdu: &Arc<Pdu>) -> Self {
        let event_type = TimelineEventType::from(pdu.event_type());
        let content = serde_json::value::to_raw_value(pdu.content()).unwrap();
        let auth_events = pdu.auth_events().to_vec();
        Self { pdu: pdu.clone(), event_type, content, auth_events, rejected: false }
    }
}

impl Event for Theirs {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        self.pdu.event_id()
    }

    fn room_id(&self) -> Option<&RoomId> {
        // The create event of a version 12 room has none: its id is made up from the event's.
        self.pdu.json().contains_key("room_id").then(|| &**self.pdu.room_id())
    }

    fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.pdu.origin_server_ts()))
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.pdu.prev_events().iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.pdu.redacts()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The crate's verdict on what [`auth::check`] decides.
pub(crate) fn check(room: &Room, event: &Arc<Pdu>) -> Result<(), String> {
    let rules = &room.version.rules().authorization;
    let event = Theirs::new(event);
    // For the crate, the rule on create events is one that does not depend on the state.
    if event.event_type == TimelineEventType::RoomCreate {
        return check_state_independent_auth_rules(rules, event, |_| None::<Theirs>);
    }
    check_state_dependent_auth_rules(rules, event, |event_type: &StateEventType, state_key| {
        room.state.get(&(event_type.to_string(), state_key.to_owned())).map(Theirs::new)
    })
}

/// The crate's verdict on what [`auth::check_auth_events`] decides.
pub(crate) fn check_auth_events(
    room: &Room,
    event: &Arc<Pdu>,
    auth_events: &[(Arc<Pdu>, bool)],
) -> Result<(), String> {
    let mut event = Theirs::new(event);
    event.auth_events = auth_events.iter().map(|(pdu, _)| pdu.event_id().clone()).collect();
    let create = &room.state[&("m.room.create".to_owned(), String::new())];
    let fetch = |id: &EventId| {
        let listed = auth_events.iter().find(|(pdu, _)| pdu.event_id() == id);
        let (pdu, rejected) = listed.cloned().or_else(|| {
            // In version 12 the crate looks for the create event in the same place.
            (create.event_id() == id).then(|| (create.clone(), false))
        })?;
        Some(Theirs { rejected, ..Theirs::new(&pdu) })
    };
    check_state_independent_auth_rules(&room.version.rules().authorization, event, fetch)
}

/// Where we differ, and why: the words of the specification, the event, and our verdict; the
/// crate's is the opposite. The generated cases leave these forms out.
#[test]
fn deliberate_differences() {
    for v in 1..=12 {
        for (words, room, draft, ours) in
            differences_in_levels(v).into_iter().chain(differences_elsewhere(v))
        {
            let event = Arc::new(draft.build(room.version, "$event"));
            let our_verdict = auth::check(room.version, &event, &room);
            assert_eq!(our_verdict.is_ok(), ours, "version {v}: {words}: {our_verdict:?}");
            let theirs = check(&room, &event);
            assert_eq!(theirs.is_ok(), !ours, "version {v}: no difference in {words}: {theirs:?}");
        }
    }
}

type Difference = (&'static str, Room, Draft, bool);

fn differences_in_levels(v: u8) -> Vec<Difference> {
    let levels = |content| state(ALICE, "m.room.power_levels", "", content);
    let room = || Room::joined(v);
    let leveled = |content: Json| room().member(BOB, "join").levels(content);
    let mut cases = Vec::new();
    if v < 6 {
        cases.push((
            "the rule on changes of `notifications` is \"changed in version 6\": before, the \
             property is not looked at",
            leveled(json!({ "users": { ALICE: 100 } })),
            levels(json!({ "users": { ALICE: 100 }, "notifications": "x" })),
            true,
        ));
        cases.push((
            "\"the value is truncated at the decimal point: 51146.98 becomes 51146\"",
            room(),
            levels(json!({ "users": { BOB: 50.57 } })),
            true,
        ));
    }
    if v < 10 {
        cases.push((
            "before version 10 only `users` must be well-formed; \"If there is no previous \
             m.room.power_levels event in the room, allow.\"",
            room(),
            levels(json!({ "ban": "x", "events": 5 })),
            true,
        ));
        cases.push((
            "\"If the event type's required power level is greater\": another type's level that \
             is no integer is not that level",
            leveled(json!({ "events": { "m.other": "x" } })),
            message(BOB, "m.room.message", json!({})),
            true,
        ));
        cases.push((
            "\"optionally prefixed with a single - or + character\"",
            room(),
            levels(json!({ "users": { BOB: "++5" } })),
            false,
        ));
    }
    cases
}

fn differences_elsewhere(v: u8) -> Vec<Difference> {
    let create = |content| state(ALICE, "m.room.create", "", content);
    let mut cases = vec![
        (
            "\"If content.room_version is present and is not a recognised version, reject.\" (The \
             crate leaves this to its caller.)",
            Room::new(v),
            create(json!({ "creator": ALICE, "room_version": "x" })).after(&[]),
            false,
        ),
        (
            "\"has the property m.federate set to false\": no other value closes the room",
            Room::created(v, create(json!({ "creator": ALICE, "m.federate": "x" })))
                .member(ALICE, "join"),
            message(ALICE, "m.room.message", json!({})),
            true,
        ),
        (
            "the specification is silent on rooms without join rules; Synapse and Dendrite take \
             `invite`, and a member must be able to change their name there",
            Room::joined(v),
            member(ALICE, ALICE, "join"),
            true,
        ),
        (
            "\"If content has a third_party_invite property\", be it null: \"does not have a \
             signed property, reject\"",
            Room::joined(v),
            state(
                ALICE,
                "m.room.member",
                BOB,
                json!({ "membership": "invite", "third_party_invite": null }),
            ),
            false,
        ),
    ];
    if v < 11 {
        cases.push((
            "\"If content has no creator property, reject.\": null is a property",
            Room::new(v),
            create(json!({ "creator": null })).after(&[]),
            true,
        ));
    }
    if v >= 8 {
        cases.push((
            "\"If content has a join_authorised_via_users_server property: If the event is not \
             validly signed by the homeserver of the user ID denoted by the key, reject.\" Nobody \
             is denoted. (The crate leaves this to the check of signatures.)",
            Room::joined(v).join_rule("public"),
            state(
                BOB,
                "m.room.member",
                BOB,
                json!({ "membership": "join", "join_authorised_via_users_server": 5 }),
            ),
            false,
        ));
    }
    cases
}

/// "If *any* signature in signed matches *any* public key": what is malformed beside them does not
/// matter to us; to the crate it does.
#[test]
fn deliberate_difference_in_third_party_invites() {
    let mut signed = crate::third_party::signed(BOB, "tok", 1);
    signed["signatures"]["a"] = json!("noise");
    let content = json!({ "membership": "invite", "third_party_invite": { "signed": signed } });
    let keys = json!({ "public_key": crate::third_party::public(1) });
    for v in 1..=12 {
        let room =
            Room::joined(v).with(state(ALICE, "m.room.third_party_invite", "tok", keys.clone()));
        let event =
            state(ALICE, "m.room.member", BOB, content.clone()).build(room.version, "$event");
        let event = Arc::new(event);
        assert_eq!(auth::check(room.version, &event, &room), Ok(()));
        assert!(check(&room, &event).is_err());
    }
}
