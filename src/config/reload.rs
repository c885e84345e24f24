//! What a reload cannot do.

use figment::value::{Dict, Value};

use super::{Config, ConfigErrors, KeyPath};

impl Config {
    /// Whether a reload can put `new` in force: it swaps routes, workers, users, `[memory]` and `[disk]`, and leaves
    /// all else as it is. A reload that changes more is refused as a whole, so that the file and what runs do not drift
    /// apart.
    ///
    /// # Errors
    /// Each key whose change needs a restart.
    pub fn may_become(&self, new: &Config) -> Result<(), ConfigErrors> {
        let mut keys = Vec::new();
        match (self.fixed(), new.fixed()) {
            (Some(old), Some(new)) => differences(&KeyPath::default(), &old, &new, &mut keys),
            // Our own tables can always be written; should one not, saying too much is the safe side.
            _ => keys.push(KeyPath::of(["doors"])),
        }
        let error = |key| {
            let text = "was changed, and that needs a restart; a reload swaps routes, workers, users, [memory] and [disk]";
            new.wrong_key(key, text)
        };
        ConfigErrors::none_of(keys.into_iter().map(error).collect())
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
            ("instance".to_owned(), Value::from(self.instance.as_deref().unwrap_or_default())),
            ("ledger".to_owned(), Value::from(self.ledger.expose())),
            ("doors".to_owned(), Value::serialize(&self.doors).ok()?),
            ("backends".to_owned(), Value::from(backends)),
            ("vhosts".to_owned(), Value::from(vhosts.collect::<Dict>())),
            ("limits".to_owned(), Value::serialize(&self.limits).ok()?),
            ("log".to_owned(), Value::serialize(&self.log).ok()?),
        ])))
    }
}

/// The keys under which the values differ; a table that only one has is named as a whole.
fn differences(key: &KeyPath, old: &Value, new: &Value, keys: &mut Vec<KeyPath>) {
    match (old, new) {
        (Value::Dict(_, old), Value::Dict(_, new)) => {
            for (name, value) in old {
                match new.get(name) {
                    Some(other) => differences(&key.key(name), value, other, keys),
                    None => keys.push(key.key(name)),
                }
            }
            let added = new.keys().filter(|name| !old.contains_key(*name));
            keys.extend(added.map(|name| key.key(name)));
        }
        _ if old != new => keys.push(key.clone()),
        _ => {}
    }
}
