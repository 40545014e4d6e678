//! How a budget of sampled data is spent, and where each training example comes from.

/// A set of prompts and how often each is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Prompts.
    pub prompts: u64,
    /// Answers to each.
    pub generations_per_prompt: u64,
}

impl Dataset {
    /// Answers in all.
    pub fn size(self) -> u64 {
        self.prompts * self.generations_per_prompt
    }

    /// About as many answers to a share of the prompts, in (0, 1]: fewer prompts, each answered more often. Halves round to even.
    #[must_use]
    pub fn narrowed(self, fraction: f64) -> Dataset {
        let rounded = |value: f64| value.round_ties_even() as u64;
        Dataset {
            prompts: rounded(self.prompts as f64 * fraction),
            generations_per_prompt: rounded(self.generations_per_prompt as f64 / fraction),
        }
    }
}

/// Who wrote an example's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The student, now.
    Student,
    /// The teacher, now.
    Teacher,
    /// The fixed set.
    Offline,
}

/// Source of an example by a uniform draw from [0, 1): `online_student` of them are the student's, `online_teacher` the teacher's.
pub fn source(uniform: f64, online_student: f64, online_teacher: f64) -> Source {
    if uniform < online_student {
        Source::Student
    } else if uniform < online_student + online_teacher {
        Source::Teacher
    } else {
        Source::Offline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowed_sets_keep_their_size() {
        let all = Dataset { prompts: 1000, generations_per_prompt: 2 };
        for fraction in [1.0, 0.5, 0.2, 0.1] {
            assert_eq!(all.narrowed(fraction).size(), 2000, "{fraction}");
        }
        assert_eq!(Dataset { prompts: 10, generations_per_prompt: 1 }.narrowed(0.4).generations_per_prompt, 2);
    }

    #[test]
    fn bounds_belong_to_the_next_source() {
        let of = |uniform| source(uniform, 0.25, 0.5);
        assert_eq!([0.0, 0.25, 0.75].map(of), [Source::Student, Source::Teacher, Source::Offline]);
        assert_eq!(source(0.0, 0.0, 0.0), Source::Offline);
    }
}
