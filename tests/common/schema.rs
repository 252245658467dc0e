//! Checks answers against the OpenAPI definitions and the event schemas in `tests/spec`.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::coverage;

static SPEC: LazyLock<Spec> = LazyLock::new(Spec::load);

struct Spec {
    /// The client-server API, and the server-server API.
    apis: [Value; 2],
    events: Value,
    templates: Vec<Template>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

struct Template {
    /// Its number among the APIs.
    api: usize,
    path: String,
    version: Option<String>,
    /// The segments without the version: `/v3/` and `/r0/` are the same operation.
    segments: Vec<String>,
}

impl Spec {
    fn load() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spec");
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap()
        };
        let mut apis = [read("client-server.json"), read("server-server.json")];
        either_form(&mut apis[0]);
        let paths = apis.iter().enumerate().flat_map(|(number, api)| {
            api["paths"].as_object().unwrap().keys().map(move |path| (number, path))
        });
        let templates = paths
            .map(|(api, path)| {
                let (version, segments) = split(path);
                Template { api, path: path.clone(), version, segments }
            })
            .collect();
        Self { apis, events: read("event-schemas.json"), templates, validators: Mutex::default() }
    }

    /// The operation that a path belongs to; literal segments win over parameters, and the same
    /// version over another.
    fn template(&self, path: &str) -> Option<&Template> {
        let (version, segments) = split(path);
        let fits = |template: &&Template| {
            template.segments.len() == segments.len()
                && template.segments.iter().zip(&segments).all(|(want, got)| {
                    want == got
                        || (want.starts_with('{') && !(got.is_empty() && want != "{stateKey}"))
                })
        };
        self.templates.iter().filter(fits).max_by_key(|template| {
            let literal = template.segments.iter().filter(|part| !part.starts_with('{')).count();
            (literal, template.version == version)
        })
    }

    fn validator(&self, key: String, schema: impl FnOnce() -> Value) -> Arc<Validator> {
        let mut cache = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let made = cache.entry(key).or_insert_with_key(|key| {
            let made = jsonschema::validator_for(&schema());
            Arc::new(made.unwrap_or_else(|error| panic!("schema of {key}: {error}")))
        });
        Arc::clone(made)
    }
}

/// A state event is asked for as its content (any object) or whole: as the specification has it,
/// exactly one of the two, a whole event would have to be no object.
fn either_form(client: &mut Value) {
    let path = "/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}";
    let content = &mut client["paths"][path]["get"]["responses"]["200"]["content"];
    let forms = content["application/json"]["schema"].as_object_mut().unwrap();
    let either = forms.remove("oneOf").unwrap();
    forms.insert("anyOf".to_owned(), either);
}

/// Splits a path into its version, if it has one, and the other segments.
fn split(path: &str) -> (Option<String>, Vec<String>) {
    let path = path.split('?').next().unwrap_or_default();
    let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    // `/state/{type}` is short for `/state/{type}/` with an empty state key.
    if segments.len() == 7 && segments[5] == "state" && segments[3] == "rooms" {
        segments.push(String::new());
    }
    let numbered = |text: &str| {
        text == "unstable"
            || (text.starts_with(['r', 'v']) && text[1..].bytes().all(|byte| byte.is_ascii_digit()))
    };
    let has_version = segments.len() > 3 && segments[0] == "_matrix" && numbered(&segments[2]);
    let version = has_version.then(|| segments.remove(2));
    (version, segments)
}

/// Checks one answer, and gives the path template of its operation if the specification has it.
#[track_caller]
pub(crate) fn check(method: &str, path: &str, status: u16, body: &Value) -> Option<&'static str> {
    if status == 200 && path.contains("?org.matrix.msc4140.delay=") {
        // The definitions don't know that an event can be delayed.
        return None;
    }
    let removed = ["send_join", "send_leave"].map(|name| format!("/_matrix/federation/v1/{name}/"));
    if status == 200 && removed.iter().any(|removed| path.starts_with(removed)) {
        // The definitions know the second version alone.
        return None;
    }
    let spec = &*SPEC;
    let template = spec.template(path);
    let lower = method.to_ascii_lowercase();
    let operation =
        template.map(|found| (found, &spec.apis[found.api]["paths"][&found.path][&lower]));
    let Some((template, operation)) = operation.filter(|(_, operation)| operation.is_object())
    else {
        check_unknown(method, path, status, body);
        return None;
    };
    coverage::saw(method, &template.path, status, body);
    let listed = &operation["responses"][status.to_string()];
    // What "Using access tokens" says of every endpoint, and definitions with flows leave out.
    let token = matches!(body["errcode"].as_str(), Some("M_MISSING_TOKEN" | "M_UNKNOWN_TOKEN"));
    let schema = &listed["content"]["application/json"]["schema"];
    if schema.is_null() {
        let binary = listed["content"].is_object() || status / 100 == 3;
        assert!(status >= 400 || binary, "{method} {path}: the spec has no {status}");
    }
    if status >= 400 {
        against_error(method, path, body);
    }
    let is_bad_token = status == 401 && token;
    if !schema.is_null() && !is_bad_token {
        let key = format!("{method} {} {status}", template.path);
        let whole = || {
            let components = &spec.apis[template.api]["components"];
            json!({ "allOf": [schema], "components": components })
        };
        against(&spec.validator(key, whole), &format!("{method} {path} {status}"), body);
    }
    check_events(body);
    Some(&template.path)
}

fn check_unknown(method: &str, path: &str, status: u16, body: &Value) {
    if status >= 400 {
        against_error(method, path, body);
    } else if method != "OPTIONS" && path.starts_with("/_matrix/") {
        // What the specification has in prose alone: web pages.
        let page = path.contains("/fallback/web?");
        let unstable = path.contains("/unstable/") || page;
        assert!(unstable, "{method} {path}: {status}, but the spec has no such operation");
    }
}

fn against_error(method: &str, path: &str, body: &Value) {
    let spec = &*SPEC;
    let error = || {
        let schema = &spec.apis[0]["components"]["schemas"]["errors.error"];
        // A 401 that asks for user-interactive authentication has no `errcode` on its first round.
        json!({ "anyOf": [schema, { "required": ["flows", "session"] }] })
    };
    against(&spec.validator("error".into(), error), &format!("{method} {path}"), body);
}

/// Validates every event in a body, wherever it is, against the schema of its type.
pub(crate) fn check_events(body: &Value) {
    match body {
        Value::Array(items) => items.iter().for_each(check_events),
        Value::Object(map) => {
            let is_event = body["type"].is_string() && body["content"].is_object();
            if is_event {
                check_event(body);
            }
            map.iter()
                .filter(|(key, _)| *key != "content")
                .for_each(|(_, item)| check_events(item));
        }
        _ => {}
    }
}

fn check_event(event: &Value) {
    let spec = &*SPEC;
    // What redaction leaves is not what the schema asks for.
    if !event["unsigned"]["redacted_because"].is_null() || event["content"] == json!({}) {
        return;
    }
    let name = event["type"].as_str().unwrap_or_default();
    let variant = format!("{name}${}", event["content"]["msgtype"].as_str().unwrap_or_default());
    let name = if spec.events["events"][&variant].is_object() { &variant } else { name };
    let schema = &spec.events["events"][name];
    if schema.is_null() {
        return;
    }
    // Stripped state and `/sync` leave these out; the schemas of whole events demand them.
    let mut whole = json!({ "event_id": "$filled", "room_id": "!filled:in", "sender": "@filled:in",
        "origin_server_ts": 0 });
    if let (Some(whole), Some(event)) = (whole.as_object_mut(), event.as_object()) {
        whole.extend(event.clone());
    }
    let schema = || json!({ "allOf": [schema], "$defs": spec.events["$defs"] });
    against(&spec.validator(format!("event {name}"), schema), name, &whole);
}

#[track_caller]
fn against(validator: &Validator, what: &str, body: &Value) {
    let errors = validator.iter_errors(body);
    let errors: Vec<_> = errors.map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what} breaks the spec: {}\n{body}", errors.join("; "));
}
