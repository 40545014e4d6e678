//! Answers that were given already.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::question::RowAnswer;

/// Most bytes of answers that are kept.
pub const MAX_BYTES: usize = 64 << 20;

/// Answers by the key of their question; the oldest go first. Whoever changes a model's weights drops its answers.
#[derive(Default)]
pub struct Cache {
    answers: HashMap<String, (Arc<str>, RowAnswer)>,
    /// Keys by age.
    order: VecDeque<String>,
    bytes: usize,
}

impl Cache {
    pub fn get(&self, key: &str) -> Option<&RowAnswer> {
        self.answers.get(key).map(|(_, answer)| answer)
    }

    pub fn insert(&mut self, key: String, model: Arc<str>, answer: RowAnswer) {
        self.bytes += cost(&key, &answer);
        self.order.push_back(key.clone());
        if let Some((_, before)) = self.answers.insert(key.clone(), (model, answer)) {
            self.bytes -= cost(&key, &before);
        }
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((_, answer)) = self.answers.remove(&oldest) {
                self.bytes -= cost(&oldest, &answer);
            }
        }
    }

    /// Drops the answers of one model.
    pub fn drop_model(&mut self, name: &str) {
        self.answers.retain(|key, (model, answer)| {
            let keep = &**model != name;
            self.bytes -= if keep { 0 } else { cost(key, answer) };
            keep
        });
        self.order.retain(|key| self.answers.contains_key(key));
    }

    pub fn clear(&mut self) {
        *self = Cache::default();
    }
}

fn cost(key: &str, answer: &RowAnswer) -> usize {
    2 * key.len() + answer.bytes() + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_answers_make_room_and_a_model_s_answers_go_together() {
        let mut cache = Cache::default();
        let big = || RowAnswer::Embedding(vec![0.0; MAX_BYTES / 16]);
        for i in 0..5 {
            cache.insert(i.to_string(), if i == 3 { "policy".into() } else { "other".into() }, big());
        }
        let there = |cache: &Cache| (0..5).filter(|i| cache.get(&i.to_string()).is_some()).collect::<Vec<_>>();
        assert_eq!(there(&cache), [2, 3, 4]);
        cache.drop_model("policy");
        assert_eq!(there(&cache), [2, 4]);
        let two = cache.bytes;
        cache.insert("2".into(), "other".into(), big());
        assert_eq!(cache.bytes, two, "replacing an answer takes no room");
        cache.drop_model("other");
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
    }
}
