//! The endpoints that are registered, as the server itself tells, with what the specification
//! says about their parameters and bodies.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{LazyLock, mpsc},
};

use parlour::{
    assemble::assemble,
    config::{Config, Source},
    server,
};
use parlour_actors::env::Env;
use serde_json::{Map, Value, json};

/// One method of one path.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) method: String,
    /// With `{variables}` as ruma names them.
    pub(super) template: &'static str,
    /// The query's parameters.
    pub(super) parameters: Vec<String>,
    /// A body made of the definition's examples; `Null` where there is none.
    pub(super) sample: Value,
    /// Whether it wants an access token.
    pub(super) authenticated: bool,
    /// Whether anything is known about it but its path.
    pub(super) known: bool,
    /// Whether this is another path of an endpoint that comes later.
    pub(super) again: bool,
}

const ACCOUNT_DATA: &str =
    "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/account_data/{event_type}";
const ROOM_ACCOUNT_DATA: &str = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/rooms/\
    {room_id}/account_data/{event_type}";
const SUBSCRIPTION: &str = "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/\
    {thread_root}/subscription";
const SUBSCRIPTIONS: &str = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions";
const DEHYDRATED: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
const DEHYDRATED_EVENTS: &str =
    "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events";

/// A dehydrated device (MSC3814).
fn dehydrated() -> Value {
    json!({ "device_id": "D", "initial_device_display_name": "X",
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": "x", "nonce": "y" },
        "device_keys": { "user_id": "@a:b", "device_id": "D", "algorithms": ["a"],
            "keys": { "ed25519:D": "x" }, "signatures": {} },
        "one_time_keys": { "signed_curve25519:A": { "key": "a", "signatures": {} } },
        "fallback_keys": { "signed_curve25519:B": { "key": "b", "signatures": {} } } })
}

/// The endpoints of operators' tools.
const OPERATORS: [(&str, &str); 48] = [
    ("GET", "/_synapse/admin/v1/server_version"),
    ("GET", "/_synapse/admin/v2/users"),
    ("GET", "/_synapse/admin/v3/users"),
    ("GET", "/_synapse/admin/v2/users/{user_id}"),
    ("PUT", "/_synapse/admin/v2/users/{user_id}"),
    ("GET", "/_synapse/admin/v1/users/{user_id}/admin"),
    ("PUT", "/_synapse/admin/v1/users/{user_id}/admin"),
    ("GET", "/_synapse/admin/v1/users/{user_id}/joined_rooms"),
    ("POST", "/_synapse/admin/v1/reset_password/{user_id}"),
    ("POST", "/_synapse/admin/v1/deactivate/{user_id}"),
    ("PUT", "/_synapse/admin/v1/suspend/{user_id}"),
    ("GET", "/_synapse/admin/v2/users/{user_id}/devices"),
    ("GET", "/_synapse/admin/v2/users/{user_id}/devices/{device_id}"),
    ("PUT", "/_synapse/admin/v2/users/{user_id}/devices/{device_id}"),
    ("DELETE", "/_synapse/admin/v2/users/{user_id}/devices/{device_id}"),
    ("POST", "/_synapse/admin/v2/users/{user_id}/delete_devices"),
    ("POST", "/_synapse/admin/v1/users/{user_id}/login"),
    ("GET", "/_synapse/admin/v1/whois/{user_id}"),
    ("GET", "/_synapse/admin/v1/registration_tokens"),
    ("POST", "/_synapse/admin/v1/registration_tokens/new"),
    ("GET", "/_synapse/admin/v1/registration_tokens/{token}"),
    ("PUT", "/_synapse/admin/v1/registration_tokens/{token}"),
    ("DELETE", "/_synapse/admin/v1/registration_tokens/{token}"),
    ("GET", "/_synapse/admin/v1/event_reports"),
    ("GET", "/_synapse/admin/v1/event_reports/{report_id}"),
    ("DELETE", "/_synapse/admin/v1/event_reports/{report_id}"),
    ("GET", "/_synapse/admin/v1/rooms"),
    ("GET", "/_synapse/admin/v1/rooms/{room_id}"),
    ("DELETE", "/_synapse/admin/v1/rooms/{room_id}"),
    ("GET", "/_synapse/admin/v1/rooms/{room_id}/members"),
    ("GET", "/_synapse/admin/v1/rooms/{room_id}/state"),
    ("GET", "/_synapse/admin/v1/rooms/{room_id}/block"),
    ("PUT", "/_synapse/admin/v1/rooms/{room_id}/block"),
    ("DELETE", "/_synapse/admin/v2/rooms/{room_id}"),
    ("GET", "/_synapse/admin/v2/rooms/{room_id}/delete_status"),
    ("GET", "/_synapse/admin/v2/rooms/delete_status/{delete_id}"),
    ("GET", "/_synapse/admin/v1/federation/destinations"),
    ("GET", "/_synapse/admin/v1/federation/destinations/{destination}"),
    ("GET", "/_synapse/admin/v1/federation/destinations/{destination}/rooms"),
    ("POST", "/_synapse/admin/v1/federation/destinations/{destination}/reset_connection"),
    ("POST", "/_synapse/admin/v1/send_server_notice"),
    ("PUT", "/_synapse/admin/v1/send_server_notice/{txn_id}"),
    ("POST", "/_parlour/test/v1/bulk"),
    ("GET", "/_parlour/test/v1/bulk/{job_id}"),
    ("DELETE", "/_parlour/test/v1/bulk/{job_id}"),
    ("POST", "/_parlour/test/v1/logins"),
    ("GET", "/_parlour/test/v1/faults"),
    ("PUT", "/_parlour/test/v1/faults"),
];

/// The same with bodies.
fn operators() -> Vec<(&'static str, &'static str, Value)> {
    let user = json!({ "password": "x", "admin": false, "displayname": "X", "locked": false });
    let token = json!({ "token": "t", "uses_allowed": 1, "expiry_time": null });
    let delete = json!({ "new_room_user_id": "@a:b", "block": true, "purge": true });
    let notice = json!({ "user_id": "@a:b", "content": { "body": "x" }, "type": "m.x" });
    let bodies = [
        ("v2/users/{user_id}", "PUT", user),
        ("v1/users/{user_id}/admin", "PUT", json!({ "admin": true })),
        ("v1/reset_password/{user_id}", "POST", json!({ "new_password": "x" })),
        ("v1/deactivate/{user_id}", "POST", json!({ "erase": true })),
        ("v1/suspend/{user_id}", "PUT", json!({ "suspend": true })),
        ("devices/{device_id}", "PUT", json!({ "display_name": "x" })),
        ("delete_devices", "POST", json!({ "devices": ["X"] })),
        ("v1/users/{user_id}/login", "POST", json!({ "valid_until_ms": 9_999_999_999_999_u64 })),
        ("v1/registration_tokens/new", "POST", token.clone()),
        ("v1/registration_tokens/{token}", "PUT", token),
        ("v1/rooms/{room_id}/block", "PUT", json!({ "block": true })),
        ("v1/rooms/{room_id}", "DELETE", delete.clone()),
        ("v2/rooms/{room_id}", "DELETE", delete),
        ("test/v1/bulk", "POST", json!({ "users": 1, "rooms": 1, "members": 1, "messages": 1 })),
        ("test/v1/logins", "POST", json!({ "users": ["@a:b"] })),
        ("test/v1/faults", "PUT", json!({ "failing_writes": 0 })),
        ("v1/send_server_notice", "POST", notice.clone()),
        ("v1/send_server_notice/{txn_id}", "PUT", notice),
    ];
    let body = |path: &str, method: &str| {
        let mut bodies =
            bodies.iter().filter(|(at, verb, _)| *verb == method && path.ends_with(at));
        bodies.next().map(|(.., body)| body.clone()).unwrap_or_default()
    };
    OPERATORS.iter().map(|(method, path)| (*method, *path, body(path, method))).collect()
}

/// Endpoints that are in no definition: method, path, whether a token is asked for, a body.
fn own() -> Vec<(&'static str, &'static str, bool, Value)> {
    let register = json!({ "nonce": "0", "username": "x", "password": "y", "mac": "00",
        "displayname": "X", "admin": false, "user_type": null, "inhibit_login": true });
    let validity = "/_matrix/client/unstable/org.matrix.msc3231/register/\
        org.matrix.msc3231.login.registration_token/validity";
    let summary = "/_matrix/client/unstable/im.nheko.summary/rooms/{room_id_or_alias}/summary";
    let mutual = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms";
    let delayed = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let delayed_one = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}";
    let delayed_act =
        "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/{action}";
    let page = "/_matrix/client/v3/auth/{auth_type}/fallback/web";
    let old_page = "/_matrix/client/r0/auth/{auth_type}/fallback/web";
    let mut own = vec![
        ("GET", summary, false, Value::Null),
        ("GET", mutual, true, Value::Null),
        ("GET", delayed, true, Value::Null),
        ("GET", delayed_one, true, Value::Null),
        ("POST", delayed_one, false, json!({ "action": "cancel" })),
        ("POST", delayed_act, false, Value::Null),
        ("GET", validity, false, Value::Null),
        ("DELETE", ACCOUNT_DATA, true, Value::Null),
        ("DELETE", ROOM_ACCOUNT_DATA, true, Value::Null),
        ("GET", SUBSCRIPTION, true, Value::Null),
        ("PUT", SUBSCRIPTION, true, json!({ "automatic": "$event" })),
        ("DELETE", SUBSCRIPTION, true, Value::Null),
        ("GET", SUBSCRIPTIONS, true, Value::Null),
        ("GET", DEHYDRATED, true, Value::Null),
        ("PUT", DEHYDRATED, true, dehydrated()),
        ("DELETE", DEHYDRATED, true, Value::Null),
        ("POST", DEHYDRATED_EVENTS, true, json!({ "next_batch": "1" })),
        ("GET", page, false, Value::Null),
        ("POST", page, false, json!({ "user": "x", "password": "y", "token": "z" })),
        ("GET", old_page, false, Value::Null),
        ("POST", old_page, false, json!({ "user": "x" })),
        ("GET", "/_synapse/admin/v1/register", false, Value::Null),
        ("POST", "/_synapse/admin/v1/register", false, register),
    ];
    own.extend(operators().into_iter().map(|(method, path, body)| (method, path, true, body)));
    own
}

impl Operation {
    /// The names of the path's variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = &'static str> {
        self.template.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The path with `{}` for variables.
    pub(super) fn blank(&self) -> String {
        blank(self.template)
    }

    /// Whether the definition has no body although the method could have one.
    pub(super) fn bodiless(&self) -> bool {
        ["/logout", "/logout/all", "/forget", "/{action}", "/reset_connection"]
            .iter()
            .any(|end| self.template.ends_with(end))
    }
}

fn blank(template: &str) -> String {
    let parts = template.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// All endpoints for clients, administrators and other servers.
pub(super) fn operations() -> &'static [Operation] {
    static ALL: LazyLock<Vec<Operation>> = LazyLock::new(|| {
        let specs = ["client-server.json", "server-server.json"].map(|name| {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec").join(name);
            serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
        });
        let all = registered().into_iter().filter(|(_, path)| *path != "/metrics");
        let mut all: Vec<_> = all.map(|(method, path)| describe(&specs, method, path)).collect();
        let mut seen = HashSet::new();
        for operation in all.iter_mut().rev() {
            let same = (operation.method.clone(), generic(operation.template));
            operation.again = !seen.insert(same);
        }
        all
    });
    &ALL
}

/// Starts a server in this process, only to ask for its table.
fn registered() -> Vec<(String, &'static str)> {
    let text = r#"
        server.name = "localhost"
        server.data_dir = "memory"
        server.public_url = "http://localhost/"
        server.test_mode = true
        listeners = [{ address = "127.0.0.1", port = 0, apis = ["client", "admin"] }]
    "#;
    let (tell, told) = mpsc::channel();
    let running = server::launch(
        Config::load(&Source::text(text)).unwrap(),
        Env::system(),
        async move |boot| {
            let service = assemble(boot).await?;
            let all = service.routes().list();
            tell.send(all.map(|(method, path)| (method.to_string(), path)).collect()).unwrap();
            Ok(service)
        },
    );
    let table = told.recv().unwrap();
    running.unwrap().stop();
    table
}

/// `/r0/` and `/v3/` are one operation, and variables have other names in the specification.
fn generic(path: &str) -> String {
    let is_version = |part: &str| {
        part == "unstable"
            || part.strip_prefix(['r', 'v']).is_some_and(|rest| rest.parse::<u8>().is_ok())
    };
    let blank = blank(path);
    // `unstable/org.example.proposal/` became `v3/`.
    let is_proposal = |&(n, part): &(usize, &str)| {
        n == 4 && blank.starts_with("/_matrix/client/unstable/") && part.contains('.')
    };
    let parts = blank.split('/').enumerate().filter(|part| !is_proposal(part));
    let parts = parts.map(|(n, part)| if n == 3 && is_version(part) { "*" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

fn describe(specs: &[Value], method: String, template: &'static str) -> Operation {
    let lower = method.to_ascii_lowercase();
    let same = |path: &str| generic(path) == generic(template);
    let mut found = specs.iter().flat_map(|spec| {
        let paths = spec["paths"].as_object().unwrap().iter().filter(|(path, _)| same(path));
        paths.map(move |(_, all)| (spec, all))
    });
    if let Some((spec, operation)) = found.find_map(|(spec, all)| Some((spec, all.get(&lower)?))) {
        let body = &operation["requestBody"]["content"]["application/json"];
        return Operation {
            parameters: parameters(spec, operation),
            sample: if body.is_null() { Value::Null } else { of_media(spec, body) },
            authenticated: needs_token(operation),
            known: true,
            again: false,
            method,
            template,
        };
    }
    let own = own().into_iter().find(|(verb, path, ..)| *verb == method && *path == template);
    let known = own.is_some();
    let (_, _, authenticated, sample) = own.unwrap_or_default();
    Operation {
        parameters: Vec::new(),
        sample,
        authenticated,
        known,
        method,
        template,
        again: false,
    }
}

/// An empty object among the schemes says that it can be done without any. Other servers sign.
fn needs_token(operation: &Value) -> bool {
    let schemes = operation["security"].as_array();
    let by_token = |scheme: &Value| *scheme != json!({}) && scheme["signedRequest"].is_null();
    schemes.is_some_and(|all| !all.is_empty() && all.iter().all(by_token))
}

fn parameters(spec: &Value, operation: &Value) -> Vec<String> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    let all = all.map(|parameter| resolve(spec, parameter)).filter(|p| p["in"] == "query");
    all.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned())).collect()
}

fn resolve<'a>(spec: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|at| spec.pointer(at.strip_prefix('#')?));
    pointer.unwrap_or(value)
}

fn of_media(spec: &Value, media: &Value) -> Value {
    let examples = media["examples"].as_object().and_then(|all| all.values().next());
    match (&media["example"], examples) {
        (Value::Null, None) => sample(spec, &media["schema"], 8),
        (Value::Null, Some(example)) => resolve(spec, example)["value"].clone(),
        (example, _) => example.clone(),
    }
}

/// A value that fits a schema, roughly: its example, or one made of the examples of its parts.
fn sample(spec: &Value, schema: &Value, depth: u8) -> Value {
    let schema = resolve(spec, schema);
    let Some(deeper) = depth.checked_sub(1) else { return Value::Null };
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    let mut object = Map::new();
    for part in
        ["allOf", "oneOf", "anyOf"].iter().filter_map(|key| schema[key].as_array()).flatten()
    {
        match sample(spec, part, deeper) {
            Value::Object(fields) => object.extend(fields),
            other => return other,
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        object.insert(name.clone(), sample(spec, field, deeper));
    }
    match schema["type"].as_str() {
        Some("array") => json!([sample(spec, &schema["items"], deeper)]),
        Some("string") => json!("text"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        _ => Value::Object(object),
    }
}
