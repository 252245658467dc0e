//! The one arrow of the house, `event <- storage <- actors <- src`, read from the manifests.

use std::path::Path;

use toml::Table;

use crate::files;

/// The packages, lowest first: each may use those before it, and no other of them.
const LAYERS: [(&str, &str); 4] = [
    ("event/Cargo.toml", "parlour-event"),
    ("storage/Cargo.toml", "parlour-storage"),
    ("actors/Cargo.toml", "parlour-actors"),
    ("Cargo.toml", "parlour"),
];

fn manifest(path: &str) -> Table {
    files::read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Beside them stands the load generator, which knows events and nothing of the server.
const LOAD: (&str, &str) = ("load/Cargo.toml", "parlour-load");

/// What the load generator must not use.
const NOT_FOR_LOAD: [&str; 3] = ["parlour-storage", "parlour-actors", "parlour"];

/// No package depends on itself or on one above it, not even for its tests.
pub(crate) fn check_manifests() {
    let below = LAYERS.iter().take(LAYERS.len() - 1).map(|(path, _)| (*path, vec![LOAD.1]));
    for (path, forbidden) in below.chain([(LOAD.0, NOT_FOR_LOAD.to_vec())]) {
        let used = manifest(path);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used = used.get(section).and_then(|table| table.as_table());
            let wrong =
                forbidden.iter().find(|name| used.is_some_and(|used| used.contains_key(**name)));
            assert_eq!(wrong, None, "{path} must not depend on it ({section})");
        }
    }
    for (layer, (path, name)) in LAYERS.iter().enumerate() {
        let manifest = manifest(path);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(used) = manifest.get(section).and_then(|table| table.as_table()) else {
                continue;
            };
            for (_, above) in LAYERS.iter().skip(layer) {
                assert!(
                    !used.contains_key(*above),
                    "{name} must not depend on {above} ({section})"
                );
            }
        }
    }
}

/// Requests and responses of the Matrix APIs belong to `src/`, and to the tests of `src/`.
pub(crate) fn may_speak_wire(path: &Path) -> bool {
    ["src", "tests", "benches", "fuzz"].iter().any(|dir| path.starts_with(dir))
}

/// The workspace forbids `unsafe`, and every package takes its lints from the workspace.
pub(crate) fn check_lints() {
    let workspace = manifest("Cargo.toml");
    let level = workspace["workspace"]["lints"]["rust"]["unsafe_code"].as_str();
    assert_eq!(level, Some("forbid"), "unsafe_code in [workspace.lints.rust]");
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let members = members.iter().map(|member| format!("{}/Cargo.toml", member.as_str().unwrap()));
    for path in members.chain(["Cargo.toml".to_owned()]) {
        let inherited =
            manifest(&path).get("lints").and_then(|lints| lints.get("workspace").cloned());
        let inherited = inherited.and_then(|value| value.as_bool());
        assert_eq!(inherited, Some(true), "{path}: [lints] workspace = true is missing");
    }
}
