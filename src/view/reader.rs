//! One user's eyes on one room.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parlour_event::{
    EventNum, RoomNum, StateKeyNum, StreamPos,
    content::Membership,
    state::{ReadState as _, StateRoot},
    visibility::{self, AtEvent, HistoryVisibility},
};
use parlour_storage::schema::{EventMeta, StoredEvent};
use ruma::{DeviceId, OwnedUserId, UserId};
use serde::Deserialize;

use super::{Fields, Ignored, RoomView, View, ViewError};

/// How far back a user's memberships are followed to find the last join. Only invites, knocks,
/// bans and leaves count here; who had more of them than that since the last join sees less.
const MAX_MEMBERSHIPS: usize = 50;

/// Depth and position: an event's place in the room's history.
pub(super) type Place = (u64, StreamPos);

/// When the user was joined for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastJoin {
    /// The user never was.
    Never,
    /// Until the event at this place.
    Ended(Place),
    /// The user is now.
    Now,
}

/// What a reader is to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether the reader may see it.
    pub visible: bool,
    /// The reader's membership at the event, for `unsigned`.
    pub membership: Option<Membership>,
}

/// Judges events of one room for one user. Remembers what it has looked up, so make one per
/// request and room.
#[derive(Debug)]
pub struct Reader {
    view: View,
    room: RoomView,
    user: OwnedUserId,
    device: Option<String>,
    pub(super) visibility_key: Option<StateKeyNum>,
    pub(super) member_key: Option<StateKeyNum>,
    by_state: HashMap<StateRoot, (HistoryVisibility, Option<Membership>)>,
    // States differ more often than the events in them that matter here.
    visibilities: HashMap<EventNum, HistoryVisibility>,
    memberships: HashMap<EventNum, Option<Membership>>,
    /// Whether senders have been erased.
    pub(super) erased: HashMap<String, bool>,
    /// Whether anybody has been; looked up when needed.
    pub(super) anybody_erased: Option<bool>,
    /// Looked up when needed.
    last_join: Option<LastJoin>,
    /// Whom the user ignores; looked up when needed.
    ignored: Option<Arc<Ignored>>,
    /// Events that are known to have children to aggregate.
    pub(super) parents: HashSet<EventNum>,
}

#[derive(Deserialize)]
struct VisibilityContent<'a> {
    #[serde(borrow)]
    history_visibility: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MemberContent<'a> {
    #[serde(borrow)]
    membership: Cow<'a, str>,
}

impl Reader {
    /// A user (and device, if it is known) who reads a room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn new(
        view: &View,
        room: RoomView,
        user: &UserId,
        device: Option<&DeviceId>,
    ) -> Result<Self, ViewError> {
        let member_key = match view.has_forgotten(user.as_str(), room.num)? {
            // Who has forgotten a room is a stranger to it.
            true => None,
            false => view.store.state_key_num("m.room.member", user.as_str())?,
        };
        Ok(Self {
            visibility_key: view.store.state_key_num("m.room.history_visibility", "")?,
            member_key,
            view: view.clone(),
            room,
            user: user.to_owned(),
            device: device.map(ToString::to_string),
            by_state: HashMap::new(),
            visibilities: HashMap::new(),
            memberships: HashMap::new(),
            erased: HashMap::new(),
            anybody_erased: None,
            last_join: None,
            ignored: None,
            parents: HashSet::new(),
        })
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomView {
        &self.room
    }

    /// What it reads with.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn room_id(&self) -> &str {
        self.room.room_id.as_str()
    }

    /// The user id.
    #[must_use]
    pub fn user(&self) -> &str {
        self.user.as_str()
    }

    /// The device id.
    #[must_use]
    pub fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// Whom the user ignores.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn ignored(&mut self) -> Result<Arc<Ignored>, ViewError> {
        if let Some(known) = &self.ignored {
            return Ok(known.clone());
        }
        let ignored = Arc::new(self.view.ignored_by(&self.user)?);
        self.ignored = Some(ignored.clone());
        Ok(ignored)
    }

    /// The user's membership in a state.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn membership_in(&mut self, state: StateRoot) -> Result<Option<Membership>, ViewError> {
        Ok(self.around(state)?.1)
    }

    /// The history visibility in a state.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn visibility_in(&mut self, state: StateRoot) -> Result<HistoryVisibility, ViewError> {
        Ok(self.around(state)?.0)
    }

    /// Judges an event.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn judge(&mut self, event: &StoredEvent) -> Result<Seen, ViewError> {
        self.judge_at(event, &event.meta, event.meta.flags.is_visible())
    }

    /// What the reader is to a state event of which another one has taken the place. Around an
    /// outlier no state is known: what it said may be known to those who may see what is as old
    /// as the change.
    pub(super) fn judge_replaced(
        &mut self,
        event: &StoredEvent,
        by: &StoredEvent,
    ) -> Result<Seen, ViewError> {
        match event.meta.flags.outlier {
            true => self.judge_at(event, &by.meta, true),
            false => self.judge(event),
        }
    }

    /// What the reader would be to an event that stood where another one does.
    fn judge_at(
        &mut self,
        event: &StoredEvent,
        place: &EventMeta,
        is_open: bool,
    ) -> Result<Seen, ViewError> {
        let (visibility, membership) = self.around(place.state_before)?;
        let mut visibility = AtEvent::unchanged(visibility);
        let mut membership = AtEvent::unchanged(membership);
        if event.meta.state_key.is_some() && !event.meta.flags.rejected {
            if event.meta.state_key == self.visibility_key {
                visibility.after = visibility_of(event)?;
            } else if event.meta.state_key == self.member_key {
                membership.after = membership_of(event)?;
            }
        }
        let visible = is_open
            && !event.meta.flags.withheld
            && event.meta.room == self.room.num
            && (visibility::may_see(visibility, membership, false)
                || (visibility::may_see(visibility, membership, true)
                    && self.joined_since((place.depth, place.pos))?));
        Ok(Seen { visible, membership: membership.after.or(Some(Membership::Leave)) })
    }

    fn around(
        &mut self,
        state: StateRoot,
    ) -> Result<(HistoryVisibility, Option<Membership>), ViewError> {
        if let Some(known) = self.by_state.get(&state) {
            return Ok(*known);
        }
        let visibility = self.num_in(state, self.visibility_key)?;
        let visibility = visibility.map(|num| self.visibility_by(num)).transpose()?;
        let membership = self.num_in(state, self.member_key)?;
        let membership = membership.map(|num| self.membership_by(num)).transpose()?.flatten();
        let found = (visibility.unwrap_or_default(), membership);
        self.by_state.insert(state, found);
        Ok(found)
    }

    fn visibility_by(&mut self, num: EventNum) -> Result<HistoryVisibility, ViewError> {
        if let Some(known) = self.visibilities.get(&num) {
            return Ok(*known);
        }
        let event = self.view.store.event(num)?;
        let visibility = event.as_ref().map(visibility_of).transpose()?.unwrap_or_default();
        self.visibilities.insert(num, visibility);
        Ok(visibility)
    }

    fn membership_by(&mut self, num: EventNum) -> Result<Option<Membership>, ViewError> {
        if let Some(known) = self.memberships.get(&num) {
            return Ok(*known);
        }
        let event = self.view.store.event(num)?;
        let membership = event.as_ref().map(membership_of).transpose()?.flatten();
        self.memberships.insert(num, membership);
        Ok(membership)
    }

    pub(super) fn num_in(
        &self,
        state: StateRoot,
        key: Option<StateKeyNum>,
    ) -> Result<Option<EventNum>, ViewError> {
        let Some(key) = key else { return Ok(None) };
        Ok(self.view.nodes.get(state, key)?)
    }

    /// Whether the user was joined at some time after a place. Compared in the order of history,
    /// since older history may arrive late.
    fn joined_since(&mut self, place: Place) -> Result<bool, ViewError> {
        Ok(match self.last_join()? {
            LastJoin::Never => false,
            LastJoin::Ended(end) => place < end,
            LastJoin::Now => true,
        })
    }

    /// When the user was joined for the last time.
    pub(super) fn last_join(&mut self) -> Result<LastJoin, ViewError> {
        if let Some(known) = self.last_join {
            return Ok(known);
        }
        let found = self.find_last_join()?;
        self.last_join = Some(found);
        Ok(found)
    }

    fn find_last_join(&self) -> Result<LastJoin, ViewError> {
        let mut state = self.room.head.state;
        let mut ended = None;
        for _ in 0..MAX_MEMBERSHIPS {
            let Some(num) = self.num_in(state, self.member_key)? else { break };
            let Some(event) = self.view.store.event(num)? else { break };
            if membership_of(&event)? == Some(Membership::Join) {
                return Ok(ended.map_or(LastJoin::Now, LastJoin::Ended));
            }
            ended = Some((event.meta.depth, event.meta.pos));
            state = event.meta.state_before;
        }
        Ok(LastJoin::Never)
    }
}

impl View {
    /// Whether a user has forgotten a room and not come back to it.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn has_forgotten(&self, user: &str, room: RoomNum) -> Result<bool, ViewError> {
        let Some(forgotten) = self.store.forgotten(user, room)? else { return Ok(false) };
        let membership = self.store.membership(user, room)?;
        Ok(membership.is_none_or(|membership| membership.pos <= forgotten))
    }
}

/// The setting in a `m.room.history_visibility` event.
pub(super) fn visibility_of(event: &StoredEvent) -> Result<HistoryVisibility, ViewError> {
    let fields = Fields::of(event)?;
    let content = fields.content_as::<VisibilityContent<'_>>();
    Ok(content.map_or_else(
        |_| HistoryVisibility::default(),
        |content| HistoryVisibility::from_text(&content.history_visibility),
    ))
}

/// The `membership` of a member event; `None` if it has none that is known.
pub(super) fn membership_of(event: &StoredEvent) -> Result<Option<Membership>, ViewError> {
    let fields = Fields::of(event)?;
    let content = fields.content_as::<MemberContent<'_>>();
    Ok(content.ok().and_then(|content| Membership::parse(&content.membership)))
}
