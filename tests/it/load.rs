//! `parlour load`, run against a server as people run it: every scenario for a moment.

use std::fs;

use serde_json::Value;

use crate::common::{Ran, SHARED_SECRET, Server};

/// Runs a scenario that must succeed, and gives its summary.
#[track_caller]
fn summary(server: &Server, arguments: &[&str]) -> Value {
    let json = server.home().join("run.jsonl");
    let output = [&["--json", json.to_str().unwrap(), "--warm-up", "0s"], arguments].concat();
    let table = server.load(&output).ok();
    assert!(table.contains("all there, once, in order"), "{table}");
    let lines = fs::read_to_string(json).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "summary");
    assert_eq!(last["errors"], serde_json::json!({}), "{last}");
    last
}

/// The number of operations of a kind.
#[track_caller]
fn count(summary: &Value, kind: &str) -> u64 {
    let series = summary["series"].as_array().unwrap();
    let series = series.iter().find(|series| series["name"] == kind).unwrap();
    assert!(series["count"] == 0 || series["p99"].as_f64().unwrap() > 0.0, "{series}");
    series["count"].as_u64().unwrap()
}

#[track_caller]
fn checked(summary: &Value) -> u64 {
    summary["verification"]["checked"].as_u64().unwrap()
}

#[test]
fn messages_are_sent_and_read_back() {
    let server = Server::start();
    let one = summary(&server, &["send", "--count", "30", "--threads", "2"]);
    assert_eq!((count(&one, "send"), checked(&one)), (30, 30));
    // The server was found by its port.
    assert!(one["server"]["rss_peak"].as_u64().unwrap() > 1 << 20, "{one}");
    assert_eq!(one["label"], concat!("Parlour ", env!("CARGO_PKG_VERSION")));
    let metrics = format!("{}/metrics", server.base());
    let many = ["send", "--senders", "4", "--rooms", "6", "--rate", "200", "--duration", "300ms"];
    let many = summary(&server, &[&many[..], &["--metrics", &metrics]].concat());
    assert!(checked(&many) > 0 && many["rate"] == 200.0, "{many}");
    let stages = many["stages"].as_array().unwrap();
    let flush = stages.iter().find(|stage| stage["name"] == "flush").unwrap();
    assert!(flush["mean"].as_f64().unwrap() > 0.0, "{flush}");
}

#[test]
fn what_is_sent_is_delivered() {
    let server = Server::start();
    let run = summary(&server, &["fanout", "--receivers", "5", "--senders", "2", "--count", "20"]);
    assert_eq!((count(&run, "send"), count(&run, "delivery")), (20, 100));
    assert_eq!(checked(&run), 120);
}

#[test]
fn rooms_are_created_and_joined() {
    let server = Server::start();
    let made = summary(&server, &["create", "--users", "3", "--count", "9", "--private"]);
    assert_eq!((count(&made, "create"), checked(&made)), (9, 9));
    let joined = summary(&server, &["join-storm", "--users", "6", "--rooms", "3"]);
    assert_eq!((count(&joined, "join"), checked(&joined)), (18, 18));
}

#[test]
fn syncs_have_what_they_must_have() {
    let server = Server::start();
    let first = ["initial-sync", "--users", "2", "--rooms", "3", "--messages", "4", "--count", "6"];
    let first = summary(&server, &first);
    // Three rooms in each of six syncs, and the twelve messages in them.
    assert_eq!((count(&first, "initial sync"), checked(&first)), (6, 30));
    let next = ["incremental-sync", "--users", "2", "--rooms", "4", "--count", "20"];
    let next = summary(&server, &next);
    assert_eq!((count(&next, "incremental sync"), checked(&next)), (20, 40));
}

#[test]
fn history_is_walked_through() {
    let server = Server::start();
    let walk = ["paginate", "--users", "2", "--messages", "50", "--page", "10", "--count", "40"];
    let run = summary(&server, &walk);
    assert_eq!(count(&run, "page"), 40);
    assert!(checked(&run) >= 50, "{run}");
}

#[test]
fn those_who_wait_are_counted_and_woken() {
    let server = Server::start();
    let run = summary(&server, &["idle", "--parked", "30", "--users", "7", "--duration", "200ms"]);
    assert_eq!((count(&run, "wake"), checked(&run)), (30, 31));
    let notes = run["notes"].to_string();
    assert!(notes.contains("30 parked syncs") && notes.contains("KiB"), "{notes}");
    // What is in the way of more is said before anything is done.
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|column| files.split_whitespace().nth(column).unwrap());
    assert_eq!(soft, hard, "the server takes what it may have");
    if hard != "unlimited" {
        let many = server.load(&["idle", "--parked", hard]).failed_in_one_line();
        assert!(many.contains("open files") && many.contains("ulimit -Hn"), "{many}");
    }
}

#[test]
fn a_day_goes_by() {
    let server = Server::start_with(&[("PARLOUR_PRESENCE__ENABLED", "true")]);
    let profile = server.load(&["mixed", "--print-profile"]).ok();
    let own = server.home().join("own.toml");
    // Everything as often as everything else, so that nothing is missing.
    let even = profile.lines().map(|line| match line.split_once(" = ") {
        Some((name @ ("message" | "read" | "scroll" | "members" | "presence" | "open"), _)) => {
            format!("{name} = 1\n")
        }
        _ => format!("{line}\n"),
    });
    fs::write(&own, even.collect::<String>()).unwrap();
    let day = ["mixed", "--users", "8", "--speed", "100", "--duration", "2s", "--profile"];
    let run = summary(&server, &[&day[..], &[own.to_str().unwrap()]].concat());
    for kind in ["send", "delivery", "typing", "receipt", "presence", "scroll", "members", "open"] {
        assert!(count(&run, kind) > 0, "{kind}: {run}");
    }
    fs::write(&own, profile.replace("users = 50", "users = 0")).unwrap();
    let refused = server.load(&["mixed", "--profile", own.to_str().unwrap()]).failed_in_one_line();
    assert!(refused.contains("own.toml: there must be users"), "{refused}");
    let paced = server.load(&["mixed", "--rate", "5"]).failed_in_one_line();
    assert!(paced.contains("--speed"), "{paced}");
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut server = Server::start();
    let manifest = server.home().join("manifest.json");
    let manifest = manifest.to_str().unwrap().to_owned();
    let send = ["send", "--senders", "4", "--count", "40", "--no-verify", "--manifest", &manifest];
    server.load(&send).ok();
    server.restart();
    let verified = server.load(&["verify", &manifest]).ok();
    assert!(verified.contains("all there, once, in order"), "{verified}");
    // A server that does not have what it has acknowledged is found out.
    let lie =
        fs::read_to_string(&manifest).unwrap().replacen("\"event_id\":\"$", "\"event_id\":\"$x", 1);
    fs::write(&manifest, lie).unwrap();
    let failed = server.load(&["verify", &manifest]).failed_in_one_line();
    assert!(failed.contains("1 lost") && failed.contains("$x"), "{failed}");
    server.kill();
    let unreachable = server.load(&["verify", &manifest]).failed_in_one_line();
    assert!(unreachable.contains("cannot reach"), "{unreachable}");
}

#[test]
fn users_are_made_as_the_server_allows() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "closed")]);
    let send = ["send", "--count", "3", "--warm-up", "0s"];
    let refused = server.load(&send).failed_in_one_line();
    assert!(
        refused.contains("cannot register users") && refused.contains("--shared-secret"),
        "{refused}"
    );
    let users = server.home().join("users.json");
    let secret = ["--shared-secret", SHARED_SECRET, "--users-file", users.to_str().unwrap()];
    server.load(&[&send[..], &secret].concat()).ok();
    let known = fs::read_to_string(&users).unwrap();
    // Without the secret, those of the file do.
    server.load(&[&send[..], &secret[2..]].concat()).ok();
    assert_eq!(fs::read_to_string(&users).unwrap(), known);
}

#[test]
fn a_registration_token_lets_users_in() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "token")]);
    let root = server.admin("root");
    let token = serde_json::json!({ "token": "come-in" });
    root.http.post("/_synapse/admin/v1/registration_tokens/new", &token).ok();
    let send = ["send", "--count", "3", "--warm-up", "0s", "--registration-token"];
    server.load(&[&send[..], &["come-in"]].concat()).ok();
    let refused = server.load(&[&send[..], &["stay-out"]].concat()).failed_in_one_line();
    assert!(refused.contains("cannot register users"), "{refused}");
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let server = Server::start_with(&[
        ("PARLOUR_SERVER__TEST_MODE", "false"),
        ("PARLOUR_LIMITS__MESSAGE", "{ per_second = 20.0, burst = 5 }"),
        ("PARLOUR_LIMITS__REGISTRATION", "{ per_second = 100.0, burst = 100 }"),
    ]);
    let run = server.load(&["send", "--count", "12", "--warm-up", "0s"]).ok();
    assert!(run.contains("M_LIMIT_EXCEEDED") && run.contains("12 acknowledged"), "{run}");
}

#[test]
fn several_runs_make_one_page() {
    let server = Server::start();
    let files = ["a.jsonl", "b.jsonl"].map(|name| server.home().join(name));
    let files = files.each_ref().map(|file| file.to_str().unwrap());
    for (file, label) in files.iter().zip(["left <b>", "right"]) {
        server
            .load(&[
                "send",
                "--duration",
                "2s",
                "--warm-up",
                "0s",
                "--json",
                file,
                "--label",
                label,
            ])
            .ok();
    }
    let page = server.home().join("page.html");
    let table = server.load(&["report", files[0], files[1], "--html", page.to_str().unwrap()]).ok();
    assert!(table.contains("left <b>") && table.contains("right"), "{table}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("left &lt;b&gt;") && !page.contains("left <b>"));
    assert_eq!(page.matches("<section>").count(), 1);
    for axis in ["latency (ms)", "time since the beginning (s)", "percentile", "cores in use"] {
        assert!(page.contains(axis), "{axis}");
    }
    assert!(!page.contains("http://www") && !page.contains("<script"));
}

#[test]
fn what_makes_no_sense_is_said_in_one_line() {
    let server = Server::start();
    let line = |arguments: &[&str]| server.load(arguments).failed_in_one_line();
    assert!(line(&["send", "--target", "ftp://x"]).contains("https://matrix.example.org"));
    assert!(line(&["send", "--target", "http://127.0.0.1:1"]).contains("does the server run"));
    assert!(line(&["send", "--server-pid", "4194304"]).contains("no such process"));
    let elsewhere = format!("{}/_matrix/client/versions", server.base());
    assert!(line(&["send", "--metrics", &elsewhere]).contains("is it Parlour's?"));
    assert!(line(&["report", "missing.jsonl"]).contains("missing.jsonl"));
    let usage = |arguments: &[&str]| {
        let Ran { code, err, .. } = server.load(arguments);
        assert_eq!(code, 2, "{err}");
        err
    };
    assert!(usage(&["send", "--duration", "5"]).contains("it needs a unit"));
    assert!(usage(&["send", "--rate", "0"]).contains("above 0"));
    assert!(usage(&["send", "--senders", "0"]).contains("--senders"));
}

/// A server that believes the certificates that the generator has made.
fn neighbour() -> Server {
    let server = Server::prepare_federated(&[]);
    let made = server.load(&["certificates", "played"]).ok();
    assert!(made.contains("played/ca.pem"), "{made}");
    let believed = r#"["ca.pem", "played/ca.pem"]"#;
    let mut server = server.with(&[("PARLOUR_FEDERATION__EXTRA_CA_FILES", believed)]);
    server.launch();
    server
}

#[test]
fn played_servers_send_and_are_sent_to() {
    let server = neighbour();
    let played = ["--certificates", "played"];
    let inward =
        ["federation-in", "--servers", "3", "--rooms", "2", "--pdus", "5", "--count", "12"];
    let inward = summary(&server, &[&inward[..], &played].concat());
    assert_eq!((count(&inward, "transaction"), count(&inward, "event")), (12, 60));
    assert_eq!((count(&inward, "delivery"), checked(&inward)), (60, 120));
    let outward = ["federation-out", "--destinations", "3", "--dead", "2", "--count", "20"];
    let outward = summary(&server, &[&outward[..], &played].concat());
    assert_eq!((count(&outward, "send"), count(&outward, "delivery")), (20, 60));
    assert_eq!(checked(&outward), 80);
}

#[test]
fn a_storm_of_states_is_made_elsewhere() {
    let server = neighbour();
    let storm = ["state-storm", "--duration", "2s", "--certificates", "played"];
    let run = summary(&server, &storm);
    for kind in ["branch", "send in quiet", "send in the storm"] {
        assert!(count(&run, kind) > 0, "{kind}: {run}");
    }
    let notes = run["notes"].to_string();
    assert!(notes.contains("times as much") && notes.contains("median of 10 slices"), "{run}");
    let counted = server.load(&["state-storm", "--count", "1"]).failed_in_one_line();
    assert!(counted.contains("--duration"), "{counted}");
    let missing = ["state-storm", "--certificates", "missing"];
    let missing = server.load(&missing).failed_in_one_line();
    assert!(missing.contains("parlour load certificates missing"), "{missing}");
}

#[test]
fn a_server_in_test_mode_makes_what_a_run_begins_with() {
    let server = Server::start_with(&[("PARLOUR_REGISTRATION__MODE", "closed")]);
    let bulk = ["--bulk", "--shared-secret", SHARED_SECRET];
    let fanout =
        ["fanout", "--receivers", "5", "--senders", "2", "--count", "10", "--crowd", "150"];
    let run = summary(&server, &[&fanout[..], &bulk].concat());
    assert_eq!((count(&run, "send"), count(&run, "delivery")), (10, 50));
    let root = server.admin("root");
    let rooms = root.http.get("/_synapse/admin/v1/rooms").ok();
    // The owner, who sends and who receives, and the crowd.
    assert_eq!(rooms["rooms"][0]["joined_members"], 1 + 2 + 5 + 150);
    let storm = ["join-storm", "--users", "3", "--rooms", "4"];
    let token = ["--bulk", "--admin-token", &root.token];
    assert_eq!(checked(&summary(&server, &[&storm[..], &token].concat())), 12);
    // History, too: each walk has all of it, and each first sync its end.
    let walk = ["paginate", "--users", "1", "--messages", "1200", "--page", "500", "--count", "6"];
    let run = summary(&server, &[&walk[..], &bulk].concat());
    assert_eq!(count(&run, "page"), 6);
    assert_eq!(checked(&run), 2 * 1_200, "{run}");
    let open = ["initial-sync", "--users", "2", "--rooms", "3", "--messages", "40", "--members"];
    let open = [&open[..], &["--count", "4", "--crowd", "20"], &bulk].concat();
    assert_eq!(checked(&summary(&server, &open)), 3 * 40 + 4 * 3);
    // The second run finds the users of the first in its file.
    let users = server.home().join("users.json");
    let idle = ["idle", "--parked", "30", "--users", "7", "--duration", "200ms", "--users-file"];
    let idle = [&idle[..], &[users.to_str().unwrap()], &bulk].concat();
    for _ in 0..2 {
        assert_eq!(count(&summary(&server, &idle), "wake"), 30);
    }
    let nobody = server.load(&["send", "--bulk"]).failed_in_one_line();
    assert!(nobody.contains("--shared-secret"), "{nobody}");
    let alone = server.load(&["send", "--crowd", "5"]).failed_in_one_line();
    assert!(alone.contains("--bulk"), "{alone}");
    let other = Server::start_with(&[("PARLOUR_SERVER__TEST_MODE", "false")]);
    let refused = other.load(&[&["send"][..], &bulk].concat()).failed_in_one_line();
    assert!(refused.contains("test mode"), "{refused}");
}
