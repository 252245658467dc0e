//! What became of the events of one transaction.

use std::{collections::BTreeMap, time::Duration};

use ruma::OwnedEventId;
use tokio::{sync::mpsc, time::timeout};

/// By event: nothing, or why it was refused.
pub type Results = BTreeMap<OwnedEventId, Result<(), String>>;

/// Where it is told what becomes of a transaction's events. Cheap to clone. Nobody may be listening
/// any more.
#[derive(Debug, Clone)]
pub(super) struct Reply(mpsc::UnboundedSender<(OwnedEventId, Result<(), String>)>);

/// Hears what becomes of them.
pub(super) struct Listener(mpsc::UnboundedReceiver<(OwnedEventId, Result<(), String>)>);

impl Reply {
    /// For one transaction. What is told is bounded by its size: two things for each event.
    pub(super) fn new() -> (Self, Listener) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Listener(receiver))
    }

    /// For events that nobody asks about.
    #[cfg(test)]
    pub(super) fn to_nobody() -> Self {
        Self::new().0
    }

    /// The event is good so far. If nothing else is heard of it, it was taken in.
    pub(super) fn accept(&self, event: &OwnedEventId) {
        // Who does not listen any more has answered that it was taken in.
        let _ = self.0.send((event.clone(), Ok(())));
    }

    /// The event was refused.
    pub(super) fn refuse(&self, event: OwnedEventId, why: impl Into<String>) {
        let _ = self.0.send((event, Err(why.into())));
    }
}

impl Listener {
    /// All that is told until nothing more can come, or for so long.
    pub(super) async fn collect(mut self, patience: Duration) -> Results {
        let mut results = Results::new();
        let all = async {
            while let Some((event, result)) = self.0.recv().await {
                results.insert(event, result);
            }
        };
        // What is not decided yet goes on without anybody waiting for it.
        let _ = timeout(patience, all).await;
        results
    }
}
