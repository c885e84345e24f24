//! Where values come from: the file and the environment, merged, with the place of each value kept.

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};

use super::error::{ConfigError, ConfigErrors, Place, Problem};
use super::key::{KeyPath, Segment};
use super::lines::Lines;

/// What all our environment variables begin with.
const PREFIX: &str = "LINKSPAN_";

/// The password of who asks a running server something: no key.
const OF_COMMANDS: &str = "PASSWORD";

/// The file and the environment.
pub(super) struct Sources {
    merged: Value,
    file: Option<Lines>,
    variables: Vec<Variable>,
}

struct Variable {
    name: Box<str>,
    key: Vec<String>,
    value: Value,
}

impl Sources {
    /// Merges the text of the file (with its name) and the environment, which wins. What variables are wrong in
    /// themselves comes along.
    ///
    /// # Errors
    /// The file is not TOML: nothing else can be said then.
    pub(super) fn new(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<ConfigError>), ConfigErrors> {
        let mut figment = Figment::new();
        let mut parsed = None;
        if let Some((name, text)) = file {
            parsed = Some(Lines::parse(name, text)?);
            figment = figment.merge(Toml::string(text));
        }
        let mut environment: Vec<_> = environment.into_iter().collect();
        environment.sort();
        let (mut variables, mut errors) = (Vec::new(), Vec::new());
        for (name, value) in environment {
            let is_ours = |rest: &&str| *rest != OF_COMMANDS && !is_kubernetes(rest, &value);
            let Some(rest) = name.strip_prefix(PREFIX).filter(is_ours) else {
                continue;
            };
            let key = match key_of(rest, parsed.as_ref()) {
                Ok(key) => key,
                Err(problem) => {
                    let place = Place::Variable(name.into());
                    errors.push(ConfigError { place, key: KeyPath::default(), problem });
                    continue;
                }
            };
            // Never fails: what is no number, list or the like is a text.
            let value = value.parse().unwrap_or_else(|_| Value::from(value));
            figment = figment.merge(Serialized::defaults(nested(&key, value.clone())));
            variables.push(Variable { name: name.into(), key, value });
        }
        let merged = figment.data().map_err(|error| {
            let place = Place::File { file: file.map_or("", |(name, _)| name).into(), line: None };
            let problem = Problem::Syntax(error.to_string().into());
            ConfigErrors::from(ConfigError { place, key: KeyPath::default(), problem })
        })?;
        let merged = merged.into_iter().find(|(profile, _)| *profile == Profile::Default);
        let merged = Value::from(merged.map(|(_, values)| values).unwrap_or_default());
        Ok((Self { merged, file: parsed, variables }, errors))
    }

    /// The merged values.
    pub(super) fn value(&self) -> &Value {
        &self.merged
    }

    /// Where the value of `key` was set; when it was not set, the nearest table around it.
    pub(super) fn place(&self, key: &KeyPath) -> Place {
        if let Some(variable) = self.variables.iter().rev().find(|variable| variable.sets(key)) {
            return Place::Variable(variable.name.clone());
        }
        match &self.file {
            Some(file) => Place::File { file: file.name().into(), line: file.nearest(key) },
            None => Place::Default,
        }
    }

    /// Whether the user set this key.
    pub(super) fn is_set(&self, key: &KeyPath) -> bool {
        self.variables.iter().any(|variable| variable.sets(key))
            || self.file.as_ref().is_some_and(|file| file.has(key))
    }
}

impl Variable {
    /// Whether the variable itself sets `key`, or a table or list in which `key` stands.
    fn sets(&self, key: &KeyPath) -> bool {
        let mut segments = key.segments().iter();
        for name in &self.key {
            match segments.next() {
                Some(Segment::Key(key)) if key == name => {}
                _ => return false,
            }
        }
        let below = segments.try_fold(&self.value, |value, segment| match (value, segment) {
            (Value::Dict(_, table), Segment::Key(key)) => table.get(key),
            (Value::Array(_, list), Segment::Index(at)) => list.get(*at),
            _ => None,
        });
        below.is_some()
    }
}

/// What Kubernetes sets in each container for a service called `linkspan…`; none of our names.
fn is_kubernetes(rest: &str, value: &str) -> bool {
    !rest.contains("__")
        && (rest.contains("SERVICE_HOST")
            || rest.contains("SERVICE_PORT")
            || (rest.contains("PORT") && value.contains("://"))
            || rest.contains("_TCP_")
            || rest.contains("_UDP_"))
}

/// The key that a variable names, the prefix cut off: `DOORS__MQTT__LISTEN`. Where the file has the key in other
/// letters (`my_sensor`), that one is meant.
fn key_of(rest: &str, file: Option<&Lines>) -> Result<Vec<String>, Problem> {
    match rest {
        "LOG" => return Ok(vec!["log".to_owned(), "level".to_owned()]),
        "INSTANCE" => return Ok(vec!["instance".to_owned()]),
        "LEDGER" => return Ok(vec!["ledger".to_owned()]),
        _ => {}
    }
    let plain = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let names: Vec<String> = rest.split("__").map(plain).collect();
    match names.as_slice() {
        [section, ..] if section == "route" || section == "worker" => return Err(Problem::ListVariable),
        [_] => return Err(Problem::UnknownVariable),
        names if names.iter().any(String::is_empty) => return Err(Problem::UnknownVariable),
        _ => {}
    }
    let mut key: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let written = file.and_then(|file| file.keys(&key).find(|key| plain(key) == name).map(str::to_owned));
        key.push(written.unwrap_or(name));
    }
    Ok(key)
}

/// `value` below tables of these names.
fn nested(key: &[String], value: Value) -> Dict {
    let mut inner = value;
    let mut table = Dict::new();
    for name in key.iter().rev() {
        table = Dict::from([(name.clone(), inner)]);
        inner = Value::from(table.clone());
    }
    table
}
