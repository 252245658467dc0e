//! A user of a played server in a room of the target.

use http::Method;
use parlour_event::{
    Pdu, RoomVersion,
    json::{self, Object, Value},
    pdu::{EventReference, PduBuilder},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};

use super::Remote;
use crate::{clock, error::Failure, session::part};

/// How many events one event follows at most.
const MAX_PREV: usize = 10;

/// Where new events are put: what they follow, and how deep that is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) follows: Vec<OwnedEventId>,
    pub(crate) depth: u64,
}

impl Place {
    /// The place behind one event.
    pub(crate) fn behind(event: &Pdu) -> Self {
        Self { follows: vec![event.event_id().clone()], depth: event.depth() }
    }

    /// Another place becomes a part of this one: what `old` has followed is followed by it now.
    pub(crate) fn advance(&mut self, old: &Self, newest: &Pdu) {
        self.follows.retain(|id| !old.follows.contains(id));
        self.follows.push(newest.event_id().clone());
        let surplus = self.follows.len().saturating_sub(MAX_PREV);
        self.follows.drain(..surplus);
        self.depth = self.depth.max(newest.depth());
    }
}

/// Somebody who has joined.
pub(crate) struct Member {
    pub(crate) remote: Remote,
    version: &'static RoomVersion,
    room_id: OwnedRoomId,
    pub(crate) user_id: OwnedUserId,
    create: OwnedEventId,
    /// The power levels at the time of the join.
    pub(crate) power_levels: Pdu,
    /// The join itself.
    pub(crate) join: Pdu,
}

impl Member {
    /// Joins a public room, by `make_join` and `send_join`.
    pub(crate) async fn join(mut remote: Remote, room: &str) -> Result<Self, Failure> {
        let user = remote.identity.user();
        let versions = RoomVersion::all().iter().map(|version| format!("&ver={}", version.id()));
        let versions: String = versions.collect();
        let (room_part, user_part) = (part(room), part(&user));
        let path = format!(
            "/_matrix/federation/v1/make_join/{room_part}/{user_part}?{}",
            versions.trim_start_matches('&')
        );
        let offer = remote.ask(Method::GET, &path, Vec::new()).await?;
        let offer = parse(&offer)?;
        let version = offer.get("room_version").and_then(Value::as_str).unwrap_or("1");
        let version = RoomVersion::parse(version)
            .ok_or_else(|| Failure::Nonsense(format!("the room version {version}")))?;
        let template = offer.get("event").and_then(Value::as_object).cloned();
        let mut template = template.ok_or_else(|| Failure::Nonsense("no template".to_owned()))?;
        template.insert("origin_server_ts".to_owned(), Value::Integer(clock::unix_millis() as i64));
        let identity = remote.identity.clone();
        let join = Pdu::hash_and_sign(version, template, &identity.name, &identity.key)
            .map_err(Failure::nonsense)?;
        let event_part = part(join.event_id().as_str());
        let path = format!("/_matrix/federation/v2/send_join/{room_part}/{event_part}");
        let answer = remote.ask(Method::PUT, &path, bytes(join.json())).await?;
        let answer = parse(&answer)?;
        Self::set_up(remote, version, (room, &user), join, &answer)
    }

    fn set_up(
        remote: Remote,
        version: &'static RoomVersion,
        (room, user): (&str, &str),
        join: Pdu,
        answer: &Object,
    ) -> Result<Self, Failure> {
        let state = answer.get("state").and_then(Value::as_array).unwrap_or_default();
        let find = |kind: &str| {
            let mut events = state.iter().filter_map(Value::as_object);
            let found =
                events.find(|event| event.get("type").and_then(Value::as_str) == Some(kind));
            let found =
                found.ok_or_else(|| Failure::Nonsense(format!("a state without {kind}")))?;
            Pdu::from_wire(version, found.clone()).map_err(Failure::nonsense)
        };
        let create = find("m.room.create")?.event_id().clone();
        Ok(Self {
            create,
            power_levels: find("m.room.power_levels")?,
            remote,
            version,
            room_id: room.try_into().map_err(Failure::nonsense)?,
            user_id: user.try_into().map_err(Failure::nonsense)?,
            join,
        })
    }

    /// The place behind the join.
    pub(crate) fn place(&self) -> Place {
        Place::behind(&self.join)
    }

    /// A signed event of this user. `allowed_by` are the power levels and the member event that it
    /// names, beside the create event.
    pub(crate) fn event(
        &self,
        (kind, state_key): (&str, Option<&str>),
        content: Object,
        place: &Place,
        allowed_by: &[OwnedEventId],
    ) -> Result<Pdu, Failure> {
        let names_create = !self.version.rules().authorization.room_create_event_id_as_room_id;
        let create = names_create.then(|| self.create.clone());
        let auth_events = create.into_iter().chain(allowed_by.iter().cloned());
        let builder = PduBuilder {
            room_id: Some(self.room_id.clone()),
            sender: self.user_id.clone(),
            event_type: kind.to_owned(),
            state_key: state_key.map(ToOwned::to_owned),
            content,
            prev_events: place.follows.iter().cloned().map(EventReference::from).collect(),
            auth_events: auth_events.map(EventReference::from).collect(),
            depth: place.depth + 1,
            origin_server_ts: clock::unix_millis(),
            redacts: None,
            event_localpart: None,
        };
        let identity = &self.remote.identity;
        builder
            .build_and_sign(self.version, &identity.name, &identity.key)
            .map_err(Failure::nonsense)
    }

    /// Sends a transaction, and gives the ids of the events that the target refuses.
    pub(crate) async fn transact(
        &mut self,
        id: &str,
        pdus: &[Pdu],
    ) -> Result<Vec<String>, Failure> {
        let events = pdus.iter().map(|pdu| Value::Object(pdu.json().clone())).collect();
        let body = Object::from([
            ("origin".to_owned(), self.remote.identity.name.as_str().into()),
            ("origin_server_ts".to_owned(), Value::Integer(clock::unix_millis() as i64)),
            ("pdus".to_owned(), Value::Array(events)),
        ]);
        let path = format!("/_matrix/federation/v1/send/{}", part(id));
        let answer = parse(&self.remote.ask(Method::PUT, &path, bytes(&body)).await?)?;
        let results = answer.get("pdus").and_then(Value::as_object).cloned().unwrap_or_default();
        let refused = results.into_iter().filter(|(_, result)| result.get("error").is_some());
        Ok(refused.map(|(id, _)| id).collect())
    }
}

/// An object of the events' JSON, from that of all others.
pub(crate) fn object(value: &serde_json::Value) -> Result<Object, Failure> {
    parse(value.to_string().as_bytes())
}

fn parse(bytes: &[u8]) -> Result<Object, Failure> {
    let value = json::parse_lax(bytes).map_err(Failure::nonsense)?;
    value.as_object().cloned().ok_or_else(|| Failure::Nonsense("no object".to_owned()))
}

fn bytes(object: &Object) -> Vec<u8> {
    json::to_canonical(&Value::Object(object.clone()))
}
