//! What people do: what they may and what they may not, drawn from a seed.

use std::sync::Arc;

use bytes::Bytes;
use parlour_event::{
    Pdu, auth,
    content::{MemberContent, Membership},
    json::{self, Object},
    pdu::{EventReference, PduBuilder},
};
use parlour_storage::Direction;
use ruma::{OwnedEventId, OwnedUserId, UserId};

use super::{network::Rng, server::Server};
use crate::room::{
    messages::{Birth, Input, LocalEvent, RoomError},
    take_in::Fresh,
};

/// How many people a server has besides its admin.
const PEOPLE: u64 = 3;

pub(super) fn object(text: &str) -> Object {
    json::parse_strict(text.as_bytes()).unwrap().as_object().unwrap().clone()
}

fn local(sender: OwnedUserId, kind: &str, key: Option<String>, content: &str) -> LocalEvent {
    LocalEvent {
        sender,
        event_type: kind.to_owned(),
        state_key: key,
        content: object(content),
        redacts: None,
        transaction: None,
        timestamp: None,
    }
}

fn member(sender: OwnedUserId, target: &UserId, membership: &str) -> LocalEvent {
    let content = format!(r#"{{"membership":"{membership}"}}"#);
    local(sender, "m.room.member", Some(target.to_string()), &content)
}

impl Server {
    fn user_of(&self, place: usize, name: &str) -> OwnedUserId {
        UserId::parse(format!("@{name}:{}", self.common.names[place])).unwrap()
    }

    pub(super) fn admin(&self) -> OwnedUserId {
        self.user_of(self.place, "admin")
    }

    fn somebody(&self, place: usize, rng: &mut Rng) -> OwnedUserId {
        self.user_of(place, &format!("user{}", rng.below(PEOPLE)))
    }

    fn anywhere(&self, rng: &mut Rng) -> OwnedUserId {
        let place = rng.index(self.common.names.len());
        self.somebody(place, rng)
    }

    /// Power for the admins, and for some others.
    fn power_levels(&self, rng: &mut Rng) -> String {
        let rules = &self.common.version.rules().authorization;
        let first = usize::from(rules.explicitly_privilege_room_creators);
        let admins = (first..self.common.names.len())
            .map(|place| format!(r#""{}":100"#, self.user_of(place, "admin")));
        let some: Vec<_> = (0..rng.below(3)).map(|_| self.anywhere(rng)).collect();
        let levels = some.iter().enumerate().filter(|(at, user)| !some[..*at].contains(user));
        let others = levels.map(|(_, user)| format!(r#""{user}":50"#));
        let users: Vec<_> = admins.chain(others).collect();
        let state = rng.pick(&[0, 50]);
        format!(r#"{{"users":{{{}}},"state_default":{state},"invite":0}}"#, users.join(","))
    }

    /// The admin makes the room.
    pub(super) fn make_room(&mut self, rng: &mut Rng) {
        let (admin, version) = (self.admin(), self.common.version);
        let rules = &version.rules().authorization;
        let mut content = object(&format!(r#"{{"room_version":"{}"}}"#, version.id()));
        if !rules.use_room_create_sender {
            content.insert("creator".to_owned(), admin.to_string().into());
        }
        let with_id = !rules.room_create_event_id_as_room_id;
        let room = ruma::RoomId::parse(format!("!room:{}", self.name())).unwrap();
        let create = PduBuilder {
            room_id: with_id.then_some(room),
            sender: admin.clone(),
            event_type: "m.room.create".to_owned(),
            state_key: Some(String::new()),
            content,
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: 1,
            redacts: None,
            event_localpart: Some("create".to_owned()),
        };
        let create = create.build_and_sign(version, self.name(), self.signing_key()).unwrap();
        let create = Arc::new(create);
        let empty = || Some(String::new());
        let events = vec![
            member(admin.clone(), &admin, "join"),
            local(admin.clone(), "m.room.power_levels", empty(), &self.power_levels(rng)),
            local(admin, "m.room.join_rules", empty(), r#"{"join_rule":"public"}"#),
        ];
        self.open(create.room_id());
        let birth = Birth { create, events, alias: None, published: false, made_for: None };
        self.publish(Input::Birth(Box::new(birth)), None).unwrap();
        self.flush();
    }

    /// The admin opens the room to everybody.
    pub(super) fn open_doors(&mut self) {
        let content = r#"{"join_rule":"public"}"#;
        let event = local(self.admin(), "m.room.join_rules", Some(String::new()), content);
        self.publish(Input::Local(Box::new(event)), None).unwrap();
        self.flush();
    }

    /// Whether a server's admin is in the room, as far as this server knows.
    pub(super) fn knows_admin_of(&mut self, place: usize) -> bool {
        let admin = self.user_of(place, "admin");
        let Some(core) = &mut self.core else { return false };
        let member = core.state_event(core.state, "m.room.member", admin.as_str()).unwrap();
        let membership = |pdu: Arc<Pdu>| MemberContent::new(pdu.content()).membership();
        member.and_then(|(_, pdu)| membership(pdu)) == Some(Membership::Join)
    }

    /// The admin asks another server to be let into the room.
    pub(super) fn bring_admin(&mut self, through: usize) {
        self.join_through(through, member(self.admin(), &self.admin(), "join"));
    }

    /// The admin says something, if the rules allow it.
    pub(super) fn speak(&mut self) -> bool {
        let event = local(self.admin(), "m.room.message", None, r#"{"body":"all well"}"#);
        let is_said = self.publish(Input::Local(Box::new(event)), None).is_ok();
        self.flush();
        is_said
    }

    /// Somebody here does something.
    pub(super) fn act(&mut self, rng: &mut Rng) {
        if !self.is_in() {
            let through = rng.index(self.common.names.len());
            if through != self.place {
                self.bring_admin(through);
            }
            return;
        }
        if rng.percent(10) {
            return self.forge(rng);
        }
        let event = self.deed(rng);
        match self.publish(Input::Local(Box::new(event)), None) {
            Ok(_) | Err(RoomError::Forbidden(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Something that somebody may want to do.
    fn deed(&self, rng: &mut Rng) -> LocalEvent {
        let who = if rng.percent(25) { self.admin() } else { self.somebody(self.place, rng) };
        let number = rng.below(1_000);
        let empty = Some(String::new());
        match rng.below(100) {
            0..30 => local(who, "m.room.message", None, &format!(r#"{{"body":"{number}"}}"#)),
            30..42 => local(who, "m.room.topic", empty, &format!(r#"{{"topic":"{number}"}}"#)),
            42..60 => {
                let who = self.somebody(self.place, rng);
                member(who.clone(), &who, rng.pick(&["join", "join", "leave"]))
            }
            60..68 => member(who, &self.anywhere(rng), "invite"),
            68..84 => {
                let membership = rng.pick(&["ban", "leave", "leave"]);
                member(self.admin(), &self.anywhere(rng), membership)
            }
            84..90 => {
                let levels = self.power_levels(rng);
                local(self.admin(), "m.room.power_levels", empty, &levels)
            }
            // If others did, too, users would be out where they think they are in, and nobody would
            // tell them: see docs/testing.md.
            90..95 if self.place == 0 => {
                let rule = rng.pick(&["public", "invite"]);
                let content = format!(r#"{{"join_rule":"{rule}"}}"#);
                local(self.admin(), "m.room.join_rules", empty, &content)
            }
            // The last one here turns off the light.
            95..98 if self.place > 0 => member(self.admin(), &self.admin(), "leave"),
            _ => self.redaction(who, rng),
        }
    }

    /// Of anything but a redaction: in old room versions a redacted one does not say any more what
    /// it redacts, and is refused in versions 1 and 2 wherever it comes late.
    fn redaction(&self, who: OwnedUserId, rng: &mut Rng) -> LocalEvent {
        let target = self.some_event(rng);
        let num = self.placed(&target).unwrap();
        match self.stored(num).event_type() {
            "m.room.redaction" => local(who, "m.room.message", None, r#"{"body":"hm"}"#),
            _ => LocalEvent { redacts: Some(target), ..local(who, "m.room.redaction", None, "{}") },
        }
    }

    /// Any event of the room's history here.
    fn some_event(&self, rng: &mut Rng) -> OwnedEventId {
        let num = self.core.as_ref().unwrap().num;
        let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let graph = self.store.graph(num, all, Direction::Backward, 12).unwrap();
        // Not that which the room stands on: without its content it would have another version.
        let events = graph.into_iter().map(|(_, num)| self.stored(num));
        let ids = events.filter(|pdu| pdu.depth() > 1).map(|pdu| pdu.event_id().clone());
        let mut ids: Vec<_> = ids.collect();
        ids.extend(self.core.as_ref().unwrap().tips.iter().map(|tip| tip.event_id().clone()));
        rng.pick(&ids)
    }

    /// An event that this server signs without asking the rules, on some older event.
    fn forge(&mut self, rng: &mut Rng) {
        let event = self.deed(rng);
        let prev = self.stored(self.placed(&self.some_event(rng)).unwrap());
        let bytes = self.forged(event, &prev);
        if let Some(pdu) = self.common.check(&bytes) {
            self.take(pdu, self.place);
            let to = self.others();
            self.push(bytes, to);
        }
    }

    fn forged(&mut self, event: LocalEvent, prev: &Arc<Pdu>) -> Bytes {
        let (version, time) = (self.common.version, self.now);
        let core = self.core.as_mut().unwrap();
        let num = core.event_num(prev.event_id().as_str()).unwrap().unwrap();
        let meta = core.meta(num).unwrap();
        let mut fresh = Fresh::default();
        let state = match meta.state_key {
            Some(key) => core.insert(meta.state_before, key, num, &mut fresh).unwrap(),
            None => meta.state_before,
        };
        let types = auth::auth_types(
            version,
            &event.event_type,
            &event.sender,
            event.state_key.as_deref(),
            &event.content,
        );
        let auth_events = types
            .into_iter()
            .filter_map(|(kind, key)| core.state_event(state, kind, key).unwrap())
            .map(|(_, pdu)| EventReference::to(version, &pdu))
            .collect();
        core.release(fresh);
        let builder = PduBuilder {
            room_id: Some(core.room_id.clone()),
            sender: event.sender,
            event_type: event.event_type,
            state_key: event.state_key,
            content: event.content,
            prev_events: vec![EventReference::to(version, prev)],
            auth_events,
            depth: prev.depth() + 1,
            origin_server_ts: time,
            redacts: event.redacts,
            event_localpart: Some(format!("forged{time}x{}", self.place)),
        };
        let pdu = builder.build_and_sign(version, self.name(), self.signing_key());
        pdu.map_or_else(|_| Bytes::new(), |pdu| pdu.to_bytes().into())
    }
}
