//! What a reload cannot do.

use figment::value::{Dict, Value};

use super::{Config, KeyPath};

impl Config {
    /// The keys whose change needs a restart: a reload swaps routes and users and leaves all else as it is. Such a
    /// reload should be refused as a whole, so that the file and what runs do not drift apart.
    pub fn beyond_reload(&self, new: &Config) -> Vec<String> {
        let mut keys = Vec::new();
        match (self.fixed(), new.fixed()) {
            (Some(old), Some(new)) => differences(&KeyPath::default(), &old, &new, &mut keys),
            // Our own tables can always be written; should one not, saying too much is the safe side.
            _ => keys.push("doors".to_owned()),
        }
        keys
    }

    /// What only a start reads, as tables.
    fn fixed(&self) -> Option<Value> {
        let mut backends = Dict::new();
        for (name, backend) in &self.backends {
            backends.insert(name.to_string(), Value::serialize(backend).ok()?);
        }
        let vhost = |backend: &str| Dict::from([("backend".to_owned(), Value::from(backend))]);
        let vhosts = self.vhosts.iter().map(|(name, v)| (name.to_string(), Value::from(vhost(&v.backend))));
        Some(Value::from(Dict::from([
            ("doors".to_owned(), Value::serialize(&self.doors).ok()?),
            ("backends".to_owned(), Value::from(backends)),
            ("vhosts".to_owned(), Value::from(vhosts.collect::<Dict>())),
            ("limits".to_owned(), Value::serialize(&self.limits).ok()?),
            ("log".to_owned(), Value::serialize(&self.log).ok()?),
        ])))
    }
}

/// The keys under which the values differ; a table that only one has is named as a whole.
fn differences(key: &KeyPath, old: &Value, new: &Value, keys: &mut Vec<String>) {
    match (old, new) {
        (Value::Dict(_, old), Value::Dict(_, new)) => {
            for (name, value) in old {
                match new.get(name) {
                    Some(other) => differences(&key.key(name), value, other, keys),
                    None => keys.push(key.key(name).to_string()),
                }
            }
            let added = new.keys().filter(|name| !old.contains_key(*name));
            keys.extend(added.map(|name| key.key(name).to_string()));
        }
        _ if old != new => keys.push(key.to_string()),
        _ => {}
    }
}
