//! A network that delays, reorders, doubles and loses what servers send, and falls into parts.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use parlour::{
    embed::{Bytes, http},
    federation::outbound::transport::{Limits, Transport, TransportError},
};
use parlour_actors::keyring::BoxFuture;
use ruma::{OwnedServerName, ServerName};
use tokio::time::{Instant, sleep, timeout};

use crate::common::Random;

/// Everything that has happened, line by line.
pub(super) type Trace = Arc<Mutex<Vec<String>>>;

/// What all servers' ways to each other have in common.
#[derive(Clone, Debug)]
pub(super) struct Weather(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: Random,
    /// In how many of a hundred cases something goes wrong.
    roughness: u64,
    /// On which island each server is; those that are not named are on the first one.
    islands: HashMap<OwnedServerName, u64>,
    trace: Trace,
    started: Instant,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    there: Duration,
    back: Duration,
    is_lost: bool,
    answer_is_lost: bool,
    /// It arrives once more, this much later.
    again: Option<Duration>,
}

impl Weather {
    /// A calm sky.
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let (random, started) = (Random::new(seed), Instant::now());
        let islands = HashMap::new();
        Self(Arc::new(Mutex::new(State { random, roughness: 0, islands, trace, started })))
    }

    /// From now on this many of a hundred requests go wrong in each way.
    pub(super) fn rough(&self, roughness: u64) {
        self.0.lock().unwrap().roughness = roughness;
    }

    /// The network falls into parts.
    pub(super) fn part(&self, islands: HashMap<OwnedServerName, u64>) {
        self.0.lock().unwrap().islands = islands;
    }

    /// All is well again.
    pub(super) fn clear(&self) {
        self.rough(0);
        self.part(HashMap::new());
    }

    /// Writes down what happens.
    pub(super) fn note(&self, what: &str) {
        let state = self.0.lock().unwrap();
        let at = state.started.elapsed().as_millis();
        state.trace.lock().unwrap().push(format!("{at} {what}"));
    }

    /// A server's way to the others, which are at the end of `line`.
    pub(super) fn line(&self, from: &str, line: impl Transport + 'static) -> Arc<dyn Transport> {
        let from = from.try_into().unwrap();
        Arc::new(Line { from, weather: self.clone(), line: Arc::new(line) })
    }

    fn fate(&self) -> Fate {
        let State { random, roughness, .. } = &mut *self.0.lock().unwrap();
        let mut takes = |most| Duration::from_millis(1 + random.below(most));
        let (there, back) = (takes(20), takes(20));
        let mut happens = || random.below(100) < *roughness;
        let (is_slow, is_lost, answer_is_lost, doubles) =
            (happens(), happens(), happens(), happens());
        let mut takes = |most| Duration::from_millis(1 + random.below(most));
        let there = if is_slow { takes(8_000) } else { there };
        let again = doubles.then(|| takes(10_000));
        Fate { there, back, is_lost, answer_is_lost, again }
    }

    fn is_parted(&self, one: &ServerName, other: &ServerName) -> bool {
        let islands = &self.0.lock().unwrap().islands;
        let island = |name| islands.get(name).copied().unwrap_or_default();
        island(one) != island(other)
    }
}

/// One server's way to the others.
#[derive(Debug)]
struct Line {
    from: OwnedServerName,
    weather: Weather,
    line: Arc<dyn Transport>,
}

type Answer = Result<http::Response<Bytes>, TransportError>;

fn broken() -> TransportError {
    TransportError::Connection("the connection broke".to_owned())
}

impl Line {
    async fn carry(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> Answer {
        let fate = self.weather.fate();
        sleep(fate.there).await;
        if fate.is_lost || self.weather.is_parted(&self.from, to) {
            return Err(broken());
        }
        if let Some(later) = fate.again {
            let (line, to, request) = (self.line.clone(), to.to_owned(), request.clone());
            tokio::spawn(async move {
                sleep(later).await;
                // Nobody waits for this answer.
                drop(line.send(&to, request, limits).await);
            });
        }
        let answer = self.line.send(to, request, limits).await?;
        sleep(fate.back).await;
        match fate.answer_is_lost || self.weather.is_parted(&self.from, to) {
            true => Err(broken()),
            false => Ok(answer),
        }
    }
}

impl Transport for Line {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: http::Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Answer> {
        let what = format!(
            "{} -> {to} {} {} {:x}",
            self.from,
            request.method(),
            request.uri(),
            digest(request.body())
        );
        self.weather.note(&what);
        Box::pin(async move {
            let carried = timeout(limits.time, self.carry(to, request, limits)).await;
            let answer = carried.unwrap_or(Err(TransportError::Timeout));
            let outcome = match &answer {
                Ok(answer) => format!("{} {:x}", answer.status(), digest(answer.body())),
                Err(error) => error.to_string(),
            };
            self.weather.note(&format!("{what}: {outcome}"));
            answer
        })
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
