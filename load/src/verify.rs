//! What was acknowledged is there: all of it, once, in order.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    accounts::write_private,
    error::{Failure, LoadError},
    http::Endpoint,
    message::{Event, Page},
    record::Verdict,
    session::{Account, Session, messages_path},
};

/// Messages per page; servers give fewer if that is too many for them.
const PAGE: u32 = 500;

/// Rooms that are read at once.
const AT_ONCE: usize = 4;

/// A message that the server has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) sender: usize,
    pub(crate) number: u64,
    pub(crate) event_id: String,
}

/// What one room must have.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RoomLedger {
    pub(crate) room_id: String,
    /// In the order in which they were acknowledged.
    pub(crate) sent: Vec<Sent>,
}

/// What a run has been told is there. As a file it is a manifest, so that it can be checked later:
/// after the server was killed and started again, for example.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) target: String,
    pub(crate) run: String,
    /// Who is in all the rooms, and reads them.
    pub(crate) reader: Account,
    pub(crate) rooms: Vec<RoomLedger>,
}

impl Ledger {
    /// Writes the manifest.
    pub(crate) fn save(&self, file: &Path) -> Result<(), LoadError> {
        let text = serde_json::to_vec(self).map_err(LoadError::file(file))?;
        write_private(file, &text).map_err(LoadError::file(file))
    }

    /// Reads a manifest.
    pub(crate) fn load(file: &Path) -> Result<Self, LoadError> {
        let bytes = fs::read(file).map_err(LoadError::file(file))?;
        serde_json::from_slice(&bytes).map_err(LoadError::file(file))
    }

    /// Reads all rooms from end to end and compares.
    pub(crate) async fn verify(&self, endpoint: &Arc<Endpoint>) -> Result<Verdict, Failure> {
        let about = Verdict::about("acknowledged messages, by /messages");
        let rooms = stream::iter(&self.rooms).map(|room| async {
            let mut reader = Session::of(endpoint, &self.reader);
            let found = history(&mut reader, &room.room_id).await?;
            Ok(compare(&self.run, room, &found))
        });
        rooms
            .buffer_unordered(AT_ONCE)
            .try_fold(about, |sum, room| std::future::ready(Ok(sum.and(room))))
            .await
    }

    /// Takes what the rooms have of this run for what was acknowledged: of what was made in bulk
    /// nobody was told the ids.
    pub(crate) async fn believe(mut self, endpoint: &Arc<Endpoint>) -> Result<Self, Failure> {
        let mut reader = Session::of(endpoint, &self.reader);
        for room in &mut self.rooms {
            let found = history(&mut reader, &room.room_id).await?;
            let sent = found.into_iter().filter_map(|event| {
                let mark = event.mark(&self.run)?;
                let (sender, number) = (mark.sender, mark.number);
                Some(Sent { sender, number, event_id: event.event_id })
            });
            room.sent = sent.collect();
        }
        Ok(self)
    }
}

/// All events of a room, oldest first.
pub(crate) async fn history(reader: &mut Session, room: &str) -> Result<Vec<Event>, Failure> {
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let page: Page = reader.look_up(&messages_path(room, 'b', PAGE, &from)).await?;
        all.extend(page.chunk);
        match page.end {
            Some(end) if end != from => from = end,
            _ => break,
        }
    }
    all.reverse();
    Ok(all)
}

/// What is wrong with a room's history, oldest event first.
pub(crate) fn compare(run: &str, room: &RoomLedger, history: &[Event]) -> Verdict {
    let mut verdict = Verdict { checked: room.sent.len() as u64, ..Verdict::default() };
    // Where each message stands, by event and by what it says of itself.
    let mut by_id: HashMap<&str, usize> = HashMap::with_capacity(history.len());
    let mut by_mark: HashMap<(usize, u64), usize> = HashMap::with_capacity(history.len());
    let mut newest: BTreeMap<usize, u64> = BTreeMap::new();
    for (place, event) in history.iter().enumerate() {
        let Some(mark) = event.mark(run) else { continue };
        let known = by_id.insert(&event.event_id, place).is_some();
        if by_mark.insert((mark.sender, mark.number), place).is_some() || known {
            verdict.doubled += 1;
            verdict.example(|| format!("{}: {} is there twice", room.room_id, event.event_id));
            continue;
        }
        let before = newest.insert(mark.sender, mark.number);
        if before.is_some_and(|before| before > mark.number) {
            verdict.disordered += 1;
            verdict.example(|| {
                format!("{}: {} comes after a later one", room.room_id, event.event_id)
            });
        }
    }
    for Sent { sender, number, event_id } in &room.sent {
        let place = by_id.get(event_id.as_str());
        if place.is_none() || place != by_mark.get(&(*sender, *number)) {
            verdict.lost += 1;
            verdict.example(|| format!("{}: {event_id} is not there", room.room_id));
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        fake::FakeServer,
        message::{Mark, content},
    };

    fn event(sender: usize, number: u64) -> serde_json::Value {
        let mark = Mark { run: "run".to_owned(), sender, number, at: 0, counted: true };
        json!({ "event_id": format!("${sender}-{number}"), "content": content(&mark, 10) })
    }

    fn ledger(numbers: &[(usize, u64)], target: &str) -> Ledger {
        let sent = numbers.iter().map(|(sender, number)| Sent {
            sender: *sender,
            number: *number,
            event_id: format!("${sender}-{number}"),
        });
        let room = RoomLedger { room_id: "!r".to_owned(), sent: sent.collect() };
        let reader = Account { user_id: "@a:b".to_owned(), access_token: "t".to_owned() };
        Ledger { target: target.to_owned(), run: "run".to_owned(), reader, rooms: vec![room] }
    }

    /// What is said of a server that gives this history, in pages of two, newest first.
    async fn judge(history: Vec<serde_json::Value>, sent: &[(usize, u64)]) -> Verdict {
        let newest_first: Vec<_> = history.into_iter().rev().collect();
        let server = FakeServer::start(move |asked| {
            let from = asked.query("from").and_then(|from| from.parse().ok()).unwrap_or(0);
            let page: Vec<_> = newest_first.iter().skip(from).take(2).collect();
            let mut answer = json!({ "chunk": page, "start": "0" });
            if from + 2 < newest_first.len() {
                answer["end"] = (from + 2).to_string().into();
            }
            Some((200, answer))
        })
        .await;
        let endpoint = server.endpoint().await;
        ledger(sent, &server.url()).verify(&endpoint).await.expect("it answers")
    }

    #[tokio::test]
    async fn a_good_server_is_believed() {
        let foreign = json!({ "event_id": "$create", "content": { "creator": "@a:b" } });
        let history = vec![foreign, event(0, 1), event(1, 1), event(0, 2), event(0, 3)];
        let verdict = judge(history, &[(0, 1), (1, 1), (0, 2)]).await;
        assert!(verdict.good(), "{verdict:?}");
        assert_eq!(verdict.checked, 3);
    }

    #[tokio::test]
    async fn a_lie_is_found() {
        let sent = [(0, 1), (0, 2), (0, 3)];
        let lost = judge(vec![event(0, 1), event(0, 3)], &sent).await;
        assert_eq!((lost.lost, lost.doubled, lost.disordered), (1, 0, 0));
        assert!(lost.examples[0].contains("$0-2"), "{lost:?}");
        let twice = vec![event(0, 1), event(0, 2), event(0, 2), event(0, 3)];
        assert_eq!(judge(twice, &sent).await.doubled, 1);
        let swapped = judge(vec![event(0, 2), event(0, 1), event(0, 3)], &sent).await;
        assert_eq!((swapped.lost, swapped.disordered), (0, 1));
        // The same message under two ids: the transaction was carried out twice.
        let mut again = event(0, 2);
        again["event_id"] = "$other".into();
        let sent_twice = judge(vec![event(0, 1), again, event(0, 2), event(0, 3)], &sent).await;
        assert!(sent_twice.doubled == 1 && !sent_twice.good());
    }

    #[test]
    fn a_manifest_comes_back_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("manifest.json");
        ledger(&[(0, 1)], "http://a").save(&file).expect("saved");
        let back = Ledger::load(&file).expect("loaded");
        assert_eq!(back.rooms[0].sent[0].event_id, "$0-1");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}
