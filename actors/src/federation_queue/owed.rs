//! What a server is owed beside events: EDUs that must not be lost. Storage has what they are made
//! of; here stands how far the server has got, and what was read for the next transaction.

use bytes::Bytes;
use parlour_storage::schema::edu_outbox::{EduPlace, FIRST};

use super::unheard::{self, Unheard, Users};

/// What goes with one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parcel {
    /// What is said of the devices of users here, as JSON. It is the first of all EDUs, so that a
    /// device is known when a message comes from it.
    pub(super) updates: Vec<Bytes>,
    /// Where the other EDUs stand in storage.
    pub(super) edus: Vec<EduPlace>,
}

impl Parcel {
    pub(super) fn len(&self) -> usize {
        self.updates.len() + self.edus.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is to be read for the next transaction.
#[derive(Debug)]
pub(super) struct Wanted {
    /// After which place EDUs may wait.
    pub(super) edus_after: Option<EduPlace>,
    /// What is to be said of users.
    pub(super) news: unheard::Wanted,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) parcel: Parcel,
    /// More EDUs may wait.
    pub(super) is_more: bool,
    /// Users for whom there was no place.
    pub(super) left: Users,
    pub(super) page: Option<unheard::Page>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) unheard: Unheard,
    /// Storage may have more EDUs than were read.
    is_more: bool,
    /// Since when something has waited, milliseconds since the epoch.
    since: Option<u64>,
    /// Up to here the EDUs were read.
    read: EduPlace,
    /// Up to here the server has them.
    got: EduPlace,
    /// What the server has got is in storage still.
    is_unswept: bool,
    parcel: Parcel,
}

impl Owed {
    pub(super) fn new(unheard: Unheard) -> Self {
        let (is_more, since, is_unswept) = (false, None, false);
        let parcel = Parcel::default();
        Self { unheard, is_more, since, read: FIRST, got: FIRST, is_unswept, parcel }
    }

    /// EDUs have come to wait in storage.
    pub(super) fn waits(&mut self, now: u64) {
        self.is_more = true;
        self.since.get_or_insert(now);
    }

    /// Something is to be said of a user.
    pub(super) fn say(&mut self, news: impl FnOnce(&mut Unheard) -> bool, now: u64) {
        if news(&mut self.unheard) {
            self.since.get_or_insert(now);
        }
    }

    /// Since when something has waited.
    pub(super) fn since(&self) -> Option<u64> {
        self.since
    }

    pub(super) fn has_work(&self) -> bool {
        self.is_more || self.unheard.has_work() || !self.parcel.is_empty()
    }

    /// What is to be read now, if anything. Users are spoken of only with the events that brought
    /// them to the server, or after these.
    pub(super) fn begin_reading(&mut self, are_events_read: bool) -> Option<Wanted> {
        if !self.parcel.is_empty() {
            return None;
        }
        let news = match are_events_read {
            true => self.unheard.begin(),
            false => unheard::Wanted::Nothing,
        };
        let edus_after = std::mem::take(&mut self.is_more).then_some(self.read);
        let is_any = edus_after.is_some() || news != unheard::Wanted::Nothing;
        is_any.then_some(Wanted { edus_after, news })
    }

    /// It cannot be read.
    pub(super) fn put_back(&mut self, wanted: Wanted) {
        self.is_more |= wanted.edus_after.is_some();
        if let unheard::Wanted::Users(users) = wanted.news {
            self.unheard.put_back(users);
        }
    }

    /// What was read.
    pub(super) fn has_read(&mut self, read: Read) {
        let Read { parcel, is_more, left, page } = read;
        self.is_more |= is_more;
        self.unheard.put_back(left);
        if let Some(page) = page {
            self.unheard.found(page);
        }
        self.read = parcel.edus.last().copied().unwrap_or(self.read);
        self.parcel = parcel;
        self.rest();
    }

    /// What goes with the next transaction.
    pub(super) fn take(&mut self) -> Parcel {
        std::mem::take(&mut self.parcel)
    }

    /// The server has what went with a transaction.
    pub(super) fn delivered(&mut self, parcel: &Parcel) {
        self.unheard.delivered();
        if let Some(last) = parcel.edus.last() {
            self.got = *last;
            self.is_unswept = true;
        }
        self.rest();
    }

    fn rest(&mut self) {
        if !self.has_work() {
            self.since = None;
        }
    }

    pub(super) fn is_unswept(&self) -> bool {
        self.is_unswept
    }

    /// Up to where storage can be emptied. Whoever does not come to the end says so with
    /// [`Owed::keep_sweeping`].
    pub(super) fn sweep(&mut self) -> Option<EduPlace> {
        std::mem::take(&mut self.is_unswept).then_some(self.got)
    }

    pub(super) fn keep_sweeping(&mut self) {
        self.is_unswept |= self.got > FIRST;
    }
}

impl Default for Owed {
    fn default() -> Self {
        Self::new(Unheard::default())
    }
}
