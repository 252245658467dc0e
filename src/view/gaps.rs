//! Where a room's history is missing that others have.

use parlour_event::RoomNum;
use ruma::OwnedEventId;

use super::{GraphToken, View, ViewError};

/// How many gaps of one room are looked at. A room has few: one for each time that this server was
/// away for long.
const MAX_GAPS: usize = 1_000;

/// Events that are not here, and that events which are here follow: the nearest to the present
/// first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps(Vec<(u64, OwnedEventId)>);

impl View {
    /// The gaps in a room's history.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn gaps(&self, room: RoomNum) -> Result<Gaps, ViewError> {
        let gaps = self.store.backward_extremities(room, MAX_GAPS)?.into_iter();
        let gaps = gaps.filter_map(|(id, depth)| Some((depth, OwnedEventId::try_from(id).ok()?)));
        let mut gaps: Vec<_> = gaps.collect();
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Gaps(gaps))
    }
}

impl Gaps {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those behind a place, on its older side, as far as another one.
    #[must_use]
    pub fn between(mut self, from: GraphToken, to: Option<GraphToken>) -> Self {
        let oldest = to.map_or(0, |to| to.depth);
        self.0.retain(|(depth, _)| *depth <= from.depth && *depth > oldest);
        self
    }

    /// Those that a page has come by before this place, where it ends.
    #[must_use]
    pub fn before(&self, end: GraphToken) -> Vec<OwnedEventId> {
        let passed = self.0.iter().filter(|(depth, _)| *depth > end.depth);
        passed.map(|(_, id)| id.clone()).collect()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<OwnedEventId> {
        self.0.iter().map(|(_, id)| id.clone()).collect()
    }
}
