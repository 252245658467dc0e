//! To which thread an event belongs.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts>

use parlour_storage::schema::StoredEvent;

use super::{Fields, View, ViewError, event::Relating};

/// How many relations are followed from an event to its thread.
const MAX_HOPS: usize = 3;

/// Where an event stands among the threads of its room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ThreadPlace {
    /// The root of the thread that the event is in; `None` in the main timeline.
    pub root: Option<String>,
    /// The event and those it relates to, one by the other, as far as they were followed.
    pub chain: Vec<String>,
}

impl ThreadPlace {
    /// Whether a receipt for the event can name this thread: `main`, the thread that the event is
    /// in, or the thread whose root the event is or relates to.
    #[must_use]
    pub fn fits(&self, thread: &str) -> bool {
        match &self.root {
            _ if thread == "main" => self.root.is_none(),
            Some(root) => root == thread,
            None => self.chain.iter().any(|event| event == thread),
        }
    }
}

impl View {
    /// Where an event stands among the threads of its room.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn thread_place(&self, event: &StoredEvent) -> Result<ThreadPlace, ViewError> {
        let room = event.meta.room;
        let mut place = ThreadPlace::default();
        let mut next = Some(event.clone());
        while let Some(event) = next.take() {
            place.chain.push(event.meta.event_id.clone());
            let Some(Relating { rel_type, event_id }) = Relating::of(&Fields::of(&event)?) else {
                break;
            };
            if rel_type == "m.thread" {
                place.root = Some(event_id.into_owned());
                break;
            }
            if place.chain.len() > MAX_HOPS {
                break;
            }
            if let Some(num) = self.store.event_num(&event_id)? {
                next = self.store.event(num)?.filter(|parent| parent.meta.room == room);
            }
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::ThreadPlace;

    #[test]
    fn a_receipt_names_a_thread_that_its_event_belongs_to() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let alone = ThreadPlace { root: None, chain: ids(&["$a"]) };
        let reaction_to_root = ThreadPlace { root: None, chain: ids(&["$b", "$a"]) };
        let in_thread = ThreadPlace { root: Some("$a".into()), chain: ids(&["$c"]) };
        for (place, thread, fits) in [
            (&alone, "main", true),
            (&alone, "$a", true),
            (&alone, "$b", false),
            (&reaction_to_root, "main", true),
            (&reaction_to_root, "$a", true),
            (&in_thread, "main", false),
            (&in_thread, "$a", true),
            (&in_thread, "$c", false),
            (&in_thread, "$z", false),
        ] {
            assert_eq!(place.fits(thread), fits, "{place:?} {thread}");
        }
    }
}
