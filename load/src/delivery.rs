//! What has come to whom, and whether it is all that was acknowledged.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{record::Verdict, verify::RoomLedger};

/// How long nothing may come after the last message before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked whether something has come.
const LOOK: Duration = Duration::from_millis(5);

/// How much all receivers together have got.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    count: AtomicU64,
    gaps: AtomicU64,
}

impl Deliveries {
    /// One more has come.
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer has left events out, which then have to be asked for.
    pub(crate) fn add_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// What is to be said if answers were incomplete.
    pub(crate) fn notes(&self) -> Vec<String> {
        let gaps = Some(self.gaps.load(Ordering::Relaxed)).filter(|gaps| *gaps > 0);
        let text =
            |gaps| format!("{gaps} syncs left events out, which were then asked for by /messages");
        gaps.map(text).into_iter().collect()
    }

    /// Waits until so much has come, or nothing new comes any more.
    async fn await_count(&self, wanted: u64) {
        let count = || self.count.load(Ordering::Relaxed);
        let (mut last, mut since) = (count(), Instant::now());
        while last < wanted && since.elapsed() < PATIENCE {
            sleep(LOOK).await;
            if count() != last {
                (last, since) = (count(), Instant::now());
            }
        }
    }
}

/// Lets the last of several senders wait until everything has come: that is measured, too.
#[derive(Debug)]
pub(crate) struct Drain {
    senders: AtomicUsize,
    wanted: AtomicU64,
    deliveries: Arc<Deliveries>,
}

impl Drain {
    pub(crate) fn of(senders: usize, deliveries: &Arc<Deliveries>) -> Arc<Self> {
        let (senders, wanted) = (senders.into(), AtomicU64::new(0));
        Arc::new(Self { senders, wanted, deliveries: deliveries.clone() })
    }

    /// A sender is done; so many deliveries are to come of what it has sent.
    pub(crate) async fn sent(&self, wanted: usize) {
        let wanted = wanted as u64;
        let all = self.wanted.fetch_add(wanted, Ordering::SeqCst) + wanted;
        if self.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.deliveries.await_count(all).await;
        }
    }
}

/// What one receiver has got, by room: the events' senders, numbers and ids, in their order.
pub(crate) type Received = BTreeMap<String, Vec<(usize, u64, String)>>;

/// Whether a receiver has got all that was acknowledged in these rooms.
pub(crate) fn judge<'a>(
    who: &str,
    rooms: impl IntoIterator<Item = &'a RoomLedger>,
    received: &Received,
) -> Verdict {
    let none = Vec::new();
    rooms.into_iter().fold(Verdict::default(), |sum, room| {
        sum.and(compare(who, room, received.get(&room.room_id).unwrap_or(&none)))
    })
}

/// Whether a receiver has got all that was acknowledged in a room, once and in the order of each
/// sender.
pub(crate) fn compare(who: &str, room: &RoomLedger, received: &[(usize, u64, String)]) -> Verdict {
    let mut verdict = Verdict { checked: room.sent.len() as u64, ..Verdict::default() };
    let mut seen: HashSet<&str> = HashSet::with_capacity(received.len());
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    for (sender, number, event_id) in received {
        if !seen.insert(event_id) {
            verdict.doubled += 1;
            verdict.example(|| format!("{who} got {event_id} twice"));
        } else if newest.insert(*sender, *number).is_some_and(|before| before > *number) {
            verdict.disordered += 1;
            verdict.example(|| format!("{who} got {event_id} after a later one"));
        }
    }
    for sent in &room.sent {
        if !seen.contains(sent.event_id.as_str()) {
            verdict.lost += 1;
            verdict.example(|| format!("{who} never got {}", sent.event_id));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Sent;

    #[test]
    fn what_a_receiver_did_not_get_is_seen() {
        let id = |number: u64| format!("${number}");
        let sent = |number| Sent { sender: 0, number, event_id: id(number) };
        let room = RoomLedger { room_id: "!r".to_owned(), sent: (1..=3).map(sent).collect() };
        let got = |numbers: &[u64]| {
            let received: Vec<_> = numbers.iter().map(|number| (0, *number, id(*number))).collect();
            let Verdict { lost, doubled, disordered, .. } = compare("bob", &room, &received);
            (lost, doubled, disordered)
        };
        assert_eq!(got(&[1, 2, 3]), (0, 0, 0));
        assert_eq!(got(&[1, 3]), (1, 0, 0));
        assert_eq!(got(&[1, 2, 2, 3]), (0, 1, 0));
        assert_eq!(got(&[2, 1, 3]), (0, 0, 1));
    }
}
