//! What waits for one server.

use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn event(pos: u64) -> Waiting {
    Waiting { pos: StreamPos(pos), event: EventNum(pos), since: pos }
}

fn line(events: std::ops::RangeInclusive<u64>) -> Line {
    let mut line = Line::default();
    events.for_each(|pos| assert!(line.push(event(pos))));
    line
}

fn next(line: &mut Line) -> Option<Arc<Attempt>> {
    match line.next(0, || "id".to_owned()) {
        Next::Attempt(attempt) => Some(attempt),
        Next::LookUp(..) | Next::Read(_) | Next::Nothing => None,
    }
}

fn unreachable() -> Failure {
    Failure::Unreachable("no way".to_owned())
}

#[test]
fn events_go_in_order_fifty_at_a_time() {
    let mut line = line(1..=120);
    let mut sizes = Vec::new();
    let mut all = Vec::new();
    while let Some(attempt) = next(&mut line) {
        sizes.push(attempt.events.len());
        all.extend(attempt.events.iter().map(|num| num.0));
        line.delivered();
    }
    assert_eq!(sizes, [50, 50, 20]);
    assert!(all.iter().copied().eq(1..=120));
    assert_eq!(line.acknowledged, StreamPos(120));
    assert!(!line.push(event(120)), "it has that");
    assert!(!line.has_work());
}

#[test]
fn what_failed_is_repeated_as_it_was() {
    let mut line = line(1..=3);
    let first = next(&mut line).expect("a transaction");
    line.push(event(4));
    assert_eq!(line.failed(&unreachable(), 0, 0, HOUR), None);
    let again = line.next(9, || panic!("no new transaction")).attempt();
    assert_eq!(again, first);
    line.delivered();
    assert_eq!(next(&mut line).map(|attempt| attempt.events.clone()), Some(vec![EventNum(4)]));
}

#[test]
fn a_dead_server_has_nothing_in_memory_but_its_transaction() {
    let mut line = line(1..=500);
    next(&mut line);
    for n in 0..DEAD_AFTER {
        assert_eq!(line.failed(&unreachable(), n.into(), 0, HOUR), None);
    }
    line.push(event(501));
    assert_eq!((line.queue.capacity(), line.oldest()), (0, Some(1)));
    assert_eq!(next(&mut line).map(|attempt| attempt.events.len()), Some(50));
    line.delivered();
    let LookUp(behind, after) = look_up(&mut line);
    assert_eq!((behind, after), (Behind::Unknown, StreamPos(50)));
}

struct LookUp(Behind, StreamPos);

fn look_up(line: &mut Line) -> LookUp {
    match line.next(0, || panic!("nothing to send")) {
        Next::LookUp(behind, after) => LookUp(behind, after),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_queue_is_looked_up() {
    let mut line = line(1..=MAX_QUEUE as u64);
    assert!(line.push(event(5_000)));
    let LookUp(_, after) = look_up(&mut line);
    assert_eq!(after, StreamPos(0));
    let goal = Goal::Through(StreamPos(5_000));
    let found = Found { events: Vec::new(), goal, behind: None, over: Vec::new() };
    line.found(found, 0, || "id".to_owned());
    assert_eq!(line.acknowledged, StreamPos(5_000));
    assert!(line.push(event(5_001)));
    assert_eq!(next(&mut line).map(|attempt| attempt.events.len()), Some(1));
}

#[test]
fn what_is_refused_is_given_up_some_time() {
    let mut line = line(1..=1);
    next(&mut line);
    let refused = Failure::Refused("you are not welcome".to_owned());
    let given_up: Vec<_> =
        (0..MAX_REFUSALS).map(|n| line.failed(&refused, n.into(), 0, HOUR)).collect();
    assert_eq!(given_up.iter().flatten().count(), 1);
    assert_eq!(given_up.last(), Some(&Some(GivenUp { events: 1, edus: 0 })));
    assert_eq!(line.acknowledged, StreamPos(1));
    assert!(line.health.is_failing(), "the next one waits");
}

#[test]
fn who_catches_up_does_so_after_a_crash_as_well() {
    let mut behind = line(1..=MAX_QUEUE as u64);
    assert!(!behind.entry(StreamPos(0)).misses_events);
    behind.push(event(5_000));
    behind.delivered();
    assert!(behind.is_unsaved);
    let entry = behind.entry(StreamPos(0));
    assert!(entry.misses_events && entry.was_reached && entry.failures == 0);
    let mut again = Line::new(&entry, Health::default());
    assert_eq!(look_up(&mut again).0, Behind::Unknown);
    let goal = Goal::Through(StreamPos(5_000));
    let found = Found { events: Vec::new(), goal, behind: None, over: Vec::new() };
    again.found(found, 0, || "id".to_owned());
    assert!(again.is_unsaved && !again.entry(StreamPos(0)).misses_events);
}

#[test]
fn nothing_ephemeral_waits_for_whoever_is_away() {
    let typing = || super::super::edus::Edu::Typing {
        room: "!r".into(),
        user: "@a:x".into(),
        is_typing: true,
    };
    let mut line = Line::default();
    assert!(line.tell(typing()));
    assert_eq!(next(&mut line).map(|attempt| attempt.edus.len()), Some(1));
    line.failed(&unreachable(), 0, 0, HOUR);
    assert!(!line.tell(typing()));
}

impl Next {
    fn attempt(self) -> Arc<Attempt> {
        match self {
            Self::Attempt(attempt) => attempt,
            other => panic!("{other:?}"),
        }
    }
}
