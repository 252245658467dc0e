//! Rate limits: every operation that the specification limits is limited here.

use std::{fs, path::Path};

use crate::common::{Client, Server};

const NO_REFILL: &str = "{per_second=0.0001,burst=1}";

fn table(name: &str) -> Vec<Vec<String>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
    let text = fs::read_to_string(dir.join(name)).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Method and path of the operations that must be limited.
fn limited_operations() -> Vec<(String, String)> {
    let out_of_scope: Vec<_> = table("scope.tsv").into_iter().map(|row| row[1].clone()).collect();
    let is_in_scope = |method: &str, path: &str| {
        !out_of_scope
            .iter()
            .filter_map(|what| what.split_once(' '))
            .any(|(verb, prefix)| [method, "*"].contains(&verb) && path.starts_with(prefix))
    };
    let rows = table("endpoints.tsv").into_iter();
    rows.filter(|row| row[0] == "client-server" && row[7] == "yes" && is_in_scope(&row[1], &row[2]))
        .map(|row| (row[1].clone(), row[2].clone()))
        .collect()
}

/// A path with something in the place of each variable.
fn filled(template: &str) -> String {
    let pieces = template.split('/').map(|piece| match piece {
        "{userId}" => "%40alice%3Alocalhost",
        "{roomId}" | "{roomIdOrAlias}" => "%21room%3Alocalhost",
        "{receiptType}" => "m.read",
        "{kind}" => "content",
        variable if variable.starts_with('{') => "x",
        literal => literal,
    });
    pieces.collect::<Vec<_>>().join("/")
}

/// Whether one of the first requests is told to wait.
fn is_limited(client: &Client, method: &str, path: &str) -> bool {
    let mut answers = (0..2).map(|_| client.send(method, path, b"{}"));
    answers.any(|answer| answer.status == 429)
}

// Checklist 1.7
#[test]
fn whoever_asks_too_often_is_told_to_wait() {
    let classes = ["LOGIN", "REGISTRATION", "MESSAGE", "JOIN", "OTHER"];
    let names: Vec<_> = classes.iter().map(|class| format!("PARLOUR_LIMITS__{class}")).collect();
    let mut settings = vec![("PARLOUR_SERVER__TEST_MODE", "false")];
    settings.extend(names.iter().map(|name| (name.as_str(), NO_REFILL)));
    let server = Server::start_with(&settings);
    let alice = server.user("alice");
    let endless: Vec<_> = limited_operations()
        .into_iter()
        .filter(|(method, path)| !is_limited(&alice.http, method, &filled(path)))
        .collect();
    assert!(endless.is_empty(), "without a limit: {endless:?}");
}
