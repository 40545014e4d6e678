//! A plugin's `kv`: kept by the host, read as it was when the step began, written when the step ends.
//!
//! Calls of one step run in parallel and may be repeated or split. That no call sees another's writes, and that writes land in
//! the order of row ids, makes results independent of threads and of which group is decoded first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bindings::types::Fault;
use crate::limits;

/// Values as of some moment; shared by all calls of a step.
pub type Values = Arc<Store>;

/// Changes of one call: a value, or None for a deletion.
pub type Writes = BTreeMap<String, Option<Vec<u8>>>;

/// Values by key, and what they take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    entries: BTreeMap<String, Vec<u8>>,
    bytes: usize,
}

impl Store {
    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.entries.iter()
    }

    fn insert(&mut self, key: String, value: Vec<u8>) {
        self.bytes += size(&key, &value);
        if let Some((old, key)) = self.entries.get(&key).map(|old| (old.len(), key.len())) {
            self.bytes -= limits::KV_ENTRY_BYTES + key + old;
        }
        self.entries.insert(key, value);
    }

    fn remove(&mut self, key: &str) {
        self.bytes -= self.size_of(key);
        self.entries.remove(key);
    }

    /// Bytes of an entry; 0 where there is none.
    fn size_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(0, |value| size(key, value))
    }
}

impl FromIterator<(String, Vec<u8>)> for Store {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(entries: T) -> Self {
        let mut store = Store::default();
        entries.into_iter().for_each(|(key, value)| store.insert(key, value));
        store
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    limits::KV_ENTRY_BYTES + key.len() + value.len()
}

/// What one call sees: the step's values under its own writes.
#[derive(Debug, Default)]
pub struct Transaction {
    base: Values,
    writes: Writes,
    /// What the values would take with the writes.
    bytes: usize,
}

impl Transaction {
    /// A call's view of `base`.
    pub fn new(base: Values) -> Self {
        Transaction { bytes: base.bytes, base, writes: Writes::new() }
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.find(key).cloned()
    }

    /// Writes a value, within the limits.
    pub fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), Fault> {
        let refuse = |code: &str, message: String| Err(Fault { code: code.to_owned(), message, retryable: false });
        if key.len() > limits::KV_KEY_BYTES {
            return refuse("kv-key", format!("the key has {} bytes, limit {}", key.len(), limits::KV_KEY_BYTES));
        }
        let bytes = self.bytes - self.size_of(&key) + size(&key, &value);
        if bytes > limits::KV_BYTES {
            return refuse("kv-full", format!("keys and values would take {bytes} bytes, limit {}", limits::KV_BYTES));
        }
        self.bytes = bytes;
        self.writes.insert(key, Some(value));
        Ok(())
    }

    /// Deletes a value, if there is one.
    pub fn delete(&mut self, key: String) {
        self.bytes -= self.size_of(&key);
        // A deletion is recorded where there is something to delete, so that bogus ones cannot pile up.
        if self.base.entries.contains_key(&key) {
            self.writes.insert(key, None);
        } else {
            self.writes.remove(&key);
        }
    }

    /// Keys that begin with `prefix`, in their order.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let old = self.base.entries.keys().filter(|key| !self.writes.contains_key(*key));
        let new = self.writes.iter().filter_map(|(key, value)| value.as_ref().map(|_| key));
        let mut keys: Vec<String> = old.chain(new).filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.sort_unstable();
        keys
    }

    /// Entries to look through for a list of keys.
    pub fn len(&self) -> usize {
        self.base.entries.len() + self.writes.len()
    }

    /// What the call wrote.
    pub fn into_writes(self) -> Writes {
        self.writes
    }

    fn find(&self, key: &str) -> Option<&Vec<u8>> {
        match self.writes.get(key) {
            Some(written) => written.as_ref(),
            None => self.base.entries.get(key),
        }
    }

    fn size_of(&self, key: &str) -> usize {
        self.find(key).map_or(0, |value| size(key, value))
    }
}

/// Bytes that writes take until they are applied.
pub fn written(writes: &Writes) -> usize {
    writes.iter().map(|(key, value)| size(key, value.as_deref().unwrap_or_default())).sum()
}

/// Applies the writes of a call, all of them or none. Each call kept to the limit by itself; one whose writes do not fit together with
/// those of earlier calls is refused, and its keys returned.
pub fn apply(values: &mut Values, writes: Writes) -> Vec<String> {
    if writes.is_empty() {
        return Vec::new();
    }
    let gone: usize = writes.keys().map(|key| values.size_of(key)).sum();
    let new: usize = writes.iter().filter_map(|(key, value)| Some(size(key, value.as_ref()?))).sum();
    if values.bytes - gone + new > limits::KV_BYTES {
        return writes.into_keys().collect();
    }
    let values = Arc::make_mut(values);
    for (key, value) in writes {
        match value {
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        }
    }
    Vec::new()
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
        assert_eq!(base.entries.len(), 2);
        assert_eq!(apply(&mut base, call.into_writes()), [""; 0]);
        assert_eq!(base, values(&[("b", "2"), ("c", "3")]));
    }

    #[test]
    fn transaction_beyond_its_size_is_refused_and_overwriting_is_not() {
        let mut call = Transaction::new(Values::default());
        let all = limits::KV_BYTES - limits::KV_ENTRY_BYTES - 3;
        call.set("big".into(), vec![0; all]).unwrap();
        assert_eq!(call.set("x".into(), Vec::new()).unwrap_err().code, "kv-full");
        call.set("big".into(), vec![1; all]).unwrap();
        call.delete("big".into());
        call.set("x".into(), Vec::new()).unwrap();
        assert_eq!(call.set("k".repeat(limits::KV_KEY_BYTES + 1), Vec::new()).unwrap_err().code, "kv-key");
    }

    #[test]
    fn writes_of_a_call_that_make_room_for_each_other_fit_whatever_their_order() {
        let all = limits::KV_BYTES - limits::KV_ENTRY_BYTES - 1;
        for (old, new) in [("a", "z"), ("z", "a")] {
            let mut values: Values = Arc::new([(old.to_owned(), vec![0; all])].into_iter().collect());
            let mut call = Transaction::new(Arc::clone(&values));
            call.delete(old.into());
            call.set(new.into(), vec![1; all]).unwrap();
            assert_eq!(apply(&mut values, call.into_writes()), [""; 0]);
            assert_eq!(values.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [new]);
        }
    }

    #[test]
    fn writes_that_fit_alone_but_not_together_are_refused_by_key() {
        let mut values = Values::default();
        let half = limits::KV_BYTES / 2;
        let refused: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .flat_map(|key| {
                let mut call = Transaction::new(Values::default());
                call.set(key.to_owned(), vec![0; if key == "b" { half } else { half - 2 * limits::KV_ENTRY_BYTES }]).unwrap();
                apply(&mut values, call.into_writes())
            })
            .collect();
        assert_eq!(refused, ["b"]);
        assert_eq!(values.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(values.bytes <= limits::KV_BYTES);
    }
}
