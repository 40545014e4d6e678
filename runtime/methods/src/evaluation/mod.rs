//! What evaluations compute: accuracies, curves over best-of-n, calibration and diversity. Without a value there is None, not NaN.

pub mod benchmark;
pub mod best_of_n;
pub mod calibration;
pub mod contrast;
pub mod diversity;
pub mod filtration;
pub mod hacking;
pub mod hallucination;
pub mod listwise;
pub mod one_to_many;
pub mod overoptimization;
pub mod pareto;
pub mod preference;
pub mod sequence_kl;
pub mod ties;
pub mod verdicts;
pub mod vote;
