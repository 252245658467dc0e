//! The garbage itself.

use serde_json::{Map, Value, json};

use crate::common::Random;

/// Stands in a JSON text for a value that is put there afterwards.
const MARK: &str = "\"@@HERE@@\"";

fn deep(open: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + "1" + &close.repeat(levels)
}

/// Bodies that are no JSON object.
pub(super) fn bodies() -> Vec<Vec<u8>> {
    let texts = [
        "{",
        "}",
        "nonsense",
        "\u{0}",
        " ",
        "\u{feff}{}",
        "{}{}",
        "{}x",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\"}",
        "{\"a\":}",
        "[]",
        "[{}]",
        "null",
        "true",
        "1",
        "-",
        "1e999",
        "\"text\"",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":1e999}",
        "{\"a\":\"\\ud800\"}",
        "{\"\\udfff\":1}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\u{1}\"}",
        "{\"a\":\"",
        "{\"a\":tru",
        "a=1&b=2",
        "<xml/>",
        "{/**/}",
    ];
    let mut bodies: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    bodies.extend([
        b"\xff\xfe{\0}\0".to_vec(),
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\"\xc0\x80\":1}".to_vec(),
        b"{\"a\":\"\xed\xa0\x80\"}".to_vec(),
        deep("[", "]", 60_000).into_bytes(),
        deep("{\"a\":", "}", 20_000).into_bytes(),
        "[".repeat(60_000).into_bytes(),
        "{\"a\":".repeat(20_000).into_bytes(),
        format!("{{\"a\":{}}}", deep("[", "]", 200)).into_bytes(),
    ]);
    bodies
}

/// JSON texts that belong nowhere.
fn anywhere() -> Vec<String> {
    let texts = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e2",
        "-0.0",
        "9007199254740991",
        "9007199254740992",
        "-9007199254740993",
        "18446744073709551616",
        "123456789012345678901234567890",
        "1e308",
        "\"\"",
        "\" \"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"-1\"",
        "\"1.5\"",
        "\"@\"",
        "\"!\"",
        "\"#:\"",
        "\"$\"",
        "\"@a:\"",
        "\"!x:y:z\"",
        "\"@\\u0000:localhost\"",
        "\"mxc://\"",
        "\"..\"",
        "\"*\"",
        "\"\\\\.\\\\\\\\\"",
        "\"\\u202e\"",
        "[]",
        "[null]",
        "[[]]",
        "[1.5]",
        "[\"\"]",
        "[{}]",
        "{}",
        "{\"\":\"\"}",
        "{\"type\":null}",
        "{\"\\u0000\":{}}",
        "{\"a\":1,\"a\":2}",
        "{\"@a:localhost\":1e9}",
        "{\"@a:localhost\":\"100\"}",
    ];
    let mut all: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    all.push(format!("\"{}\"", "x".repeat(300)));
    all.push(format!("\"@{}:localhost\"", "x".repeat(300)));
    all.push(format!("\"{}\"", "x".repeat(70_000)));
    all.push(format!("\"{}\"", "\u{10ffff}".repeat(5_000)));
    all.push(format!("[{}]", vec!["\"@a:b\""; 3_000].join(",")));
    all.push(deep("[", "]", 90));
    all.push(deep("{\"a\":", "}", 90));
    all.push(deep("[", "]", 5_000));
    all
}

/// The places in a value: its fields and items, at every depth.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => return,
    };
    for (key, child) in children {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(child, &at, found);
        found.push(at);
    }
}

/// A value with garbage in one of its places, for every place and every kind of garbage; with a
/// field too many, and with one too few.
pub(super) fn mutations(sample: &Value) -> Vec<String> {
    let mut found = Vec::new();
    places(sample, "", &mut found);
    let mut all = Vec::new();
    let anywhere = anywhere();
    for place in &found {
        let mut marked = sample.clone();
        *marked.pointer_mut(place).unwrap() = json!("@@HERE@@");
        let marked = marked.to_string();
        all.extend(anywhere.iter().map(|garbage| marked.replace(MARK, garbage)));
        let (parent, key) = place.rsplit_once('/').unwrap();
        let mut without = sample.clone();
        if let Some(Value::Object(map)) = without.pointer_mut(parent) {
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
            all.push(without.to_string());
        }
    }
    let fields = sample.as_object().cloned().unwrap_or_else(Map::new);
    for key in ["", "\u{0}", "type", "auth", "m.relates_to", "\u{202e}", &"k".repeat(300)] {
        let mut more = fields.clone();
        more.insert(key.to_owned(), json!("@@HERE@@"));
        let marked = Value::Object(more).to_string();
        all.extend(anywhere.iter().map(|garbage| marked.replace(MARK, garbage)));
    }
    all
}

/// Garbage for one variable of a path, as it stands in the request.
pub(super) fn segments() -> Vec<String> {
    let texts = [
        "",
        ".",
        "..",
        "%2e%2e",
        "%2F",
        "%2f..%2f",
        "%00",
        "%0a",
        "%0d%0aX:1",
        "%",
        "%2",
        "%zz",
        "%u0041",
        "%ff",
        "%c0%80",
        "%ed%a0%80",
        "%f4%90%80%80",
        "%25",
        "%2525",
        "+",
        "%20",
        "*",
        ";a=b",
        "a:b",
        ":",
        "@",
        "!",
        "#",
        "$",
        "%40",
        "%23",
        "%23a",
        "%23%3A",
        "%40%3A",
        "@a:",
        "@:b",
        "!a:",
        "@a:b:c",
        "@a%00:b",
        "@A:LOCALHOST",
        "%40a:localhost%00",
        "@a:[::1",
        "@a:b:99999",
        "!%00:localhost",
        "$%00",
        "%F0%9F%92%A9",
        "%E2%80%AE",
        "null",
        "-1",
        "0",
        "1.5",
        "18446744073709551616",
        "{}",
        "%7B%7D",
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.encryption",
        "m.fully_read",
        "m.push_rules",
        "~~",
        "&a=b",
        "=",
    ];
    let mut all: Vec<String> =
        texts.iter().map(|text| text.replace('#', "%23").replace(['{', '}'], "%7B")).collect();
    for long in [256, 1_000, 20_000] {
        all.push("x".repeat(long));
        all.push(format!("!{}:localhost", "x".repeat(long)));
        all.push(format!("@{}:localhost", "x".repeat(long)));
        all.push("%F0%9F%92%A9".repeat(long / 12));
    }
    all
}

/// Garbage for a parameter of a query.
fn query_values() -> Vec<String> {
    let mut all = segments();
    let more = [
        "true",
        "True",
        "1e3",
        "-9223372036854775809",
        "4294967296",
        "999999999999999999999999",
        "%5B%5D",
        "%7B",
        "%7B%7D",
        "%7B%22room%22%3A1%7D",
        "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A-1%7D%7D%7D",
        "%7B%22limit%22%3A1e9%7D",
        "%22",
        "s1_0_0",
        "s1_1",
        "g1_0_0",
        "s1_18446744073709551615_0",
        "b",
        "f",
        "g1_18446744073709551615_18446744073709551615",
        "s1_18446744073709551616_0",
        "join",
        "%0",
        "&",
        "&&=",
        "%26",
    ];
    all.extend(more.iter().map(|text| (*text).to_owned()));
    let filter = format!("{{\"room\":{}}}", deep("[", "]", 2_000));
    all.push(filter.replace('{', "%7B").replace('}', "%7D").replace('"', "%22"));
    all
}

/// Queries with garbage in each of these parameters, given twice, and without a value.
pub(super) fn queries(parameters: &[String]) -> Vec<String> {
    let mut all: Vec<String> =
        ["", "&", "=", "&&&", "a", "=a", "%00=%00", "%ff=%ff", "%", "%zz=%", "a=1&a=2", "?", "??="]
            .iter()
            .map(|text| (*text).to_owned())
            .collect();
    all.push("a=1&".repeat(3_000));
    for name in parameters {
        all.extend(query_values().iter().map(|value| format!("{name}={value}")));
        all.extend([name.clone(), format!("{name}=1&{name}=2"), format!("{name}%00=1")]);
        all.push(format!("{name}[]=1"));
    }
    // Most endpoints want a direction or a moment before they look at anything else.
    let needed = ["dir=b", "ts=0"]
        .iter()
        .filter(|text| parameters.iter().any(|name| text.split('=').next() == Some(name)));
    for needed in needed.copied().collect::<Vec<_>>() {
        all.extend(all.clone().iter().map(|query| format!("{needed}&{query}")));
    }
    all
}

/// Tokens of this server, damaged, and some that look like them.
pub(super) fn tokens(random: &mut Random, good: &[String], most: usize) -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        "_",
        "__",
        "s",
        "s1",
        "s1_",
        "s1__",
        "s1_0",
        "s1_0_",
        "s1_0_0",
        "s1_0_0_0",
        "s2_0_0",
        "g1_0_0",
        "g1_0",
        "s1_-1_0",
        "s1_+1_0",
        "s1_01_0",
        "s1_ 1_0",
        "s1_1.0_0",
        "s1_1e3_0",
        "s1_\u{661}_0",
        "s1_0_\u{0}",
        "\u{0}",
        "s1_18446744073709551615_0",
        "s1_0_18446744073709551615",
        "s1_18446744073709551616_0",
        "s1_9223372036854775808_0",
        "g1_18446744073709551615_18446744073709551615",
        "g1_0_18446744073709551615",
        "g1_18446744073709551615_0",
        "t1-2_0",
        "END",
        "null",
        "\u{10ffff}",
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    all.extend([good.concat(), "s1_".repeat(5_000), format!("s1_{}_0", "9".repeat(20_000))]);
    while all.len() < most.max(60) {
        let index = usize::try_from(random.below(good.len() as u64)).unwrap();
        let mut text: Vec<char> = good[index].chars().collect();
        let place = usize::try_from(random.below(text.len() as u64)).unwrap();
        match random.below(4) {
            0 => text[place] = char::from(b'!' + u8::try_from(random.below(90)).unwrap()),
            1 => drop(text.remove(place)),
            2 => text.truncate(place),
            _ => text.insert(place, char::from(b'0' + u8::try_from(random.below(10)).unwrap())),
        }
        all.push(text.into_iter().collect());
    }
    all
}

/// A filter that uses everything.
pub(super) fn filter() -> Value {
    let events = json!({
        "limit": 10, "types": ["m.room.*"], "not_types": ["m.x"], "senders": ["@alice:localhost"],
        "not_senders": ["@eve:localhost"],
    });
    let mut of_room = events.as_object().cloned().unwrap();
    let more = json!({
        "rooms": ["!a:localhost"], "not_rooms": ["!b:localhost"], "contains_url": true,
        "lazy_load_members": true, "include_redundant_members": true,
        "unread_thread_notifications": true,
    });
    of_room.extend(more.as_object().cloned().unwrap());
    json!({
        "event_fields": ["content", "type"], "event_format": "client", "presence": events,
        "account_data": events,
        "room": { "rooms": ["!a:localhost"], "not_rooms": ["!b:localhost"], "include_leave": true,
            "timeline": of_room, "state": of_room, "ephemeral": of_room, "account_data": of_room },
    })
}

/// `Authorization` headers that let nobody in.
pub(super) fn authorizations() -> Vec<String> {
    let texts = [
        "",
        "Bearer",
        "Bearer ",
        "bearer x",
        "Bearer x",
        "Bearer  x",
        "Bearer x y",
        "Basic YTpi",
        "Bearer\tx",
        "Bearer %00",
        "Bearer null",
        "Bearer ..",
        "X-Matrix origin=a,key=b,sig=c",
        "x",
        "Bearer \"",
        "BearerBearer Bearer",
    ];
    let mut all: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    all.push(format!("Bearer {}", "x".repeat(20_000)));
    all
}
