//! What the specification says in prose and its schemas leave out.

use serde_json::Value;

use super::answer::Answer;

/// Every answer carries the three CORS headers, and JSON says that it is JSON.
#[track_caller]
pub(crate) fn headers(method: &str, answer: &Answer) {
    let what = format!("{} {}: {:?}", answer.asked, answer.status, answer.headers);
    let header = |name: &str| answer.headers.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(header("access-control-allow-origin"), "*", "{what}");
    for verb in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(header("access-control-allow-methods").contains(verb), "{what}");
    }
    for name in ["x-requested-with", "content-type", "authorization"] {
        let allowed = header("access-control-allow-headers").to_ascii_lowercase();
        assert!(allowed.contains(name), "{what}");
    }
    if method != "OPTIONS" && !answer.body.is_null() {
        assert!(header("content-type").starts_with("application/json"), "{what}");
    }
    if answer.status == 429 {
        assert!(header("retry-after").parse::<u64>().is_ok(), "{what}");
        assert!(answer.body["retry_after_ms"].is_u64(), "{what}: {}", answer.body);
    }
}

/// Shapes that the schemas don't have.
#[track_caller]
pub(crate) fn body(method: &str, template: Option<&str>, answer: &Answer) {
    let is_page =
        answer.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if answer.status >= 400 && answer.body["flows"].is_null() && !is_page {
        let code = answer.body["errcode"].as_str().unwrap_or_default();
        let text = answer.body["error"].as_str().unwrap_or_default();
        assert!(!code.is_empty() && !text.is_empty(), "{}: {}", answer.asked, answer.body);
        let needs = match code {
            "M_RESOURCE_LIMIT_EXCEEDED" => Some("admin_contact"),
            "M_USER_LIMIT_EXCEEDED" => Some("info_uri"),
            _ => None,
        };
        let has = |key: &str| answer.body[key].is_string();
        assert!(needs.is_none_or(has), "{}: {}", answer.asked, answer.body);
    }
    let is_sync = template.is_some_and(|path| path.ends_with("/v3/sync"));
    if method == "GET" && is_sync && answer.status == 200 {
        sync(&answer.body);
    }
}

#[track_caller]
fn sync(body: &Value) {
    for event in each(&body["to_device"]["events"]) {
        let whole = event["type"].is_string() && event["content"].is_object();
        assert!(whole && event["sender"].is_string(), "to_device: {event}");
    }
    for key in ["changed", "left"] {
        for user in each(&body["device_lists"][key]) {
            assert!(user.as_str().is_some_and(|id| id.starts_with('@')), "device_lists: {user}");
        }
    }
    let unused = &body["device_unused_fallback_key_types"];
    assert!(unused.is_null() || each(unused).all(Value::is_string), "fallback keys: {unused}");
    for (section, key) in [("invite", "invite_state"), ("knock", "knock_state")] {
        for (room, about) in body["rooms"][section].as_object().into_iter().flatten() {
            let mut events = each(&about[key]["events"]);
            assert!(events.any(|event| event["type"] == "m.room.create"), "{section} {room}");
        }
    }
    for section in ["join", "leave"] {
        for (room, about) in body["rooms"][section].as_object().into_iter().flatten() {
            timeline(room, &about["timeline"]);
        }
    }
}

#[track_caller]
fn timeline(room: &str, timeline: &Value) {
    let mut ids: Vec<_> = each(&timeline["events"]).map(|event| &event["event_id"]).collect();
    let limited = timeline["limited"] == true;
    assert!(!limited || timeline["prev_batch"].is_string(), "{room}: limited, no prev_batch");
    let all = ids.len();
    ids.sort_by_key(|id| id.as_str());
    ids.dedup();
    assert_eq!(ids.len(), all, "{room}: an event twice in one timeline");
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
