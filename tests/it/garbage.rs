//! Garbage: every body, path variable, parameter, filter, token and header of every endpoint that
//! is registered, filled with what no client should send. Whatever comes, the answer is a success
//! or a Matrix error, nothing panics, and everybody else goes on as before.
//!
//! Cases that are drawn come from a printed seed; `PROPTEST_CASES` says how many are drawn for each
//! endpoint.

mod healthy;
mod hostile;
mod operations;
mod values;
mod wire;

use serde_json::{Value, json};

use self::{
    healthy::Healthy,
    hostile::Hostile,
    operations::{Operation, operations},
};
use crate::common::{Client, Random, Server, path};

/// How many drawn cases an endpoint gets: few under its older paths, where the same code answers.
fn cases_of(operation: &Operation, usual: usize) -> usize {
    if operation.again { cases(usual).min(6) } else { cases(usual) }
}

/// How many drawn cases there are.
fn cases(usual: usize) -> usize {
    std::env::var("PROPTEST_CASES").map_or(usual, |text| text.parse().unwrap())
}

/// Draws some of many, or takes all.
fn draw<T>(random: &mut Random, mut all: Vec<T>, most: usize) -> Vec<T> {
    let mut drawn = Vec::new();
    while drawn.len() < most && !all.is_empty() {
        let index = usize::try_from(random.below(all.len() as u64)).unwrap();
        drawn.push(all.swap_remove(index));
    }
    drawn
}

/// A path for a message: absurd ones are cut.
fn short(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Calls that went wrong are collected, so that one run finds all.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    /// Sends garbage; a success and an error of the client's are fine.
    fn judge(&mut self, client: &Client, method: &str, at: &str, body: &[u8]) -> u16 {
        let body_text = short(&String::from_utf8_lossy(body));
        let asked = format!("{method} {} {body_text}", short(at));
        let sent = std::panic::AssertUnwindSafe(|| client.send(method, at, body));
        match std::panic::catch_unwind(sent) {
            Ok(answer) => {
                if answer.status >= 500 || matches!(answer.status, 300..400) {
                    self.0.push(format!("{asked}: {} {}", answer.status, answer.body));
                }
                answer.status
            }
            Err(why) => {
                let why = why.downcast_ref::<String>().map(|why| short(why)).unwrap_or_default();
                self.0.push(format!("{asked}: {why}"));
                0
            }
        }
    }

    /// The same for what can't be good: a success is wrong, too.
    fn refused(&mut self, client: &Client, method: &str, at: &str, body: &[u8]) {
        let status = self.judge(client, method, at, body);
        if (200..300).contains(&status) {
            let body = short(&String::from_utf8_lossy(body));
            self.0.push(format!("{method} {} {body}: {status}", short(at)));
        }
    }

    #[track_caller]
    fn none(self) {
        let count = self.0.len();
        let some: Vec<_> = self.0.into_iter().take(40).collect();
        assert!(some.is_empty(), "{count} complaints, such as\n{}", some.join("\n"));
    }
}

/// Runs garbage against every endpoint beside users who want no trouble.
fn storm(mut garbage: impl FnMut(&mut Hostile<'_>, &Operation, &mut Random, &mut Complaints)) {
    let mut random = Random::from_environment();
    let mut server = Server::start();
    let mut healthy = Healthy::new(&server);
    let mut complaints = Complaints::default();
    let mut hostile = Hostile::new(&server, &healthy.room);
    for operation in operations() {
        hostile.refresh();
        garbage(&mut hostile, operation, &mut random, &mut complaints);
        healthy.say(operation.template);
    }
    complaints.none();
    healthy.go_on(&server);
    // What garbage left in the log is read again.
    server.restart();
    healthy.go_on(&server);
}

#[test]
fn every_registered_endpoint_is_in_the_table() {
    let known = operations();
    assert!(known.len() > 60, "{} endpoints", known.len());
    let missing: Vec<_> = known
        .iter()
        .filter(|operation| {
            let takes_body = matches!(operation.method.as_str(), "POST" | "PUT");
            let no_sample = operation.sample == Value::Null && !operation.bodiless();
            !operation.known || takes_body && no_sample
        })
        .map(|operation| format!("{} {}", operation.method, operation.template))
        .collect();
    assert!(missing.is_empty(), "nothing is known about {missing:#?}");
}

#[test]
fn bodies_that_are_no_json() {
    storm(|hostile, operation, random, complaints| {
        for body in draw(random, values::bodies(), cases_of(operation, 100)) {
            let at = hostile.path(operation);
            let client = hostile.client(operation);
            if operation.method == "GET" {
                complaints.judge(&client, &operation.method, &at, &body);
            } else {
                complaints.refused(&client, &operation.method, &at, &body);
            }
        }
    });
}

#[test]
fn bodies_with_garbage_in_every_field() {
    storm(|hostile, operation, random, complaints| {
        if operation.method == "GET" {
            return;
        }
        let sample = hostile.sample(operation);
        for body in draw(random, values::mutations(&sample), cases_of(operation, 120)) {
            let at = hostile.path(operation);
            let status = complaints.judge(
                &hostile.client(operation),
                &operation.method,
                &at,
                body.as_bytes(),
            );
            hostile.after(operation, status);
        }
    });
}

#[test]
fn paths_with_garbage_in_every_variable() {
    storm(|hostile, operation, random, complaints| {
        let body = hostile.sample(operation).to_string();
        let count = operation.template.matches('{').count();
        let each =
            (0..count).flat_map(|n| values::segments().into_iter().map(move |text| (n, text)));
        for (number, text) in draw(random, each.collect(), cases_of(operation, 60)) {
            let at = hostile.path_with(operation, number, &text);
            let status = complaints.judge(
                &hostile.client(operation),
                &operation.method,
                &at,
                body.as_bytes(),
            );
            hostile.after(operation, status);
        }
    });
}

#[test]
fn queries_with_garbage_in_every_parameter() {
    storm(|hostile, operation, random, complaints| {
        let body = hostile.sample(operation).to_string();
        for query in draw(random, values::queries(&operation.parameters), cases_of(operation, 60)) {
            let at = format!("{}?{query}", hostile.path(operation));
            let body = if operation.method == "GET" { "" } else { &body };
            let status = complaints.judge(
                &hostile.client(operation),
                &operation.method,
                &at,
                body.as_bytes(),
            );
            hostile.after(operation, status);
        }
    });
}

#[test]
fn tokens_and_filters_that_are_nearly_good() {
    let mut random = Random::from_environment();
    let server = Server::start();
    let mut healthy = Healthy::new(&server);
    let mut complaints = Complaints::default();
    let (user, room) = (healthy.bob.clone(), healthy.room.clone());
    let messages = path("/_matrix/client/v3/rooms/{}/messages?dir=b", &[&room]);
    let tokens =
        [healthy.since().to_owned(), user.http.get(&format!("{messages}&limit=1")).text("end")];
    let context = path("/_matrix/client/v3/rooms/{}/context/{}?", &[&room, healthy.event()]);
    let ways = [
        "/_matrix/client/v3/sync?since={}".to_owned(),
        format!("{messages}&from={{}}"),
        format!("{messages}&to={{}}"),
        path("/_matrix/client/v3/rooms/{}/members?at=", &[&room]) + "{}",
    ];
    for way in &ways {
        for token in values::tokens(&mut random, &tokens, cases(100)) {
            complaints.judge(&user.http, "GET", &path(way, &[&token]), b"");
        }
    }
    let upload = path("/_matrix/client/v3/user/{}/filter", &[&user.id]);
    for filter in draw(&mut random, values::mutations(&values::filter()), cases(400)) {
        let inline = [
            "/_matrix/client/v3/sync?filter={}",
            &format!("{messages}&filter={{}}"),
            &format!("{context}filter={{}}"),
        ]
        .map(|way| path(way, &[&filter]));
        for at in inline.iter().filter(|at| at.len() < 60_000) {
            complaints.judge(&user.http, "GET", at, b"");
        }
        complaints.judge(&user.http, "POST", &upload, filter.as_bytes());
    }
    complaints.none();
    healthy.go_on(&server);
}

#[test]
fn stored_filters_work_or_were_refused() {
    let mut random = Random::from_environment();
    let server = Server::start();
    let user = server.user("mallory");
    user.public_room();
    let mut complaints = Complaints::default();
    let upload = path("/_matrix/client/v3/user/{}/filter", &[&user.id]);
    for filter in draw(&mut random, values::mutations(&values::filter()), cases(150)) {
        let answer = user.http.send("POST", &upload, filter.as_bytes());
        let Some(id) = answer.body["filter_id"].as_str() else { continue };
        user.http.get(&path("/_matrix/client/v3/user/{}/filter/{}", &[&user.id, id])).ok();
        let at = path("/_matrix/client/v3/sync?filter={}", &[id]);
        complaints.judge(&user.http, "GET", &at, b"");
    }
    complaints.none();
}

#[test]
fn authorization_that_is_none() {
    let server = Server::start();
    let mut healthy = Healthy::new(&server);
    let mut complaints = Complaints::default();
    let hostile = Hostile::new(&server, &healthy.room);
    for operation in operations() {
        let at = hostile.path(operation);
        let body = hostile.sample(operation).to_string();
        for header in values::authorizations() {
            let client = server.http.with_header("Authorization", &header);
            let open = !operation.authenticated;
            if open {
                complaints.judge(&client, &operation.method, &at, body.as_bytes());
            } else {
                complaints.refused(&client, &operation.method, &at, body.as_bytes());
            }
        }
        for token in ["", "%00", "%ff", "x", "=&=", "%zz"] {
            let at = format!("{at}?access_token={token}");
            complaints.judge(&server.http, &operation.method, &at, body.as_bytes());
        }
    }
    complaints.none();
    healthy.go_on(&server);
}

#[test]
fn bytes_that_are_hardly_http() {
    let server = Server::start();
    let mut healthy = Healthy::new(&server);
    let mut complaints = Complaints::default();
    for case in wire::cases(&healthy.bob.token, &healthy.room) {
        if let Err(why) = wire::ask(server.base(), &case) {
            complaints.0.push(why);
        }
    }
    complaints.none();
    healthy.go_on(&server);
}

#[test]
fn a_login_without_a_type_is_refused_in_silence() {
    let server = Server::start();
    let login = "/_matrix/client/v3/login";
    for body in [json!({}), json!({ "typ": "m.login.password" }), json!({ "type": 1 })] {
        server.http.post(login, &body).refused(400, "M_BAD_JSON");
    }
    server.http.send("POST", login, b"").refused(400, "M_NOT_JSON");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_filter_asks_for_a_format_that_there_is() {
    let server = Server::start();
    let alice = server.user("alice");
    let upload = path("/_matrix/client/v3/user/{}/filter", &[&alice.id]);
    for (format, status) in [("client", 200), ("federation", 200), ("*", 400), ("", 400)] {
        let answer = alice.http.post(&upload, &json!({ "event_format": format }));
        assert_eq!(answer.status, status, "{format}: {}", answer.body);
    }
}
