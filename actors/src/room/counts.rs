//! Who is in the room, and from where: counted on as the state changes, by looking at those alone
//! whose membership has changed.

use std::collections::{BTreeMap, BTreeSet};

use parlour_event::{
    EventNum, StreamPos,
    json::Value,
    state::{ReadState as _, StateRoot},
};
use parlour_storage::schema::MembershipEntry;

use super::{
    change::{MemberChange, ServerChange},
    core::{RoomCore, Tip},
    guests::lets_guests_in,
    messages::RoomError,
};
use crate::words::words_of_user;

/// What the current state becomes.
pub(super) struct Outcome {
    pub(super) tips: Vec<Tip>,
    pub(super) state: StateRoot,
    pub(super) members: Vec<MemberChange>,
    pub(super) joined: u64,
    pub(super) invited: u64,
    pub(super) servers: BTreeMap<String, ServerChange>,
    pub(super) closes_to_guests: bool,
    /// Whether anybody may enter or read the room.
    pub(super) is_open: bool,
}

/// What a member event says.
struct Member {
    user: String,
    membership: String,
    name: Option<String>,
}

impl RoomCore {
    /// Counts members anew by looking at those whose membership changed alone.
    pub(super) fn membership_outcome(
        &mut self,
        tips: Vec<Tip>,
        state: StateRoot,
    ) -> Result<Outcome, RoomError> {
        let mut outcome = Outcome {
            tips,
            state,
            members: Vec::new(),
            joined: self.joined,
            invited: self.invited,
            servers: BTreeMap::new(),
            closes_to_guests: false,
            is_open: self.is_open,
        };
        if state == self.state {
            return Ok(outcome);
        }
        let mut may_open = false;
        for (key, old, new) in self.nodes.diff(self.state, state)? {
            if !key.is_member() {
                may_open |= self.may_open(old)? || self.may_open(new)?;
                outcome.closes_to_guests |=
                    self.is_open_to_guests(old)? && !self.is_open_to_guests(new)?;
                continue;
            }
            let old = old.map(|num| self.member(num)).transpose()?;
            let new_member = new.map(|num| self.member(num)).transpose()?;
            let was = old.as_ref().map_or("leave", |member| &member.membership);
            let is = new_member.as_ref().map_or("leave", |member| &member.membership);
            let Some(Member { user, name, .. }) = new_member.as_ref().or(old.as_ref()) else {
                continue;
            };
            count(&mut outcome.joined, was == "join", is == "join");
            count(&mut outcome.invited, was == "invite", is == "invite");
            let server = user.split_once(':').map_or("", |(_, server)| server).to_owned();
            let is_dismissed = matches!(was, "invite" | "knock") && matches!(is, "leave" | "ban");
            if (was == "join") != (is == "join") || is_dismissed {
                let change = self.server_change(&mut outcome.servers, &server);
                count(&mut change.joined, was == "join", is == "join");
                change.is_dismissed |= is_dismissed;
            }
            let entry = MembershipEntry {
                membership: is.to_owned(),
                event: new.unwrap_or_default(),
                pos: StreamPos(0),
            };
            let is_local = server == self.deps.server_name.as_str();
            let words = match is == "join" && !is_local {
                true => words_of_user(user, name.as_deref()),
                false => BTreeSet::new(),
            };
            let (user, was_joined) = (user.clone(), was == "join");
            outcome.members.push(MemberChange { user, is_local, was_joined, entry, words });
        }
        if may_open {
            outcome.is_open = self.is_open_in(state)?;
        }
        Ok(outcome)
    }

    fn is_open_to_guests(&mut self, num: Option<EventNum>) -> Result<bool, RoomError> {
        Ok(match num {
            Some(num) => lets_guests_in(&*self.event(num)?),
            None => false,
        })
    }

    fn server_change<'a>(
        &self,
        servers: &'a mut BTreeMap<String, ServerChange>,
        server: &str,
    ) -> &'a mut ServerChange {
        servers.entry(server.to_owned()).or_insert_with(|| {
            let before = self.servers.get(server).copied().unwrap_or_default();
            let is_local = server == self.deps.server_name.as_str();
            let server = server.to_owned();
            ServerChange { server, is_local, before, joined: before, is_dismissed: false }
        })
    }

    fn member(&mut self, num: EventNum) -> Result<Member, RoomError> {
        let pdu = self.event(num)?;
        let text = |field| pdu.content().get(field).and_then(Value::as_str).map(str::to_owned);
        Ok(Member {
            user: pdu.state_key().unwrap_or_default().to_owned(),
            membership: text("membership").unwrap_or_else(|| "leave".to_owned()),
            name: text("displayname"),
        })
    }
}

/// Moves a counter as somebody stops or starts to be counted.
fn count(counter: &mut u64, was: bool, is: bool) {
    match (was, is) {
        (false, true) => *counter += 1,
        (true, false) => *counter = counter.saturating_sub(1),
        _ => {}
    }
}
