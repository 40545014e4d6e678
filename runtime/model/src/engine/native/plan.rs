//! What a pass needs to know about its tokens and targets, worked out once.

use plumb_kernels::cpu::attention::Span;
use plumb_kernels::cpu::logprob::Logprobs;

use crate::config::ModelConfig;
use crate::engine::{LeafGrads, Leaves, Packed, Target};
use crate::{Error, Result};

/// Packed tokens with their positions, and targets sorted by row.
pub(super) struct Plan {
    /// `[n]`.
    pub tokens: Vec<u32>,
    /// Position of each token in its sequence, `[n]`.
    pub positions: Vec<u32>,
    pub spans: Vec<Span>,
    /// Distinct rows that targets ask for, ascending, `[rows]`.
    pub rows: Vec<u32>,
    /// `rows` and behind them those whose hidden states are asked for, in the caller's order, `[rows + H]`.
    pub hidden_rows: Vec<u32>,
    /// Sorted targets of row i are `row_ends[i - 1]..row_ends[i]`, `[rows]`.
    pub row_ends: Vec<usize>,
    /// Token of each sorted target, `[m]`.
    pub target_tokens: Vec<u32>,
    pub temperature: f32,
    /// Index of each sorted target in the caller's order, `[m]`.
    order: Vec<usize>,
}

impl Plan {
    /// # Errors
    /// [`Error::TooLong`] when a sequence does not fit the model's context.
    ///
    /// # Panics
    /// When a token or a row does not exist, or the temperature is not positive.
    pub(super) fn new(
        config: &ModelConfig,
        packed: &Packed,
        targets: &[Target],
        hidden: &[u32],
        temperature: f32,
    ) -> Result<Self> {
        assert!(temperature > 0.0, "a temperature of {temperature}");
        let vocab = config.vocab_size;
        let known = |token: u32| (token as usize) < vocab;
        assert!(packed.tokens.iter().all(|&token| known(token)), "a token is outside the vocabulary of {vocab}");
        assert!(targets.iter().all(|target| known(target.token)), "a target is outside the vocabulary of {vocab}");
        let n = packed.tokens.len();
        let asked = targets.iter().map(|target| target.row).chain(hidden.iter().copied());
        assert!(asked.into_iter().all(|row| (row as usize) < n), "a row outside the {n} tokens is asked for");

        let mut positions = Vec::with_capacity(n);
        for (index, segment) in packed.segments.iter().enumerate() {
            let offset = packed.offset(index);
            let (length, limit) = (offset + segment.len, config.max_position_embeddings);
            if length > limit {
                return Err(Error::TooLong { length, limit });
            }
            positions.extend((offset..length).map(|position| position as u32));
        }
        assert_eq!(positions.len(), n, "segments cover all tokens");

        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|&i| targets[i].row); // stable: targets of one row keep their order
        let (mut rows, mut row_ends) = (Vec::new(), Vec::new());
        for (sorted, &i) in order.iter().enumerate() {
            if rows.last() == Some(&targets[i].row) {
                *row_ends.last_mut().expect("as many ends as rows") += 1;
            } else {
                rows.push(targets[i].row);
                row_ends.push(sorted + 1);
            }
        }
        Ok(Plan {
            tokens: packed.tokens.clone(),
            positions,
            spans: packed.segments.iter().map(|s| Span { start: s.start, len: s.len, prefix: s.prefix }).collect(),
            hidden_rows: rows.iter().chain(hidden).copied().collect(),
            rows,
            row_ends,
            target_tokens: order.iter().map(|&i| targets[i].token).collect(),
            temperature,
            order,
        })
    }

    /// One past the last position.
    pub(super) fn positions_end(&self) -> usize {
        self.positions.iter().max().map_or(0, |&last| last as usize + 1)
    }

    /// Row index of each sorted target, `[m]`.
    fn target_rows(&self) -> impl Iterator<Item = usize> {
        let starts = std::iter::once(0).chain(self.row_ends.iter().copied());
        starts.zip(&self.row_ends).enumerate().flat_map(|(row, (start, &end))| (start..end).map(move |_| row))
    }

    /// Numbers of sorted targets and rows in the caller's order.
    pub(super) fn unsort(&self, answer: &Logprobs) -> Leaves {
        let zeros = vec![0.0; self.order.len()];
        let mut leaves = Leaves { logprobs: zeros.clone(), entropies: zeros, hidden: Vec::new() };
        for ((&target, row), &logprob) in self.order.iter().zip(self.target_rows()).zip(&answer.logprobs) {
            leaves.logprobs[target] = logprob;
            leaves.entropies[target] = answer.entropies[row];
        }
        leaves
    }

    /// Gradients of sorted targets, and of rows' entropies: a row's is the sum over its targets.
    pub(super) fn sort_gradients(&self, grads: &LeafGrads) -> (Vec<f32>, Option<Vec<f32>>) {
        let m = self.order.len();
        assert_eq!(grads.logprobs.len(), m, "a gradient for each log-probability");
        let logprobs = self.order.iter().map(|&target| grads.logprobs[target]).collect();
        let entropies = grads.entropies.as_ref().map(|entropies| {
            assert_eq!(entropies.len(), m, "a gradient for each entropy");
            let mut rows = vec![0.0; self.rows.len()];
            for (&target, row) in self.order.iter().zip(self.target_rows()) {
                rows[row] += entropies[target];
            }
            rows
        });
        (logprobs, entropies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::native::tests::tiny_config;

    fn plan() -> Plan {
        let mut packed = Packed::default();
        let prompt = packed.push(&[1, 2, 3], None);
        packed.push(&[4, 5], Some(prompt));
        packed.push(&[6], Some(prompt));
        let targets = [(4, 9), (2, 4), (0, 2), (2, 6)].map(|(row, token)| Target { row, token });
        Plan::new(&tiny_config(), &packed, &targets, &[], 1.0).expect("a plan")
    }

    #[test]
    fn completions_go_on_from_their_prompt() {
        assert_eq!(plan().positions, [0, 1, 2, 3, 4, 3]);
        assert_eq!(plan().positions_end(), 5);
    }

    #[test]
    fn targets_are_sorted_by_row_and_rows_are_distinct() {
        let plan = plan();
        assert_eq!(plan.rows, [0, 2, 4]);
        assert_eq!(plan.row_ends, [1, 3, 4]);
        assert_eq!(plan.target_tokens, [2, 4, 6, 9]);
    }

    #[test]
    fn answers_and_gradients_keep_the_callers_order() {
        let plan = plan();
        let answer = Logprobs { logprobs: vec![1.0, 2.0, 3.0, 4.0], lse: vec![0.0; 3], entropies: vec![10.0, 20.0, 30.0] };
        let leaves = plan.unsort(&answer);
        assert_eq!(leaves.logprobs, [4.0, 2.0, 1.0, 3.0]);
        assert_eq!(leaves.entropies, [30.0, 20.0, 10.0, 20.0]);
        let grads = LeafGrads { logprobs: leaves.logprobs, entropies: Some(vec![1.0, 2.0, 4.0, 8.0]), ..LeafGrads::default() };
        assert_eq!(plan.sort_gradients(&grads), (answer.logprobs, Some(vec![4.0, 10.0, 1.0])));
    }

    #[test]
    fn a_sequence_that_leaves_the_context_is_an_error() {
        let config = ModelConfig { max_position_embeddings: 4, ..tiny_config() };
        let mut packed = Packed::default();
        let prompt = packed.push(&[1, 2, 3], None);
        packed.push(&[4], Some(prompt));
        assert!(Plan::new(&config, &packed, &[], &[], 1.0).is_ok());
        packed.push(&[4, 5], Some(prompt));
        assert!(matches!(Plan::new(&config, &packed, &[], &[], 1.0), Err(Error::TooLong { length: 5, limit: 4 })));
    }
}
