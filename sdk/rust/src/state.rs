//! State that outlives a plugin's instances.

use crate::fault::Fault;

/// State that the runtime saves with every checkpoint and hands over when the plugin is swapped.
///
/// Without it, what a plugin keeps in `self` is lost when its instance is dropped, which may happen between any two calls.
pub trait State {
    /// The state as bytes, the same for the same state.
    ///
    /// # Errors
    /// Whatever keeps it from being written; the checkpoint fails then.
    fn save(&self) -> Result<Vec<u8>, Fault>;

    /// Takes back what `save` wrote at [`Descriptor::state_version`] `from_version`.
    ///
    /// # Errors
    /// For bytes that it cannot read; a swap is refused then, and the old plugin stays.
    fn load(&mut self, from_version: u32, bytes: &[u8]) -> Result<(), Fault>;
}
