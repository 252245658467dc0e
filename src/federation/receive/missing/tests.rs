//! What is made of answers, however wrong.

use parlour_event::{RoomVersion, json};

use super::*;

/// An event that follows others, in a room of version 1: ids are what the event says.
fn event(id: &str, prev: &[&str]) -> Arc<Pdu> {
    let version = RoomVersion::parse("1").unwrap();
    let prev: Vec<_> = prev.iter().map(|id| format!(r#"["${id}:a.org",{{}}]"#)).collect();
    let text = format!(
        r#"{{"event_id":"${id}:a.org","room_id":"!r:a.org","sender":"@u:a.org","type":"t",
            "content":{{}},"origin_server_ts":1,"depth":1,"prev_events":[{}],"auth_events":[],
            "hashes":{{"sha256":""}},"signatures":{{}}}}"#,
        prev.join(",")
    );
    let json = json::parse_object(version, text.as_bytes()).unwrap();
    Arc::new(Pdu::from_wire(version, json).unwrap())
}

fn names(events: &[Arc<Pdu>]) -> String {
    events.iter().map(|event| event.event_id().localpart().trim_start_matches('$')).collect()
}

/// `r` is known, nothing else.
fn is_known(id: &EventId) -> Result<bool, StorageError> {
    Ok(id.as_str() == "$r:a.org")
}

#[test]
fn what_was_found_is_sorted_whatever_its_order_was() {
    let mut found = Found::new(event("e", &["d"]));
    assert_eq!(found.whose_prev_events_are_missing(is_known).unwrap(), ["$e:a.org"]);
    let page = vec![event("b", &["a", "r"]), event("d", &["c", "b"]), event("c", &["b"])];
    assert!(found.add(page, is_known).unwrap());
    assert_eq!(found.whose_prev_events_are_missing(is_known).unwrap(), ["$b:a.org"]);
    // What leads nowhere, what is known, and what was there already is not taken.
    let page = vec![event("x", &["a"]), event("r", &["q"]), event("b", &["a", "r"])];
    assert!(!found.add(page, is_known).unwrap());
    assert!(found.add(vec![event("a", &["r"])], is_known).unwrap());
    assert!(found.whose_prev_events_are_missing(is_known).unwrap().is_empty());
    assert_eq!(names(&found.oldest_first()), "abcd");
}

#[test]
fn events_that_follow_each_other_in_a_circle_end() {
    let mut found = Found::new(event("e", &["a", "e"]));
    let page = vec![event("a", &["b"]), event("b", &["c", "b"]), event("c", &["a", "e"])];
    assert!(found.add(page, is_known).unwrap());
    assert_eq!(names(&found.oldest_first()), "cba");
}

#[test]
fn a_long_chain_is_no_long_recursion() {
    let name = |n: usize| format!("n{n}");
    let mut found = Found::new(event("e", &[&name(0)]));
    let chain = (0..20_000).map(|n| event(&name(n), &[&name(n + 1)]));
    assert!(found.add(chain.collect(), is_known).unwrap());
    assert_eq!(found.oldest_first().len(), 20_000);
}
