//! Finds the files of the repository and reports what breaks a rule in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One text file.
pub(crate) struct File {
    /// Relative to the repository.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

impl File {
    /// Whether it holds tests, benchmarks or examples only.
    pub(crate) fn is_test(&self) -> bool {
        let test_dirs = ["tests", "benches", "examples", "fuzz"];
        let in_test_dir = self.path.iter().any(|part| test_dirs.iter().any(|dir| part == *dir));
        in_test_dir || self.path.file_stem().is_some_and(|stem| stem == "tests")
    }

    /// The lines for which `rule` has something to say.
    pub(crate) fn find(&self, rule: impl Fn(&str) -> Option<String>) -> Vec<(usize, String)> {
        let lines = self.text.lines().enumerate();
        lines.filter_map(|(number, line)| Some((number + 1, rule(line)?))).collect()
    }
}

/// What isn't ours or isn't source: build output, data, copies of the specification.
const NOT_OURS: [&str; 9] = [
    "target",
    ".git",
    "data",
    "node_modules",
    "__pycache__",
    "corpus",
    "artifacts",
    ".pytest_cache",
    "tests/spec",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file that must be there.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files whose extension, or whose name, is one of these.
pub(crate) fn text_files(kinds: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut left = vec![root().to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root()).unwrap().to_path_buf();
            if NOT_OURS.iter().any(|name| relative.ends_with(name)) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let kind = path.extension().or(path.file_name()).and_then(|kind| kind.to_str());
            if kind.is_some_and(|kind| kinds.contains(&kind)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push(File { path: relative, text });
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(!found.is_empty(), "no files of kind {kinds:?}");
    found
}

/// All Rust files.
pub(crate) fn rust_files() -> Vec<File> {
    text_files(&["rs"])
}

/// Fails with all that `rule` finds, if it finds anything.
#[track_caller]
pub(crate) fn breaches(files: Vec<File>, rule: impl Fn(&File) -> Vec<(usize, String)>) {
    let found = files.iter().flat_map(|file| {
        let lines = rule(file).into_iter();
        lines.map(|(line, what)| format!("{}:{line}: {what}", file.path.display()))
    });
    let found: Vec<_> = found.collect();
    assert!(found.is_empty(), "{} breaches:\n{}", found.len(), found.join("\n"));
}
