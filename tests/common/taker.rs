//! A made-up server that takes transactions, while it is not away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::{
    fake_server::{Asked, FakeServer},
    server::deadline,
};

/// See the module.
pub(crate) struct Taker {
    /// The server.
    pub(crate) server: FakeServer,
    is_away: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Taker {
    pub(crate) fn start() -> Self {
        let (is_away, taken) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Value>>>::default());
        let (away, seen) = (is_away.clone(), taken.clone());
        let answer = move |asked: &Asked| match asked.is("v1/send/") {
            true if away.load(Ordering::Relaxed) => Some((503, b"{}".to_vec())),
            true => {
                seen.lock().unwrap().push(asked.body.clone());
                Some((200, br#"{"pdus":{}}"#.to_vec()))
            }
            false => None,
        };
        Self { server: FakeServer::start(|_| answer), is_away, taken }
    }

    /// A user of it.
    pub(crate) fn user(&self, name: &str) -> String {
        format!("@{name}:{}", self.server.name())
    }

    /// From here on it takes nothing, or everything again.
    pub(crate) fn go_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    /// The bodies of all transactions that it has taken.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    /// The EDUs that it has taken.
    pub(crate) fn edus(&self) -> Vec<Value> {
        edus(&self.taken())
    }

    /// Those that are wanted, as soon as there are so many.
    #[track_caller]
    pub(crate) fn await_edus(&self, is_wanted: fn(&Value) -> bool, count: usize) -> Vec<Value> {
        let until = deadline(Duration::from_secs(40));
        loop {
            let edus: Vec<_> = self.edus().into_iter().filter(is_wanted).collect();
            if edus.len() >= count {
                return edus;
            }
            assert!(!until.passed(), "{edus:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The EDUs of transactions.
pub(crate) fn edus(transactions: &[Value]) -> Vec<Value> {
    let edus = transactions.iter().flat_map(|body| body["edus"].as_array().cloned());
    edus.flatten().collect()
}
