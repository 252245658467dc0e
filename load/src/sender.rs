//! Somebody who sends messages, one after the other, and remembers what was acknowledged.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::{
    bench::Bench,
    delivery::{Deliveries, Drain},
    error::{Failure, LoadError},
    message::{Mark, content},
    meter::{Meter, Series},
    schedule::{Due, Pacer},
    session::{Account, Session, part, read},
    slices::Slices,
    verify::{Ledger, RoomLedger, Sent},
};

/// Before something is tried again that the server could not do.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one message is tried for. It must be longer than a restart of a server.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Counts a failure, and waits before the next attempt as long as is good manners.
pub(crate) async fn rest(meter: &Meter, failure: &Failure) {
    meter.failed(failure);
    let pause = failure.throttled().or_else(|| failure.may_pass().then_some(PAUSE));
    if let Some(pause) = pause {
        sleep(pause).await;
    }
}

/// A room, with its place in the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) index: usize,
    pub(crate) path: String,
}

impl Room {
    pub(crate) fn all(ids: &[String]) -> Vec<Self> {
        let path = |id: &String| format!("/_matrix/client/v3/rooms/{}", part(id));
        ids.iter().enumerate().map(|(index, id)| Self { index, path: path(id) }).collect()
    }
}

/// What was acknowledged, with the room's place in the ledger.
pub(crate) type Acknowledged = Vec<(usize, Sent)>;

/// Has users send to one room, and waits for all that its receivers are to get of it.
pub(crate) async fn send_to_all(
    bench: &mut Bench,
    users: Vec<Session>,
    ids: &[String],
    style: (usize, Instant),
    (deliveries, receivers): (&Arc<Deliveries>, usize),
) -> Result<Acknowledged, LoadError> {
    let (senders, rooms) = (users.len(), Room::all(ids));
    let users = users.into_iter().enumerate();
    let workers: Vec<_> = users
        .map(|(number, user)| (number, Sender::new(bench, user, "send", number, style)))
        .collect();
    let acknowledged = bench.measure(bench.plan.clone(), |schedule| {
        let drain = Drain::of(senders, deliveries);
        let work = workers.into_iter().map(|(number, sender)| {
            let (pacer, rooms, drain) =
                (schedule.pacer(number, senders), rooms.clone(), drain.clone());
            async move {
                let acknowledged = sender.work(pacer, rooms).await;
                drain.sent(acknowledged.len() * receivers).await;
                acknowledged
            }
        });
        work.collect()
    });
    Ok(acknowledged.await?.into_iter().flatten().collect())
}

/// Somebody who sends.
pub(crate) struct Sender {
    session: Session,
    meter: Arc<Meter>,
    series: Arc<Series>,
    /// If it is compared, in place of that series.
    slices: Option<Arc<Slices>>,
    run: Arc<str>,
    /// Which of the run's senders this is.
    number: usize,
    /// Bytes of a message's text.
    size: usize,
    /// What messages count their time from.
    epoch: Instant,
    next: u64,
    acknowledged: Acknowledged,
}

impl Sender {
    pub(crate) fn new(
        bench: &Bench,
        session: Session,
        series: &'static str,
        number: usize,
        (size, epoch): (usize, Instant),
    ) -> Self {
        let (meter, run) = (bench.meter.clone(), bench.run.clone());
        let series = meter.series(series);
        let (next, acknowledged) = (0, Vec::new());
        Self { session, meter, series, slices: None, run, number, size, epoch, next, acknowledged }
    }

    /// One whose messages are part of a preparation: they are in no report.
    pub(crate) fn quiet(bench: &Bench, session: Session, number: usize, epoch: Instant) -> Self {
        const SIZE: usize = 80;
        let meter = Arc::new(Meter::new(None));
        let (series, run) = (meter.series("write"), bench.run.clone());
        let (next, acknowledged) = (0, Vec::new());
        let (size, slices) = (SIZE, None);
        Self { session, meter, series, slices, run, number, size, epoch, next, acknowledged }
    }

    /// What it sends is counted in these slices.
    pub(crate) fn sliced(self, slices: Arc<Slices>) -> Self {
        Self { slices: Some(slices), ..self }
    }

    /// Sends to these rooms in turn until the schedule ends; gives what was acknowledged.
    pub(crate) async fn work(mut self, mut pacer: Pacer, rooms: Vec<Room>) -> Acknowledged {
        for room in rooms.iter().cycle() {
            let Some(due) = pacer.due().await else { break };
            self.send(due, room).await;
        }
        self.acknowledged
    }

    /// Sends one message, again and again if the server fails: always as the same transaction, so
    /// that it is there once. Whether it was acknowledged.
    pub(crate) async fn send(&mut self, due: Due, room: &Room) -> bool {
        let number = self.next;
        self.next += 1;
        let at = due.at.saturating_duration_since(self.epoch).as_micros();
        let mark = Mark {
            run: self.run.to_string(),
            sender: self.number,
            number,
            at: u64::try_from(at).unwrap_or(u64::MAX),
            counted: due.counted,
        };
        let body = bytes::Bytes::from(content(&mark, self.size).to_string());
        let path =
            format!("{}/send/m.room.message/{}-{}-{number}", room.path, self.run, self.number);
        let give_up = Instant::now() + GIVE_UP;
        loop {
            match self.session.ask(Method::PUT, &path, body.clone(), Duration::ZERO).await {
                Ok(answer) => return self.acknowledge(due, room, number, &answer),
                Err(failure) => {
                    rest(&self.meter, &failure).await;
                    if !failure.may_pass() || Instant::now() > give_up {
                        return false;
                    }
                }
            }
        }
    }

    fn acknowledge(&mut self, due: Due, room: &Room, number: u64, answer: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Answer {
            event_id: String,
        }
        match read::<Answer>(answer) {
            Ok(Answer { event_id }) => {
                match &self.slices {
                    Some(slices) => slices.done(due),
                    None => self.series.done(due),
                }
                self.acknowledged
                    .push((room.index, Sent { sender: self.number, number, event_id }));
                true
            }
            Err(failure) => {
                self.meter.failed(&failure);
                false
            }
        }
    }

    /// What was acknowledged last.
    pub(crate) fn last(&self) -> Option<&str> {
        self.acknowledged.last().map(|(_, sent)| sent.event_id.as_str())
    }

    /// What was acknowledged so far.
    pub(crate) fn into_acknowledged(self) -> Acknowledged {
        self.acknowledged
    }
}

/// What all senders were told, room by room.
pub(crate) fn ledger(
    bench: &Bench,
    reader: &Account,
    rooms: &[String],
    acknowledged: impl IntoIterator<Item = (usize, Sent)>,
) -> Ledger {
    let empty = |id: &String| RoomLedger { room_id: id.clone(), sent: Vec::new() };
    let mut rooms: Vec<_> = rooms.iter().map(empty).collect();
    for (room, sent) in acknowledged {
        rooms[room].sent.push(sent);
    }
    Ledger {
        target: bench.target.clone(),
        run: bench.run.to_string(),
        reader: reader.clone(),
        rooms,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fake::{Asked, FakeServer},
        schedule::{Plan, Schedule},
    };

    fn sender(server: &Arc<crate::http::Endpoint>) -> Sender {
        let account = Account { user_id: "@a:b".to_owned(), access_token: "t".to_owned() };
        let meter = Arc::new(Meter::new(None));
        Sender {
            session: Session::of(server, &account),
            series: meter.series("send"),
            meter,
            slices: None,
            run: "run".into(),
            number: 0,
            size: 10,
            epoch: Instant::now(),
            next: 0,
            acknowledged: Vec::new(),
        }
    }

    fn plan(rate: Option<f64>, count: u64) -> Plan {
        Plan { rate, warm_up: Duration::ZERO, duration: None, count: Some(count) }
    }

    fn accepted(asked: &Asked) -> (u16, Value) {
        (200, json!({ "event_id": format!("${}", asked.path.rsplit('/').next().expect("an id")) }))
    }

    /// A server that does not answer the first request until it is told to.
    #[tokio::test]
    async fn in_an_open_loop_a_stall_is_seen_with_all_that_was_due() {
        const COUNT: u64 = 20;
        let step = Duration::from_millis(5);
        let go_on = Arc::new((Mutex::new(false), Condvar::new()));
        let gate = go_on.clone();
        let server = FakeServer::start(move |asked| {
            let (open, changed) = &*gate;
            let closed = open.lock().expect("lock");
            drop(changed.wait_while(closed, |open| !*open).expect("lock"));
            Some(accepted(asked))
        })
        .await;
        let sender = sender(&server.endpoint().await);
        let series = sender.series.clone();
        let schedule = Schedule::begin(plan(Some(1.0 / step.as_secs_f64()), COUNT));
        let rooms = Room::all(&["!r:b".to_owned()]);
        let work = tokio::spawn(sender.work(schedule.pacer(0, 1), rooms));
        // Until the last one is due, nothing is answered.
        tokio::time::sleep_until(schedule.measured_from() + step * COUNT as u32).await;
        *go_on.0.lock().expect("lock") = true;
        go_on.1.notify_all();
        assert_eq!(work.await.expect("it ends").len() as u64, COUNT);
        // One was due at the beginning, the next one a step later: the median waited half the time.
        let median = Duration::from_micros(series.total().value_at_quantile(0.5));
        assert!(median >= step * (COUNT as u32 / 2 - 2), "{median:?}");
        assert_eq!(series.total().len(), COUNT);
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_as_the_same_transaction() {
        let times = AtomicUsize::new(0);
        let paths = Arc::new(Mutex::new(Vec::new()));
        let seen = paths.clone();
        let server = FakeServer::start(move |asked| {
            seen.lock().expect("lock").push(asked.path.clone());
            Some(match times.fetch_add(1, Ordering::SeqCst) {
                0 => (429, json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1 })),
                1 => (503, json!({ "errcode": "M_UNKNOWN" })),
                _ => accepted(asked),
            })
        })
        .await;
        let sender = sender(&server.endpoint().await);
        let meter = sender.meter.clone();
        let rooms = Room::all(&["!r:b".to_owned()]);
        let acknowledged = sender.work(Schedule::begin(plan(None, 2)).pacer(0, 1), rooms).await;
        let numbers: Vec<_> = acknowledged.iter().map(|(_, sent)| sent.number).collect();
        assert_eq!(numbers, [0, 1]);
        let paths = paths.lock().expect("lock");
        assert!(paths.len() == 4 && paths[0] == paths[2] && paths[2] != paths[3], "{paths:?}");
        let errors: Vec<_> = meter.errors().into_iter().collect();
        assert_eq!(errors, [("M_LIMIT_EXCEEDED".to_owned(), 1), ("M_UNKNOWN".to_owned(), 1)]);
    }
}
