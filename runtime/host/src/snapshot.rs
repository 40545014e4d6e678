//! What a plugin keeps, as bytes of a checkpoint. The same values give the same bytes.

use std::sync::Arc;

use crate::instance::{CallError, Instance};
use crate::kv;

/// First bytes; the digit is the version of the layout.
const MAGIC: &[u8; 8] = b"plumbst1";

/// `kv` and the guest's own state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Values of `kv`.
    pub values: kv::Values,
    /// What the guest's `state.save` gave.
    pub state: Option<Arc<[u8]>>,
    /// `state-version` of the plugin that saved it.
    pub state_version: u32,
}

impl Snapshot {
    /// Gives an instance its own part back.
    pub fn restore(&self, instance: &mut Instance) -> Result<(), CallError> {
        self.state.as_ref().map_or(Ok(()), |state| instance.load(self.state_version, state))
    }

    /// Magic, version, then length-prefixed (u64, little endian) fields: the state behind a byte that says whether there is
    /// one, and keys and values in the order of the keys.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(self.state_version.to_le_bytes());
        out.push(u8::from(self.state.is_some()));
        let mut field = |bytes: &[u8]| {
            out.extend((bytes.len() as u64).to_le_bytes());
            out.extend(bytes);
        };
        field(self.state.as_deref().unwrap_or_default());
        for (key, value) in self.values.iter() {
            field(key.as_bytes());
            field(value);
        }
        out
    }

    /// None for bytes that [`Snapshot::encode`] did not write.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let state_version = u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?);
        let has_state = take(&mut rest, 1)? == [1];
        let state = Arc::from(field(&mut rest)?);
        let mut values = Vec::new();
        while !rest.is_empty() {
            let key = String::from_utf8(field(&mut rest)?.to_vec()).ok()?;
            values.push((key, field(&mut rest)?.to_vec()));
        }
        Some(Snapshot { values: Arc::new(values.into_iter().collect()), state: has_state.then_some(state), state_version })
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(n)?;
    *rest = after;
    Some(taken)
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u64::from_le_bytes(*take(rest, 8)?.first_chunk()?);
    take(rest, usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_survives_bytes_and_refuses_damaged_ones() {
        let values = [("b".to_owned(), vec![1, 2]), (String::new(), vec![])].into_iter().collect();
        let snapshot = Snapshot { values: std::sync::Arc::new(values), state: Some(Arc::from([])), state_version: 3 };
        let bytes = snapshot.encode();
        assert_eq!(Snapshot::decode(&bytes), Some(snapshot));
        assert_eq!(Snapshot::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Snapshot::decode(b"something else"), None);
        assert_eq!(Snapshot::decode(&Snapshot::default().encode()), Some(Snapshot::default()));
    }
}
