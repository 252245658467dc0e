//! Rooms that the user has left, or was kicked or banned from.

use parlour_event::{StreamPos, content::Membership, state::StateRoot};
use ruma::api::client::sync::sync_events::v3::{LeftRoom, State, StateEvents};

use super::{
    Round,
    joined::{Window, last_departure, was_away},
    rooms::Relation,
};
use crate::view::{Fields, Reader, Seen, SyncToken, ViewError};

impl Round<'_> {
    /// The section of a room that the user is not in any more; `None` if the client knows that,
    /// or need not.
    pub(super) fn left(&self, relation: &Relation) -> Result<Option<LeftRoom>, ViewError> {
        let is_news = self.since().is_some() && relation.is_news();
        let is_wanted = self.wants_all() && self.ask.filter.room.include_leave;
        if !is_news && !is_wanted {
            return Ok(None);
        }
        let forgotten = self.view().has_forgotten(self.user(), relation.room.num)?;
        let had = matches!(
            relation.was(),
            Some(Membership::Join | Membership::Invite | Membership::Knock)
        );
        if forgotten {
            // Other devices must still learn that the user has gone, and no more than that.
            return if is_news && had { self.gone(relation).map(Some) } else { Ok(None) };
        }
        match self.departure(relation, is_news)? {
            Some((window, left)) => self.until_left(relation, &window, left).map(Some),
            None => self.gone(relation).map(Some),
        }
    }

    /// What of the room is new to the client, and when the user left; `None` if the user was not
    /// joined in that time.
    fn departure(
        &self,
        relation: &Relation,
        is_news: bool,
    ) -> Result<Option<(Window, StreamPos)>, ViewError> {
        let was_joined = relation.was() == Some(Membership::Join);
        let known = relation.then_member().filter(|_| is_news && was_joined).map(|(num, _)| num);
        let steps = self.view().steps(&relation.member, |step| Some(step.num) == known)?;
        let joined = steps.iter().position(|step| step.membership == Membership::Join);
        // The membership after the last join ended it; nothing later is for the user.
        let ended = joined.and_then(|index| steps.get(index.checked_sub(1)?));
        let Some(ended) = ended.filter(|ended| !is_news || self.since() < Some(ended.pos)) else {
            return Ok(None);
        };
        let until_joined = joined.and_then(|index| steps.get(index..)).unwrap_or_default();
        let (low, was_away) = (last_departure(until_joined), was_away(until_joined));
        let again = Window { low, base: StateRoot::EMPTY, whole: true, known: false, was_away };
        let window = match (self.since(), &relation.then) {
            (Some(since), Some(then)) if was_joined => Window {
                low: Some(since),
                base: then.at.state_after,
                whole: self.ask.full_state,
                known: true,
                was_away: false,
            },
            // All state once more, but of the events none that the client has.
            (since, _) if !is_news => Window { low: since, known: since.is_some(), ..again },
            _ => again,
        };
        Ok(Some((window, ended.pos)))
    }

    fn until_left(
        &self,
        relation: &Relation,
        window: &Window,
        left: StreamPos,
    ) -> Result<LeftRoom, ViewError> {
        let (view, ask, num) = (self.view(), self.ask, relation.room.num);
        let mut reader = Reader::new(view, relation.room.clone(), &ask.user, Some(&ask.device))?;
        let mut timeline = self.timeline(&mut reader, window.low, left)?;
        if window.has_gap() {
            timeline.begin_after_gap(left);
        }
        let end = view.room_at(num, left)?.map_or(StateRoot::EMPTY, |(_, at)| at.state_after);
        if !ask.state_after {
            self.cut_stale_state(&mut timeline, end)?;
        }
        let span = self.span(relation, window, end, &timeline)?;
        let changed = self.changed(&span)?;
        let mut room = LeftRoom::new();
        room.state = self.state(&mut reader, &span, changed, &[])?;
        room.timeline = timeline.into_section();
        room.account_data.events = self.room_account_data(relation, window.known)?;
        Ok(room)
    }

    /// A room of which the user sees no more than the own leave: a rejected invite, for example.
    fn gone(&self, relation: &Relation) -> Result<LeftRoom, ViewError> {
        let (view, ask, event) = (self.view(), self.ask, &relation.member);
        let mut reader = Reader::new(view, relation.room.clone(), &ask.user, Some(&ask.device))?;
        let mut room = LeftRoom::new();
        if ask.state_after {
            room.state = State::After(StateEvents::new());
        }
        let (fields, filter) = (Fields::of(event)?, self.timeline_filter());
        if filter.wants_room(&relation.room.room_id) && filter.wants(&fields) {
            let seen = Seen { visible: true, membership: Some(relation.membership) };
            let json = self.shape.timeline_event(&mut reader, event, &fields, seen)?;
            let before = StreamPos(event.meta.pos.0.saturating_sub(1));
            room.timeline.events.push(json);
            room.timeline.prev_batch = Some(SyncToken::at(before).to_string());
        }
        Ok(room)
    }
}
