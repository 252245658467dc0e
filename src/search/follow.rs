//! How what happens in rooms gets into the index: by a reader that follows behind.

use std::{mem, ops::Bound, sync::Arc, time::Duration};

use parlour_actors::changes::Changes;
use parlour_event::{EventNum, RoomNum, StreamPos};
use parlour_storage::{
    Direction,
    schema::{EventMeta, RoomHead, Stored as _, StoredEvent, keys, keys::KeyReader},
};
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::{
    Field, SearchError, TextIndex,
    index::{Change, Entry},
};
use crate::{
    server::Shutdown,
    view::{Fields, View, ViewError},
};

/// How long the reader lets things come together, unless somebody searches.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a search waits for the reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many events are read at once.
const BATCH: usize = 256;

/// How many changes are made at once: each transaction of the index has its price, and searches
/// wait for it.
const CHANGES: usize = 2_048;

/// How many bytes of text are put in at once.
const TEXT: usize = 1 << 20;

/// How many rooms are looked at at once, when it is not known which have changed.
const ROOMS: usize = 1_000;

/// After how many positions the reader notes how far it is, while it catches up.
const SLICE: u64 = 100_000;

/// The longest text that is indexed, in bytes; of longer ones the beginning.
const MAX_TEXT: usize = 16 << 10;

/// Keeps the index up to date. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Follower {
    view: View,
    index: Arc<TextIndex>,
    changes: Arc<Changes>,
    /// Somebody searches.
    hurry: Arc<Notify>,
    /// Everything up to here is in the index.
    reached: watch::Sender<StreamPos>,
}

/// Changes of the index that come together, whichever rooms they are of.
#[derive(Debug)]
struct Gathered<'a> {
    index: &'a TextIndex,
    /// Events that are not looked at yet.
    events: Vec<EventNum>,
    changes: Vec<Change>,
    /// How much text is in them.
    bytes: usize,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    body: Option<String>,
    #[serde(rename = "m.relates_to", default)]
    relates_to: Option<Relation>,
    #[serde(rename = "m.new_content", default)]
    new_content: Option<NewContent>,
}

#[derive(Deserialize)]
struct Relation {
    #[serde(default)]
    rel_type: Option<String>,
    #[serde(default)]
    event_id: Option<String>,
}

#[derive(Deserialize)]
struct NewContent {
    #[serde(default)]
    body: Option<String>,
}

#[derive(Deserialize)]
struct Name {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    topic: Option<String>,
    #[serde(rename = "m.topic", default)]
    rich: Option<RichTopic>,
}

#[derive(Deserialize)]
struct RichTopic {
    #[serde(rename = "m.text", default)]
    forms: Vec<TextForm>,
}

#[derive(Deserialize)]
struct TextForm {
    body: String,
    #[serde(default)]
    mimetype: Option<String>,
}

impl Follower {
    /// Follows what `changes` tell of.
    #[must_use]
    pub fn new(view: View, index: Arc<TextIndex>, changes: Arc<Changes>) -> Self {
        let reached = watch::Sender::new(StreamPos(0));
        Self { view, index, changes, hurry: Arc::default(), reached }
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Arc<TextIndex> {
        &self.index
    }

    /// Follows until the server stops.
    pub async fn run(self, shutdown: Shutdown) {
        let mut moved = self.changes.subscribe();
        loop {
            let step = async {
                let now = *moved.borrow_and_update();
                let is_there = *self.reached.borrow() >= now;
                if is_there && moved.changed().await.is_err() {
                    shutdown.requested().await;
                }
                drop(tokio::time::timeout(PAUSE, self.hurry.notified()).await);
            };
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                () = step => {}
            }
            let (follower, stop) = (self.clone(), shutdown.clone());
            let done = self.view.threads().block(move || follower.catch_up(&stop)).await;
            match done {
                Some(Ok(())) => {}
                Some(Err(_)) | None if shutdown.is_requested() => return,
                Some(Err(error)) => self.recover(&error),
                None => tracing::error!("the reader of the search index panicked"),
            }
        }
    }

    /// Waits until everything up to a position is in the index, but not for long.
    pub async fn reach(&self, pos: StreamPos) {
        self.hurry.notify_one();
        let mut reached = self.reached.subscribe();
        drop(tokio::time::timeout(PATIENCE, reached.wait_for(|reached| *reached >= pos)).await);
    }

    fn recover(&self, error: &SearchError) {
        tracing::error!(%error, "the search index cannot follow the rooms");
        if matches!(error, SearchError::Database(_)) {
            match self.index.clear() {
                Ok(()) => tracing::warn!("the search index is built anew"),
                Err(error) => tracing::error!(%error, "the search index cannot be built anew"),
            }
        }
    }

    /// Brings the index up to what is now.
    fn catch_up(&self, stop: &Shutdown) -> Result<(), SearchError> {
        let mut pos = self.index.position()?;
        let now = self.changes.current();
        let mut gathered = Gathered::new(&self.index);
        while pos < now && !stop.is_requested() {
            let until = match self.changes.rooms_since(pos) {
                Some(rooms) => {
                    for room in rooms {
                        self.follow(room, pos, now, &mut gathered)?;
                    }
                    now
                }
                None => {
                    let until = now.min(StreamPos(pos.0.saturating_add(SLICE)));
                    self.follow_all(pos, until, stop, &mut gathered)?;
                    until
                }
            };
            if stop.is_requested() {
                return Ok(());
            }
            self.look_at(&mut gathered)?;
            gathered.apply(Some(until))?;
            pos = until;
        }
        self.reached.send_replace(pos);
        Ok(())
    }

    /// Follows all rooms, when it is not known which have changed.
    fn follow_all(
        &self,
        after: StreamPos,
        until: StreamPos,
        stop: &Shutdown,
        gathered: &mut Gathered<'_>,
    ) -> Result<(), SearchError> {
        let mut from = RoomNum(0);
        loop {
            let (low, high) = (keys::room(from), keys::room(RoomNum(u64::MAX)));
            let range = (Bound::Included(&low[..]), Bound::Included(&high[..]));
            let found = self.view.store.scan(range, Direction::Forward, ROOMS);
            let found = found.map_err(ViewError::from)?;
            for (key, entry) in &found {
                let room = RoomNum(KeyReader::new(key).number().unwrap_or_default());
                let head = RoomHead::decode(key, &entry.value).map_err(ViewError::from)?;
                if head.pos > after && !stop.is_requested() {
                    self.follow(room, after, until, gathered)?;
                }
                from = RoomNum(room.0.saturating_add(1));
            }
            if found.len() < ROOMS {
                return Ok(());
            }
        }
    }

    /// Takes in what happened in a room within `(after, until]`.
    fn follow(
        &self,
        room: RoomNum,
        after: StreamPos,
        until: StreamPos,
        gathered: &mut Gathered<'_>,
    ) -> Result<(), SearchError> {
        let Some(view) = self.view.room_by_num(room)? else { return Ok(()) };
        if self.view.is_encrypted(&view)? {
            return gathered.add(Change::RemoveRoom(room));
        }
        self.follow_past(room, after, gathered)?;
        let mut after = after;
        loop {
            let range = (Bound::Excluded(after), Bound::Included(until));
            let store = &self.view.store;
            let entries = store.timeline(room, range, Direction::Forward, BATCH);
            let entries = entries.map_err(ViewError::from)?;
            let nums: Vec<_> = entries.iter().map(|(_, entry)| entry.event).collect();
            self.gather(nums, gathered)?;
            match entries.last() {
                Some((last, _)) if entries.len() == BATCH => after = *last,
                _ => return Ok(()),
            }
        }
    }

    /// Takes in what has come of a room's past since then: it is in no timeline. Numbers of events
    /// go up as they come.
    fn follow_past(
        &self,
        room: RoomNum,
        after: StreamPos,
        gathered: &mut Gathered<'_>,
    ) -> Result<(), SearchError> {
        let store = &self.view.store;
        let last = store.timeline_at(room, after).map_err(ViewError::from)?;
        let mut from = last.map_or(EventNum(0), |(_, entry)| entry.event);
        loop {
            let nums = store.off_timeline(room, from, BATCH).map_err(ViewError::from)?;
            let Some(last) = nums.last() else { return Ok(()) };
            from = EventNum(last.0 + 1);
            let metas = store.event_metas(&nums).map_err(ViewError::from)?;
            let is_past = |meta: &EventMeta| meta.flags.is_visible() && meta.pos > after;
            let new = nums.iter().zip(metas).filter(|(_, meta)| meta.as_ref().is_some_and(is_past));
            let new: Vec<_> = new.map(|(num, _)| *num).collect();
            self.gather(new, gathered)?;
            if nums.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Has these events looked at when there are many, or at the end.
    fn gather(&self, nums: Vec<EventNum>, gathered: &mut Gathered<'_>) -> Result<(), SearchError> {
        gathered.events.extend(nums);
        if gathered.events.len() >= CHANGES { self.look_at(gathered) } else { Ok(()) }
    }

    /// Takes in what events mean for the index. They are read in the order in which they came:
    /// those of many rooms that came together stand together.
    fn look_at(&self, gathered: &mut Gathered<'_>) -> Result<(), SearchError> {
        let mut nums = mem::take(&mut gathered.events);
        nums.sort_unstable();
        for nums in nums.chunks(BATCH) {
            let events = self.view.store.events(nums).map_err(ViewError::from)?;
            for event in events.into_iter().flatten() {
                self.change_by(&event)?.map_or(Ok(()), |change| gathered.add(change))?;
            }
        }
        Ok(())
    }

    /// What an event means for the index.
    fn change_by(&self, event: &StoredEvent) -> Result<Option<Change>, ViewError> {
        let fields = Fields::of(event)?;
        if let Some((redacted, _)) = self.view.redacted_by(event, &fields)? {
            return Ok(Some(Change::Remove(redacted)));
        }
        if event.meta.redacted_because.is_some() || !event.meta.flags.is_visible() {
            return Ok(None);
        }
        let found = match (&*fields.event_type, fields.state_key.as_deref()) {
            ("m.room.message", None) => return self.message(event, &fields),
            ("m.room.name", Some("")) => {
                fields.content_as::<Name>().ok().and_then(|content| content.name)
            }
            ("m.room.topic", Some("")) => fields.content_as::<Topic>().ok().and_then(Topic::text),
            _ => None,
        };
        let field = if fields.event_type == "m.room.name" { Field::Name } else { Field::Topic };
        Ok(found.map(|text| Change::Add(entry(event, &fields, None, field, text))))
    }

    /// A message, or the edit of one.
    fn message(
        &self,
        event: &StoredEvent,
        fields: &Fields<'_>,
    ) -> Result<Option<Change>, ViewError> {
        let Ok(message) = fields.content_as::<Message>() else { return Ok(None) };
        let edited = message.relates_to.filter(|to| to.rel_type.as_deref() == Some("m.replace"));
        let Some(edited) = edited else {
            let add = |text| Change::Add(entry(event, fields, None, Field::Body, text));
            return Ok(message.body.map(add));
        };
        let original = match edited.event_id {
            Some(id) => self.original(event, fields, &id)?,
            None => None,
        };
        let text = message.new_content.and_then(|new| new.body);
        // An edit that is none says nothing: clients do not show it either.
        Ok(original.zip(text).map(|(original, text)| {
            Change::Add(entry(event, fields, Some(&original), Field::Body, text))
        }))
    }

    /// The message that an edit is about, if it may be edited like this.
    fn original(
        &self,
        edit: &StoredEvent,
        fields: &Fields<'_>,
        event_id: &str,
    ) -> Result<Option<StoredEvent>, ViewError> {
        let Some(num) = self.view.store.event_num(event_id)? else { return Ok(None) };
        let Some(original) = self.view.store.event(num)? else { return Ok(None) };
        let about = Fields::of(&original)?;
        let fits = original.meta.room == edit.meta.room
            && original.meta.redacted_because.is_none()
            && about.sender == fields.sender
            && about.event_type == fields.event_type
            && about.state_key.is_none();
        Ok(Some(original).filter(|_| fits))
    }
}

impl<'a> Gathered<'a> {
    fn new(index: &'a TextIndex) -> Self {
        Self { index, events: Vec::new(), changes: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, change: Change) -> Result<(), SearchError> {
        if let Change::Add(entry) = &change {
            self.bytes += entry.text.len();
        }
        self.changes.push(change);
        if self.changes.len() >= CHANGES || self.bytes >= TEXT { self.apply(None) } else { Ok(()) }
    }

    /// Makes the changes; with `until`, everything up to there is in the index then.
    fn apply(&mut self, until: Option<StreamPos>) -> Result<(), SearchError> {
        self.index.apply(&self.changes, until)?;
        self.changes.clear();
        self.bytes = 0;
        Ok(())
    }
}

impl Topic {
    /// The plain text of both forms.
    fn text(self) -> Option<String> {
        let forms = self.rich.map(|rich| rich.forms).unwrap_or_default().into_iter();
        let plain = forms.filter(|form| {
            form.mimetype.as_deref().is_none_or(|mimetype| mimetype == "text/plain")
        });
        let mut texts: Vec<_> = self.topic.into_iter().collect();
        for form in plain {
            if !texts.contains(&form.body) {
                texts.push(form.body);
            }
        }
        if texts.is_empty() { None } else { Some(texts.join("\n")) }
    }
}

fn entry(
    event: &StoredEvent,
    fields: &Fields<'_>,
    original: Option<&StoredEvent>,
    field: Field,
    mut text: String,
) -> Entry {
    let mut end = MAX_TEXT.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    let shown = original.unwrap_or(event);
    Entry {
        num: event.num,
        shown: shown.num,
        pos: shown.meta.pos,
        room: event.meta.room,
        sender: fields.sender.clone().into_owned(),
        field,
        text,
    }
}
