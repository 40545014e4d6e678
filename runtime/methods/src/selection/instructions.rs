//! Pairs of prompts for one response, by which of their instructions it satisfies (multi-level aware preference learning).

/// Why a response fits one prompt better than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptRelation {
    /// All instructions of the preferred prompt are satisfied and not all of the other's.
    pub all_vs_not_all: bool,
    /// Some instruction of the preferred prompt is satisfied and none of the other's.
    pub some_vs_none: bool,
}

impl PromptRelation {
    /// Whether the two prompts make a pair.
    pub fn is_valid(self) -> bool {
        self.all_vs_not_all || self.some_vs_none
    }
}

/// Relation of two prompts by whether the response satisfies each of their instructions. A prompt without any is in no relation.
pub fn prompt_relation(preferred: &[bool], other: &[bool]) -> PromptRelation {
    if preferred.is_empty() || other.is_empty() {
        return PromptRelation::default();
    }
    let (all, any) = (|flags: &[bool]| flags.iter().all(|flag| *flag), |flags: &[bool]| flags.iter().any(|flag| *flag));
    PromptRelation { all_vs_not_all: all(preferred) && !all(other), some_vs_none: any(preferred) && !any(other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart() {
        let of = |preferred: &[bool], other: &[bool]| {
            let relation = prompt_relation(preferred, other);
            (relation.all_vs_not_all, relation.some_vs_none, relation.is_valid())
        };
        assert_eq!(of(&[true, true], &[true, false]), (true, false, true));
        assert_eq!(of(&[true, false], &[false]), (false, true, true));
        assert_eq!(of(&[true], &[false]), (true, true, true));
        assert_eq!(of(&[true], &[true]), (false, false, false));
        assert_eq!(of(&[], &[false]), (false, false, false));
        assert_eq!(of(&[true], &[]), (false, false, false));
    }
}
