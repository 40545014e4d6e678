//! Learning-rate schedules, with the formulas of Hugging Face transformers (`optimization.py`).

use plumb_core::recipe::{LrSchedule, Optimizer};

/// Learning rate of optimizer step `step` (from 0) of a stage of `max_steps`.
///
/// With w warm-up steps: `peak · step / w` while `step < w`, so the first rate is 0 when there is a warm-up. After it, with
/// `progress = (step - w) / (max_steps - w)`: the peak; `peak · (1 - progress)`; or `peak · (1 + cos(π · progress)) / 2`.
pub fn learning_rate(optimizer: &Optimizer, step: u64, max_steps: u64) -> f64 {
    let (peak, warmup) = (optimizer.learning_rate, optimizer.warmup_steps);
    if step < warmup {
        return peak * step as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / max_steps.saturating_sub(warmup).max(1) as f64;
    match optimizer.lr_scheduler_type {
        LrSchedule::Constant => peak,
        LrSchedule::Linear => peak * (1.0 - progress).max(0.0),
        LrSchedule::Cosine => peak * (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: LrSchedule, warmup_steps: u64, steps: &[u64]) -> Vec<f64> {
        let optimizer = Optimizer { learning_rate: 2.0, lr_scheduler_type: kind, warmup_steps, ..Optimizer::default() };
        steps.iter().map(|&s| learning_rate(&optimizer, s, 10)).collect()
    }

    #[test]
    fn warm_up_rises_from_zero_to_the_peak() {
        assert_eq!(rates(LrSchedule::Constant, 4, &[0, 1, 2, 4, 9]), [0.0, 0.5, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn linear_falls_to_zero_at_the_end() {
        assert_eq!(rates(LrSchedule::Linear, 2, &[2, 6, 10, 11]), [2.0, 1.0, 0.0, 0.0]);
        assert_eq!(rates(LrSchedule::Linear, 0, &[0, 5]), [2.0, 1.0]);
    }

    #[test]
    fn cosine_passes_half_the_peak_in_the_middle() {
        let got = rates(LrSchedule::Cosine, 0, &[0, 5, 10]);
        assert!((got[0] - 2.0).abs() < 1e-15 && (got[1] - 1.0).abs() < 1e-15 && got[2].abs() < 1e-15, "{got:?}");
    }

    #[test]
    fn warm_up_longer_than_the_stage_stays_finite() {
        assert!(rates(LrSchedule::Cosine, 20, &[0, 9]).iter().all(|rate| rate.is_finite()));
    }
}
