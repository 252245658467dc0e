//! Whether anybody may enter or read the room: then whoever is in it may be found by everybody.

use bytes::Bytes;
use parlour_event::{
    EventNum, StreamPos,
    content::{JoinRule, JoinRulesContent},
    state::StateRoot,
    visibility::HistoryVisibility,
};
use parlour_storage::{
    Op,
    schema::{PeopleNews, Stored as _, people},
};

use super::{
    change::{EventChange, MemberChange, Stage},
    core::RoomCore,
    messages::RoomError,
};

const RULES: &str = "m.room.join_rules";
const VISIBILITY: &str = "m.room.history_visibility";

impl RoomCore {
    /// Whether a state event has a say in it.
    pub(super) fn may_open(&mut self, num: Option<EventNum>) -> Result<bool, RoomError> {
        let Some(num) = num else { return Ok(false) };
        Ok(matches!(self.event(num)?.event_type(), RULES | VISIBILITY))
    }

    /// Whether anybody may enter or read the room in a state.
    pub(super) fn is_open_in(&mut self, state: StateRoot) -> Result<bool, RoomError> {
        let rules = self.state_event(state, RULES, "")?;
        let rules = JoinRulesContent::new(rules.as_ref().map(|(_, rules)| rules.content()));
        if rules.join_rule() == JoinRule::Public {
            return Ok(true);
        }
        let visibility = self.state_event(state, VISIBILITY, "")?;
        let content = visibility.as_ref().map(|(_, visibility)| visibility.content());
        Ok(HistoryVisibility::from_content(content) == HistoryVisibility::WorldReadable)
    }
}

impl EventChange {
    /// Notes that the room is open or closed now, and who may be found by everybody or not any more.
    pub(super) fn write_people(&self, pos: StreamPos, ops: &mut Vec<Op>) {
        if self.turns() {
            let key = people::open_room(self.room);
            ops.push(match self.is_open {
                true => Op::Put { key, value: Bytes::new() },
                false => Op::Delete { key },
            });
        }
        if let Some(news) = self.people_news() {
            ops.push(Op::Put { key: people::news(pos), value: news.encode() });
        }
    }

    /// Whether the room opens or closes.
    fn turns(&self) -> bool {
        match self.stage {
            Stage::Unborn => false,
            Stage::Birth(_) => self.is_open,
            Stage::Grown => self.is_open != self.was_open,
        }
    }

    /// Who may be found by everybody now, or not any more.
    pub(super) fn people_news(&self) -> Option<PeopleNews> {
        if matches!(self.stage, Stage::Unborn) || !(self.is_open || self.was_open) {
            return None;
        }
        let turns = self.turns();
        // When the room opens or closes, all of its members are looked at.
        let is_concerned = |member: &&MemberChange| match member.comes_or_goes() {
            Some(is_joined) => !(turns && is_joined),
            // Users of other servers are found by what they are called here.
            None => !turns && !member.is_local && member.entry.membership == "join",
        };
        let concerned = self.members.iter().filter(is_concerned);
        let users: Vec<_> = concerned.map(|member| member.user.clone()).collect();
        let rooms = if turns { vec![self.room] } else { Vec::new() };
        (turns || !users.is_empty()).then_some(PeopleNews { rooms, users })
    }
}
