//! The layers of the configuration: the default, a file, the environment.

use std::{ffi::OsString, path::PathBuf};

use figment::{
    Figment,
    error::Kind,
    providers::{Format as _, Toml},
    value::Value,
};

use super::{ConfigError, DEFAULT, raw::Raw};
use crate::cli::admin::TOKEN as ADMIN_TOKEN;

/// What environment variables of ours begin with.
const PREFIX: &str = "PARLOUR_";

/// Where the configuration comes from, besides the default.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// A file.
    pub file: Option<PathBuf>,
    /// The text of a file, for tests and for programs that embed Parlour; it wins over the file.
    pub text: Option<String>,
    /// Environment variables; those without our prefix are left alone. They win over all else.
    pub environment: Vec<(String, String)>,
    /// Test mode, whatever they say: `--test-mode`.
    pub test_mode: bool,
}

impl Source {
    /// A file, if any, and the environment of this process.
    #[must_use]
    pub fn process(file: Option<PathBuf>) -> Self {
        let text = |text: OsString| text.into_string().ok();
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((text(k)?, text(v)?)));
        Self { file, environment: environment.collect(), ..Self::default() }
    }

    /// A text alone.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }
}

/// A key that an environment variable sets.
struct Variable {
    name: String,
    key: String,
}

pub(super) fn read(source: &Source) -> Result<Raw, ConfigError> {
    let default = Figment::from(Toml::string(DEFAULT));
    let mut figment = default.clone();
    if let Some(file) = &source.file {
        // Read here, since a missing or unreadable file is an error of its own.
        let text = std::fs::read_to_string(file).map_err(|error| {
            let file = file.display();
            ConfigError(format!("cannot read the configuration {file}: {error}; check --config"))
        })?;
        figment = merge_text(figment, &text, &file.display().to_string())?;
    }
    if let Some(text) = &source.text {
        figment = merge_text(figment, text, "the given text")?;
    }
    let mut variables = Vec::new();
    for (name, text) in &source.environment {
        // What `parlour admin` and `parlour load` read is nothing that a server is configured with.
        let foreign = name == ADMIN_TOKEN || name.starts_with(parlour_load::cli::VARIABLES);
        let Some(path) = name.strip_prefix(PREFIX).filter(|_| !foreign) else {
            continue;
        };
        let key = path.split("__").map(str::to_lowercase).collect::<Vec<_>>().join(".");
        let value = variable(&default, name, &key, text)?;
        figment = figment.merge((key.clone(), value));
        variables.push(Variable { name: name.clone(), key });
    }
    if source.test_mode {
        figment = figment.merge(("server.test_mode", true));
    }
    figment.extract().map_err(|error| explain(error, &variables, "the configuration"))
}

/// Adds a file, and checks it alone first: so that what is wrong with it is said with its name.
fn merge_text(figment: Figment, text: &str, name: &str) -> Result<Figment, ConfigError> {
    let merged = figment.merge(Toml::string(text));
    merged.extract::<Raw>().map_err(|error| explain(error, &[], name))?;
    Ok(merged)
}

/// Reads a variable as the type that its key has by default, so that a secret made of digits stays
/// text.
fn variable(default: &Figment, name: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    match default.find_value(key) {
        Err(_) => Err(ConfigError(format!(
            "environment variable {name}: there is no key `{key}`; config/parlour.toml lists all"
        ))),
        Ok(Value::String(..)) => Ok(Value::from(text)),
        Ok(_) => Figment::from(Toml::string(&format!("value = {text}")))
            .find_value("value")
            .map_err(|_| {
                ConfigError(format!(
                    "environment variable {name}: write a number, true or false, or a list as in \
                     config/parlour.toml"
                ))
            }),
    }
}

/// One line: which key, what is wrong, where it comes from.
fn explain(error: figment::Error, variables: &[Variable], place: &str) -> ConfigError {
    let mut path = error.path.clone();
    if let Kind::UnknownField(field, _) = &error.kind
        && path.last() != Some(field)
    {
        path.push(field.clone());
    }
    let key = path.join(".");
    let variable =
        variables.iter().find(|v| key == v.key || key.starts_with(&format!("{}.", v.key)));
    let place = variable.map_or(place, |variable| variable.name.as_str());
    let what = match &error.kind {
        Kind::UnknownField(_, known) => {
            format!("unknown key `{key}`; known here: {}", known.join(", "))
        }
        _ if key.is_empty() => error.kind.to_string(),
        kind => format!("key `{key}`: {kind}"),
    };
    // A syntax error is drawn over several lines; a start that fails says one.
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    ConfigError(format!("{place}: {what}"))
}
