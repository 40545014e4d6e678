//! What a step's calls leave behind until the step ends: bounded, and whichever order the calls came in, the same.

use std::collections::BTreeMap;

use crate::kv;
use crate::limits;
use crate::tally::Tally;

/// Bytes that a state counts besides its own: an empty one has to be merged too.
const STATE_BYTES: usize = 64;

/// What a successful call left behind; takes effect when the step ends.
#[derive(Default)]
pub struct Effects {
    /// Step of the call.
    pub step: u64,
    /// Writes to `kv`.
    pub writes: kv::Writes,
    /// Metrics.
    pub metrics: Tally,
    /// What the guest saved after the call, where calls are made side by side.
    pub state: Option<Vec<u8>>,
}

impl Effects {
    fn bytes(&self) -> usize {
        kv::written(&self.writes) + self.metrics.bytes() + self.state.as_ref().map_or(0, |state| STATE_BYTES + state.len())
    }
}

/// Place of a call in the order of the data: the id of its first row, whichever group was decoded first; and the number of its
/// submission, which only tells calls for the same rows apart.
pub type Place = (u64, u64);

/// Effects of the calls of a step: the first calls, in the order of their places, that together keep to
/// [`limits::STEP_EFFECT_BYTES`]. Those of the first call beyond it, and of all behind that one, are lost.
#[derive(Default)]
pub struct StepEffects {
    calls: BTreeMap<Place, Effects>,
    bytes: usize,
    /// The first place known to lie beyond the limit. More calls only make it smaller.
    beyond: Option<Place>,
    lost: u64,
}

impl StepEffects {
    /// Adds a call's.
    pub fn add(&mut self, place: Place, effects: Effects) {
        let bytes = effects.bytes();
        if bytes == 0 {
            return;
        }
        if self.beyond.is_some_and(|beyond| place >= beyond) {
            self.lost += 1;
            return;
        }
        self.bytes += bytes;
        if let Some(old) = self.calls.insert(place, effects) {
            self.bytes -= old.bytes();
        }
        while self.bytes > limits::STEP_EFFECT_BYTES {
            let Some((place, last)) = self.calls.pop_last() else { break };
            self.bytes -= last.bytes();
            self.beyond = Some(place);
            self.lost += 1;
        }
    }

    /// What is kept, in the order of the data, and the number of calls whose effects are lost.
    pub fn take(&mut self) -> (impl Iterator<Item = Effects> + use<>, u64) {
        let Self { calls, lost, .. } = std::mem::take(self);
        (calls.into_values(), lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::MetricValue;

    fn writing(mib: usize) -> Effects {
        Effects { writes: [("key".to_owned(), Some(vec![0; mib << 20]))].into(), ..Effects::default() }
    }

    #[test]
    fn effects_beyond_the_limit_are_lost_from_the_same_call_on_in_any_order() {
        // The fifth call does not fit any more; the sixth would, but stands behind it.
        let sizes = [14, 14, 14, 14, 14, 1];
        let kept = |order: [usize; 6]| {
            let mut step = StepEffects::default();
            order.into_iter().for_each(|i| step.add((i as u64, 0), writing(sizes[i])));
            let (kept, lost) = step.take();
            (kept.count(), lost)
        };
        for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2], [4, 5, 3, 0, 2, 1]] {
            assert_eq!(kept(order), (4, 2), "{order:?}");
        }
    }

    #[test]
    fn calls_that_leave_nothing_take_no_room() {
        let mut step = StepEffects::default();
        step.add((0, 0), Effects::default());
        let mut metrics = Tally::default();
        metrics.add("seen".into(), MetricValue::Observe(vec![1.0]));
        step.add((1, 0), Effects { metrics, ..Effects::default() });
        assert_eq!(step.take().0.count(), 1);
        assert_eq!(step.bytes, 0);
    }
}
