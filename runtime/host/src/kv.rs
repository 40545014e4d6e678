//! A plugin's `kv`: kept by the host, read as it was when the step began, written when the step ends.
//!
//! Calls of one step run in parallel and may be repeated or split. That no call sees another's writes, and that writes land in
//! the order of submission, makes results independent of threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bindings::types::Fault;
use crate::limits;

/// Values as of some moment; shared by all calls of a step.
pub type Values = Arc<BTreeMap<String, Vec<u8>>>;

/// Changes of one call: a value, or None for a deletion.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// What one call sees: the step's values under its own writes.
#[derive(Debug, Default)]
pub struct Transaction {
    base: Values,
    writes: Writes,
}

impl Transaction {
    /// A call's view of `base`.
    pub fn new(base: Values) -> Self {
        Transaction { base, writes: Writes::new() }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self.writes.get(key) {
            Some(written) => written.clone(),
            None => self.base.get(key).cloned(),
        }
    }

    /// Writes a value, within the limits.
    pub fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), Fault> {
        let refuse = |code: &str, message: String| Err(Fault { code: code.to_owned(), message, retryable: false });
        if key.len() > limits::KV_KEY_BYTES {
            return refuse("kv-key", format!("the key has {} bytes, limit {}", key.len(), limits::KV_KEY_BYTES));
        }
        let others: usize = self.live().filter(|(k, _)| **k != key).map(|(k, v)| k.len() + v.len()).sum();
        let size = others + key.len() + value.len();
        if size > limits::KV_BYTES {
            return refuse("kv-full", format!("keys and values would take {size} bytes, limit {}", limits::KV_BYTES));
        }
        self.writes.insert(key, Some(value));
        Ok(())
    }

    /// Deletes a value, if there is one.
    pub fn delete(&mut self, key: String) {
        // A deletion is recorded where there is something to delete, so that bogus ones cannot pile up.
        if self.base.contains_key(&key) {
            self.writes.insert(key, None);
        } else {
            self.writes.remove(&key);
        }
    }

    /// Keys that begin with `prefix`, in their order.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.live().map(|(key, _)| key).filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// What the call wrote.
    pub fn into_writes(self) -> Writes {
        self.writes
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        let old = self.base.iter().filter(|(key, _)| !self.writes.contains_key(*key));
        old.chain(self.writes.iter().filter_map(|(key, value)| value.as_ref().map(|value| (key, value))))
    }
}

/// Applies the writes of a call.
pub fn apply(values: &mut Values, writes: Writes) {
    if writes.is_empty() {
        return;
    }
    let values = Arc::make_mut(values);
    for (key, value) in writes {
        match value {
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(entries: &[(&str, &str)]) -> Values {
        Arc::new(entries.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect())
    }

    #[test]
    fn transaction_reads_its_own_writes_and_leaves_the_base_alone() {
        let mut base = values(&[("a", "1"), ("b", "2")]);
        let mut call = Transaction::new(Arc::clone(&base));
        call.set("c".into(), b"3".to_vec()).unwrap();
        call.delete("a".into());
        call.delete("never there".into());
        assert_eq!(call.get("a"), None);
        assert_eq!(call.keys(""), ["b", "c"]);
        assert_eq!(base.len(), 2);
        apply(&mut base, call.into_writes());
        assert_eq!(base, values(&[("b", "2"), ("c", "3")]));
    }

    #[test]
    fn transaction_beyond_its_size_is_refused_and_overwriting_is_not() {
        let mut call = Transaction::new(Values::default());
        call.set("big".into(), vec![0; limits::KV_BYTES - 3]).unwrap();
        assert_eq!(call.set("x".into(), Vec::new()).unwrap_err().code, "kv-full");
        call.set("big".into(), vec![1; limits::KV_BYTES - 3]).unwrap();
        assert_eq!(call.set("k".repeat(limits::KV_KEY_BYTES + 1), Vec::new()).unwrap_err().code, "kv-key");
    }
}
