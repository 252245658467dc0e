//! The rules of the house that no compiler checks. `make tidy` runs this alone.
//!
//! Each test lists every breach at once, as `file:line: what`, so that one run is enough.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arrows;
mod files;
mod syntax;

use files::{breaches, rust_files, text_files};

/// Lines per source file.
const FILE_LINES: usize = 500;
/// Lines per function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 80;
/// Lines of the README that a reader sees before scrolling.
const FIRST_SCREEN: usize = 30;

#[test]
fn source_files_are_short() {
    breaches(text_files(&["rs", "py"]), |file| {
        let lines = file.text.lines().count();
        (lines > FILE_LINES).then(|| (lines, format!("{lines} lines"))).into_iter().collect()
    });
}

#[test]
fn functions_are_short() {
    breaches(rust_files(), |file| {
        let functions = syntax::inspect(file).functions;
        let long = functions.into_iter().filter(|function| function.lines > FUNCTION_LINES);
        long.map(|f| (f.line, format!("fn {} has {} lines", f.name, f.lines))).collect()
    });
}

#[test]
fn nothing_outside_tests_unwraps() {
    breaches(rust_files(), |file| {
        let found = if file.is_test() { Vec::new() } else { syntax::inspect(file).unwraps };
        found.into_iter().map(|line| (line, "unwrap() outside tests".to_owned())).collect()
    });
}

#[test]
fn only_the_command_line_prints() {
    breaches(rust_files(), |file| {
        let may =
            file.is_test() || file.path.starts_with("src/cli") || file.path.ends_with("cli.rs");
        let found = if may { Vec::new() } else { syntax::inspect(file).prints };
        found.into_iter().map(|line| (line, "prints".to_owned())).collect()
    });
}

#[test]
fn nothing_is_left_unfinished_or_ignored() {
    breaches(rust_files(), |file| syntax::inspect(file).unfinished.into_iter().collect());
    // Put together here, so that this file doesn't break its own rule.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    breaches(text_files(&["rs", "py", "toml", "md", "sh", "Makefile", "run"]), |file| {
        file.find(|line| {
            let word = |word: &str| marks.iter().any(|mark| word == mark);
            line.split(|c: char| !c.is_ascii_alphanumeric()).find(|part| word(part)).map(Into::into)
        })
    });
    let skips = [["mark.sk", "ip"], ["pytest.sk", "ip"], ["mark.xf", "ail"]].map(|h| h.concat());
    breaches(text_files(&["py"]), |file| {
        file.find(|line| skips.iter().find(|skip| line.contains(skip.as_str())).cloned())
    });
}

#[test]
fn no_file_knows_a_developers_machine() {
    let homes = [["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"], ["C:", "\\"]];
    let homes = homes.map(|halves| halves.concat());
    let kinds = ["rs", "py", "toml", "md", "txt", "sh", "yml", "json", "Makefile", "run"];
    breaches(text_files(&kinds), |file| {
        file.find(|line| {
            let home = homes.iter().find(|home| starts_a_path(line, home));
            home.map(|home| format!("a path of one machine: {home}"))
        })
    });
}

/// Whether the text occurs where a path may begin: not inside a longer path or URL.
fn starts_a_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line.get(..at).and_then(|start| start.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '}' | '.' | '_' | '-'))
    })
}

#[test]
fn dependencies_point_one_way() {
    arrows::check_manifests();
    breaches(rust_files(), |file| {
        if arrows::may_speak_wire(&file.path) {
            return Vec::new();
        }
        let wire = syntax::inspect(file).wire;
        wire.into_iter().map(|line| (line, "wire types below src/".to_owned())).collect()
    });
}

#[test]
fn every_package_forbids_unsafe_code() {
    arrows::check_lints();
}

#[test]
fn the_readme_starts_with_the_two_commands() {
    let readme = files::read("README.md");
    let screen: Vec<_> = readme.lines().take(FIRST_SCREEN).collect();
    for command in ["make run", "make test"] {
        let there = screen.iter().any(|line| line.contains(command));
        assert!(there, "`{command}` is not in the first {FIRST_SCREEN} lines of README.md");
    }
}

#[test]
fn every_configuration_key_is_explained() {
    let sample = files::read("config/parlour.toml");
    let mut explained = false;
    let mut bare = Vec::new();
    for (number, line) in sample.lines().enumerate() {
        let line = line.trim();
        let is_key = line.split_once('=').is_some_and(|(key, _)| {
            let key = key.trim();
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        });
        if is_key && !explained && !line.contains('#') {
            bare.push(format!("config/parlour.toml:{}: {line}", number + 1));
        }
        // One comment may explain several keys that stand together; an empty line ends it.
        explained = line.starts_with('#') || (explained && !line.is_empty());
    }
    assert!(bare.is_empty(), "keys without a comment:\n{}", bare.join("\n"));
}
