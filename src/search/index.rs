//! Where which words are: a SQLite database with its full text index (FTS5).
//!
//! An entry is one event's text. An edit has an entry of its own that stands in for the original's
//! as long as it is the newest: so a redacted edit brings the text before it back. What is redacted
//! is deleted from the database's pages, not merely marked.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use parlour_event::{EventNum, RoomNum, StreamPos};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::query::{Field, Group, Order};
use crate::view::ViewError;

/// The version of the tables below; another one's index is thrown away.
const VERSION: i64 = 1;

/// The file in the directory of the index.
const FILE: &str = "text.sqlite";

/// How many entries are counted at most.
const MAX_COUNT: u64 = 1_000;

/// A search is given up after so many steps of SQLite's machine: about a million entries.
const MAX_STEPS: i32 = 20_000_000;

/// Marks in a text where a word that was searched for begins and ends.
const MARKS: (char, char) = ('\u{2}', '\u{3}');

const TABLES: &str = "
    CREATE TABLE follow (id INTEGER PRIMARY KEY CHECK (id = 0), pos INTEGER NOT NULL);
    INSERT INTO follow VALUES (0, 0);
    CREATE TABLE entry (
        num INTEGER PRIMARY KEY,
        shown INTEGER NOT NULL,
        pos INTEGER NOT NULL,
        room INTEGER NOT NULL,
        sender TEXT NOT NULL,
        field INTEGER NOT NULL
    );
    CREATE INDEX entry_shown ON entry (shown, num);
    CREATE INDEX entry_room ON entry (room);
    CREATE VIRTUAL TABLE text USING fts5 (body, tokenize = 'porter unicode61 remove_diacritics 2');
    INSERT INTO text (text, rank) VALUES ('secure-delete', 1);
";

const MATCHES: &str = "
    FROM text CROSS JOIN entry ON entry.num = text.rowid
    WHERE text MATCH ?1
        AND entry.room IN (SELECT value FROM json_each(?2))
        AND entry.field IN (SELECT value FROM json_each(?3))
        AND entry.pos <= ?4
        AND (?5 IS NULL OR entry.sender IN (SELECT value FROM json_each(?5)))
        AND entry.sender NOT IN (SELECT value FROM json_each(?6))
        AND NOT EXISTS (SELECT 1 FROM entry AS newer
            WHERE newer.shown = entry.shown AND newer.num > entry.num)
";

/// Why there is no index, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The database failed.
    #[error("the search index: {0}")]
    Database(#[from] rusqlite::Error),
    /// Its directory cannot be used.
    #[error("the directory of the search index: {0}")]
    Io(#[from] io::Error),
    /// The rooms cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

impl SearchError {
    /// Whether a search was given up because it is too much work.
    #[must_use]
    pub fn is_too_much(&self) -> bool {
        let interrupted = rusqlite::ErrorCode::OperationInterrupted;
        matches!(self, Self::Database(error) if error.sqlite_error_code() == Some(interrupted))
    }
}

/// One event's text.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The event.
    pub num: EventNum,
    /// The event whose text this is now: the event itself, or what it edits.
    pub shown: EventNum,
    /// The position of that one.
    pub pos: StreamPos,
    /// The room.
    pub room: RoomNum,
    /// The sender.
    pub sender: String,
    /// Which text it is.
    pub field: Field,
    /// The text.
    pub text: String,
}

/// What is done to the index.
#[derive(Debug, Clone)]
pub enum Change {
    /// An event has this text.
    Add(Entry),
    /// An event's text is gone, and that of its edits.
    Remove(EventNum),
    /// A room is not searched any more.
    RemoveRoom(RoomNum),
}

/// What is looked for.
#[derive(Debug)]
pub struct Lookup<'a> {
    /// The words, as an expression of the index.
    pub expression: &'a str,
    /// In which rooms.
    pub rooms: &'a [RoomNum],
    /// In which texts.
    pub fields: &'a [Field],
    /// By whom alone.
    pub senders: Option<Vec<&'a str>>,
    /// By whom not.
    pub not_senders: Vec<&'a str>,
    /// In which order.
    pub order: Order,
    /// Within which group.
    pub group: Option<&'a Group>,
    /// Events until here.
    pub until: StreamPos,
}

/// An entry that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The entry.
    pub num: EventNum,
    /// The event whose text it is.
    pub shown: EventNum,
    /// The room.
    pub room: RoomNum,
    /// How well it fits; more is better.
    pub rank: f64,
}

/// How many entries a sender has in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The room.
    pub room: RoomNum,
    /// The sender.
    pub sender: String,
    /// How many.
    pub count: u64,
}

/// The index. One per server.
#[derive(Debug)]
pub struct TextIndex {
    database: Mutex<Connection>,
    dir: Option<PathBuf>,
    cache_bytes: u64,
}

impl TextIndex {
    /// Opens the index in a directory, or makes a new one if there is none that can be used.
    /// Without a directory it is in memory. `applied` is how far the log goes: an index that knows
    /// of more is of another log.
    ///
    /// # Errors
    ///
    /// A new one cannot be made either.
    pub fn open(
        dir: Option<PathBuf>,
        cache_bytes: u64,
        applied: StreamPos,
    ) -> Result<Self, SearchError> {
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
        }
        let known = connect(dir.as_deref(), cache_bytes).and_then(|database| {
            let version: i64 = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let pos = if version == VERSION { position(&database)? } else { StreamPos(u64::MAX) };
            Ok((database, pos))
        });
        let known =
            known.inspect_err(|error| tracing::warn!(%error, "the search index is damaged"));
        // One that is of no use is closed before its files are removed.
        let database = match known.ok().filter(|(_, pos)| *pos <= applied) {
            Some((database, _)) => database,
            None => anew(dir.as_deref(), cache_bytes)?,
        };
        Ok(Self { database: Mutex::new(database), dir, cache_bytes })
    }

    /// Throws everything away and begins anew.
    ///
    /// # Errors
    ///
    /// The files cannot be removed or made.
    pub fn clear(&self) -> Result<(), SearchError> {
        let mut database = self.database();
        // The old files are closed before they are removed.
        *database = Connection::open_in_memory()?;
        *database = anew(self.dir.as_deref(), self.cache_bytes)?;
        Ok(())
    }

    /// Everything up to here is in the index.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn position(&self) -> Result<StreamPos, SearchError> {
        position(&self.database())
    }

    /// Makes changes, all or none; with `until`, everything up to there is in the index then.
    /// Changes that were made before change nothing.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn apply(&self, changes: &[Change], until: Option<StreamPos>) -> Result<(), SearchError> {
        let mut database = self.database();
        let transaction = database.transaction()?;
        for change in changes {
            match change {
                Change::Add(entry) => add(&transaction, entry)?,
                Change::Remove(num) => remove(&transaction, "num = ?1 OR shown = ?1", num.0)?,
                Change::RemoveRoom(room) => remove(&transaction, "room = ?1", room.0)?,
            }
        }
        if let Some(until) = until {
            transaction.execute("UPDATE follow SET pos = ?1", [signed(until.0)])?;
        }
        Ok(transaction.commit()?)
    }

    /// Some of the entries that were looked for, from one on.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn look_up(
        &self,
        lookup: &Lookup<'_>,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Hit>, SearchError> {
        let sql = format!(
            "SELECT entry.num, entry.shown, entry.room, text.rank {MATCHES}
             ORDER BY {} LIMIT ?7 OFFSET ?8",
            lookup.sql_order()
        );
        self.patiently(|database| {
            let (rooms, senders) = lookup.scope();
            let mut found = database.prepare_cached(&sql)?;
            let rows = found.query_map(
                params![
                    lookup.expression,
                    rooms,
                    lookup.field_list(),
                    signed(lookup.until.0),
                    senders,
                    json(&lookup.not_senders),
                    signed(limit as u64),
                    signed(offset),
                ],
                |row| {
                    Ok(Hit {
                        num: EventNum(unsigned(row.get(0)?)),
                        shown: EventNum(unsigned(row.get(1)?)),
                        room: RoomNum(unsigned(row.get(2)?)),
                        rank: -row.get::<_, f64>(3)?,
                    })
                },
            )?;
            rows.collect()
        })
    }

    /// How many of the first so many entries are of which room and sender.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn tally(&self, lookup: &Lookup<'_>, first: u64) -> Result<Vec<Tally>, SearchError> {
        let sql = format!(
            "SELECT room, sender, count(*) FROM (
                SELECT entry.room AS room, entry.sender AS sender {MATCHES}
                ORDER BY {} LIMIT ?7
             ) GROUP BY room, sender",
            lookup.sql_order()
        );
        self.patiently(|database| {
            let (rooms, senders) = lookup.scope();
            let mut found = database.prepare_cached(&sql)?;
            let rows = found.query_map(
                params![
                    lookup.expression,
                    rooms,
                    lookup.field_list(),
                    signed(lookup.until.0),
                    senders,
                    json(&lookup.not_senders),
                    signed(first),
                ],
                |row| {
                    let room = RoomNum(unsigned(row.get(0)?));
                    Ok(Tally { room, sender: row.get(1)?, count: unsigned(row.get(2)?) })
                },
            )?;
            rows.collect()
        })
    }

    /// How many entries there are of what was looked for; of very many, not all are counted.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn count(&self, lookup: &Lookup<'_>) -> Result<u64, SearchError> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 {MATCHES} LIMIT ?7)");
        self.patiently(|database| {
            let (rooms, senders) = lookup.scope();
            let values = params![
                lookup.expression,
                rooms,
                lookup.field_list(),
                signed(lookup.until.0),
                senders,
                json(&lookup.not_senders),
                signed(MAX_COUNT),
            ];
            database.prepare_cached(&sql)?.query_row(values, |row| row.get(0)).map(unsigned)
        })
    }

    /// The words of an entry that made it fit.
    ///
    /// # Errors
    ///
    /// [`SearchError::Database`]
    pub fn words(&self, expression: &str, num: EventNum) -> Result<Vec<String>, SearchError> {
        let sql = "SELECT highlight(text, 0, ?3, ?4) FROM text WHERE text MATCH ?1 AND rowid = ?2";
        let (begin, end) = (MARKS.0.to_string(), MARKS.1.to_string());
        let marked: Option<String> = self.patiently(|database| {
            let mut found = database.prepare_cached(sql)?;
            let values = params![expression, signed(num.0), begin, end];
            found.query_row(values, |row| row.get(0)).optional()
        })?;
        let marked = marked.unwrap_or_default();
        let words = marked.split(MARKS.0).skip(1).filter_map(|rest| rest.split_once(MARKS.1));
        Ok(words.map(|(word, _)| word.to_lowercase()).collect())
    }

    /// Reads, and gives up after a number of steps.
    fn patiently<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, SearchError> {
        let mut database = self.database();
        // The first call interrupts: it comes after this many steps.
        database.progress_handler(MAX_STEPS, Some(|| true))?;
        let found = read(&database);
        database.progress_handler(0, None::<fn() -> bool>)?;
        Ok(found?)
    }

    fn database(&self) -> MutexGuard<'_, Connection> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup<'_> {
    fn sql_order(&self) -> &'static str {
        match self.order {
            Order::Rank => "text.rank, entry.num DESC",
            Order::Recent => "entry.pos DESC, entry.num DESC",
        }
    }

    /// Rooms and senders, as JSON lists, within the group.
    fn scope(&self) -> (String, Option<String>) {
        let rooms = match self.group {
            Some(Group::Room(room)) if self.rooms.contains(room) => vec![room.0],
            Some(Group::Room(_)) => Vec::new(),
            _ => self.rooms.iter().map(|room| room.0).collect(),
        };
        let senders = match (self.group, &self.senders) {
            (Some(Group::Sender(user)), Some(all)) if !all.contains(&user.as_str()) => {
                Some(json(&[""; 0]))
            }
            (Some(Group::Sender(user)), _) => Some(json(&[user])),
            (_, senders) => senders.as_ref().map(|senders| json(senders)),
        };
        (json(&rooms), senders)
    }

    fn field_list(&self) -> String {
        json(&self.fields.iter().map(|field| *field as u8).collect::<Vec<_>>())
    }
}

fn connect(dir: Option<&Path>, cache_bytes: u64) -> Result<Connection, SearchError> {
    let database = match dir {
        Some(dir) => Connection::open(dir.join(FILE))?,
        None => Connection::open_in_memory()?,
    };
    // With the journal ahead of the file a power cut costs the newest changes at most, and these
    // are followed again.
    database.pragma_update(None, "journal_mode", "wal")?;
    database.pragma_update(None, "synchronous", "normal")?;
    database.pragma_update(None, "secure_delete", true)?;
    let kibibytes = i64::try_from(cache_bytes >> 10).unwrap_or(i64::MAX);
    database.pragma_update(None, "cache_size", -kibibytes)?;
    Ok(database)
}

fn anew(dir: Option<&Path>, cache_bytes: u64) -> Result<Connection, SearchError> {
    if let Some(dir) = dir {
        for suffix in ["", "-wal", "-shm"] {
            match fs::remove_file(dir.join(format!("{FILE}{suffix}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
    }
    let database = connect(dir, cache_bytes)?;
    database.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    Ok(database)
}

fn position(database: &Connection) -> Result<StreamPos, SearchError> {
    let pos = database.query_row("SELECT pos FROM follow", [], |row| row.get(0))?;
    Ok(StreamPos(unsigned(pos)))
}

/// An entry is added once. Its two rows come and go together, so that one tells of the other.
fn add(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    let num = signed(entry.num.0);
    let row = "INSERT OR IGNORE INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut row = transaction.prepare_cached(row)?;
    let (shown, pos, room) = (signed(entry.shown.0), signed(entry.pos.0), signed(entry.room.0));
    let values = params![num, shown, pos, room, entry.sender, entry.field as u8];
    if row.execute(values)? > 0 {
        let text = "INSERT INTO text (rowid, body) VALUES (?1, ?2)";
        transaction.prepare_cached(text)?.execute(params![num, entry.text])?;
    }
    Ok(())
}

fn remove(transaction: &Transaction<'_>, which: &str, value: u64) -> rusqlite::Result<()> {
    let text = format!("DELETE FROM text WHERE rowid IN (SELECT num FROM entry WHERE {which})");
    transaction.prepare_cached(&text)?.execute([signed(value)])?;
    let row = format!("DELETE FROM entry WHERE {which}");
    transaction.prepare_cached(&row)?.execute([signed(value)])?;
    Ok(())
}

fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("lists of numbers and strings can always be written")
}

/// SQLite has no unsigned numbers; ours never come near the end of its own.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
