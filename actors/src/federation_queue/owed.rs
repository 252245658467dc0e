//! What a server is owed beside events: EDUs that must not be lost. Storage has them; here stands
//! how far the server has got, and what was read for the next transaction.

use parlour_storage::schema::edu_outbox::{EduPlace, FIRST};

/// What goes with one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parcel {
    /// Where its EDUs stand in storage.
    pub(super) edus: Vec<EduPlace>,
}

impl Parcel {
    pub(super) fn len(&self) -> usize {
        self.edus.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Owed {
    /// Storage may have more than was read.
    is_more: bool,
    /// Since when something has waited, milliseconds since the epoch.
    since: Option<u64>,
    /// Up to here everything was read.
    read: EduPlace,
    /// Up to here the server has everything.
    got: EduPlace,
    /// What the server has got is in storage still.
    is_unswept: bool,
    parcel: Parcel,
}

impl Default for Owed {
    fn default() -> Self {
        let (is_more, since, is_unswept) = (false, None, false);
        Self { is_more, since, read: FIRST, got: FIRST, is_unswept, parcel: Parcel::default() }
    }
}

impl Owed {
    /// Something has come to wait in storage.
    pub(super) fn waits(&mut self, now: u64) {
        self.is_more = true;
        self.since.get_or_insert(now);
    }

    /// Since when something has waited.
    pub(super) fn since(&self) -> Option<u64> {
        self.since
    }

    pub(super) fn has_work(&self) -> bool {
        self.is_more || !self.parcel.is_empty()
    }

    /// Where to go on reading, if that is to be done now. What comes to wait from here on is to be
    /// read, too.
    pub(super) fn begin_reading(&mut self) -> Option<EduPlace> {
        let is_due = self.is_more && self.parcel.is_empty();
        is_due.then(|| {
            self.is_more = false;
            self.read
        })
    }

    /// What was read, and whether there is more.
    pub(super) fn has_read(&mut self, parcel: Parcel, is_more: bool) {
        self.is_more |= is_more;
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
