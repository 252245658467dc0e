//! What the table makes of a few people's days.

use super::*;

const ROOM: RoomNum = RoomNum(7);
const BOB: &str = "@bob:x";

fn table() -> Table {
    let options =
        PresenceOptions { idle: Duration::from_secs(300), grace: Duration::from_secs(30) };
    let mut table = Table::new(options, 1_000);
    table.meet(BOB, Background { rooms: vec![ROOM], ..Background::default() });
    table
}

/// So many seconds after the start.
fn at(seconds: u64) -> Now {
    let monotonic = Duration::from_secs(seconds);
    Now { monotonic, wall: 1_000_000_000 + seconds * 1_000 }
}

fn state(table: &Table) -> (State, bool) {
    table.status(BOB).map(|status| (status.state, status.currently_active)).expect("known")
}

#[test]
fn who_syncs_is_online_then_idle_then_gone() {
    let mut table = table();
    table.sync_began(BOB, "A", State::Online, at(0));
    assert_eq!(table.settle(BOB, at(0), false), Some(Turn::Came));
    assert_eq!(state(&table), (State::Online, true));
    for (seconds, expected) in [
        (59, (State::Online, true)),
        (60, (State::Online, false)),
        (299, (State::Online, false)),
        (300, (State::Unavailable, false)),
        (9_999, (State::Unavailable, false)),
    ] {
        assert_eq!(table.settle(BOB, at(seconds), false), None);
        assert_eq!(state(&table), expected, "after {seconds} s");
    }
    table.acted(BOB, at(10_000));
    table.settle(BOB, at(10_000), false);
    assert_eq!(state(&table), (State::Online, true));
    table.sync_ended(BOB, "A", at(10_000));
    assert_eq!(table.settle(BOB, at(10_029), false), None);
    assert_eq!(table.settle(BOB, at(10_030), false), Some(Turn::Went));
    assert_eq!(state(&table), (State::Offline, false));
    assert!(table.awake().is_empty());
}

#[test]
fn the_best_device_counts_and_what_the_user_says_counts_more() {
    let mut table = table();
    table.sync_began(BOB, "A", State::Unavailable, at(0));
    table.settle(BOB, at(0), false);
    assert_eq!(state(&table).0, State::Unavailable);
    table.sync_began(BOB, "B", State::Online, at(1));
    table.acted(BOB, at(1));
    table.settle(BOB, at(1), false);
    assert_eq!(state(&table).0, State::Online);
    table.set(BOB, "A", State::Unavailable, Some("tea".to_owned()), at(2));
    table.settle(BOB, at(2), true);
    assert_eq!(state(&table).0, State::Unavailable);
    assert_eq!(table.status(BOB).and_then(|status| status.status_msg).as_deref(), Some("tea"));
    // The next sync does not say otherwise, what the user does does.
    table.sync_began(BOB, "B", State::Online, at(3));
    table.settle(BOB, at(3), false);
    assert_eq!(state(&table).0, State::Unavailable);
    table.acted(BOB, at(4));
    table.settle(BOB, at(4), false);
    assert_eq!(state(&table).0, State::Online);
    table.set(BOB, "A", State::Offline, None, at(5));
    assert_eq!(table.settle(BOB, at(5), true), Some(Turn::Went));
    table.acted(BOB, at(6));
    assert_eq!(table.settle(BOB, at(6), false), None);
    table.sync_began(BOB, "B", State::Online, at(7));
    assert_eq!(table.settle(BOB, at(7), false), Some(Turn::Came));
}

#[test]
fn who_is_hidden_is_offline_to_all() {
    let mut table = table();
    let hidden = Background { rooms: vec![ROOM], hidden: true, ..Background::default() };
    table.sync_began(BOB, "A", State::Online, at(0));
    table.settle(BOB, at(0), false);
    table.meet(BOB, hidden);
    assert_eq!(table.settle(BOB, at(1), false), Some(Turn::Went));
    let counter = table.counter();
    table.set(BOB, "A", State::Online, Some("here".to_owned()), at(2));
    assert_eq!(table.settle(BOB, at(2), true), None);
    assert_eq!(table.status(BOB), Some(Status::default()));
    assert_eq!(table.counter(), counter);
}

#[test]
fn rooms_are_told_once_and_in_order() {
    let mut table = table();
    assert_eq!(table.rooms_since(1_000), Some(vec![]));
    assert_eq!(table.rooms_since(5), None, "that is from before this process");
    table.sync_began(BOB, "A", State::Online, at(0));
    table.settle(BOB, at(0), false);
    let came = table.counter();
    assert_eq!(table.take_untold(), [ROOM]);
    assert_eq!(table.take_untold(), []);
    assert_eq!(table.rooms_since(1_000), Some(vec![ROOM]));
    assert_eq!(table.changed_in(ROOM, 1_000, 10), [BOB.into()]);
    assert_eq!(table.changed_in(ROOM, came, 10), []);
    table.settle(BOB, at(60), false);
    assert_eq!(table.changed_in(ROOM, came, 10), [BOB.into()]);
    // A new room hears of who is there, one that was left knows nobody.
    let moved = Background { rooms: vec![RoomNum(8)], ..Background::default() };
    let before = table.counter();
    table.meet(BOB, moved);
    assert_eq!(table.rooms_since(before), Some(vec![RoomNum(8)]));
    assert_eq!(table.changed_in(RoomNum(8), before, 10), [BOB.into()]);
    assert_eq!(table.changed_in(ROOM, 0, 10), []);
    // A token of the future is of another time.
    assert_eq!(table.changed_in(RoomNum(8), u64::MAX, 10), [BOB.into()]);
}

#[test]
fn the_number_of_people_is_bounded() {
    let mut table = table();
    for number in 0..MAX_PEOPLE {
        table.meet(&format!("@u{number}:x"), Background::default());
    }
    assert_eq!(table.people.len(), MAX_PEOPLE);
    assert!(!table.knows(BOB), "who is offline longest goes first");
    table.awake = table.people.keys().cloned().collect();
    table.offline.clear();
    table.meet(BOB, Background::default());
    assert!(!table.knows(BOB), "nobody is thrown out who is there");
}

#[test]
fn the_number_of_rooms_is_bounded() {
    let mut table = table();
    let many = (0..MAX_PAIRS as u64).map(RoomNum).collect();
    table.meet("@bot:x", Background { rooms: many, ..Background::default() });
    assert!(!table.knows(BOB) && table.knows("@bot:x"));
    assert_eq!(table.pairs, MAX_PAIRS);
    table.meet("@bot:x", Background::default());
    assert_eq!((table.pairs, table.rooms.len()), (0, 0));
}

#[test]
fn what_another_server_says_counts_for_half_an_hour() {
    let mut table = table();
    let status = |state, message: &str| Status {
        state,
        currently_active: state == State::Online,
        status_msg: Some(message.to_owned()),
        last_active_ts: u64::MAX,
    };
    assert!(table.told(BOB, status(State::Online, "tea"), at(0)));
    assert_eq!(table.settle(BOB, at(0), true), Some(Turn::Came));
    assert_eq!(state(&table), (State::Online, true));
    assert_eq!(table.status(BOB).map(|status| status.last_active_ts), Some(at(0).wall));
    // The other server keeps it.
    assert_eq!(table.kept(BOB), None);
    assert!(!table.told(BOB, status(State::Unavailable, "tea"), at(60)));
    table.settle(BOB, at(60), false);
    assert_eq!(state(&table), (State::Unavailable, false));
    assert_eq!(table.settle(BOB, at(60 + 1_799), false), None);
    assert_eq!(table.settle(BOB, at(60 + 1_800), false), Some(Turn::Went));
    assert!(table.told(BOB, status(State::Online, "milk"), at(9_000)));
}
