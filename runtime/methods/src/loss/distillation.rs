//! Divergences of a student's distributions over the vocabulary from a teacher's (Agarwal et al. 2024, "GKD"; Tiapkin et al. 2025, "On
//! Teacher Hacking in Language Model Distillation").

use candle_core::{D, Tensor};

use crate::kl::divergence;
use crate::softmax::log_softmax;

/// What is measured at each token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenDivergence {
    /// KL(teacher ‖ student): covers all that the teacher may say.
    ForwardKl,
    /// KL(student ‖ teacher): keeps to what the teacher prefers.
    ReverseKl,
    /// `b KL(teacher ‖ m) + (1 - b) KL(student ‖ m)` with `m = b teacher + (1 - b) student`; its gradient vanishes at b of 0 and 1.
    GeneralizedJs(f64),
}

/// Divergence at each token, `[..]`, nats.
///
/// # Shapes
/// - `teacher`, `student`: `[.., V]` logits. Gradient flows to the student's alone.
pub fn token_divergence(teacher: &Tensor, student: &Tensor, kind: TokenDivergence) -> candle_core::Result<Tensor> {
    let (teacher, student) = (log_softmax(&teacher.detach())?, log_softmax(student)?);
    match kind {
        TokenDivergence::ForwardKl => divergence(&teacher, &student),
        TokenDivergence::ReverseKl => divergence(&student, &teacher),
        TokenDivergence::GeneralizedJs(b) => {
            let middle = log_add_exp(&(&teacher + b.ln())?, &(&student + (1.0 - b).ln())?)?;
            (divergence(&teacher, &middle)? * b)? + (divergence(&student, &middle)? * (1.0 - b))?
        }
    }
}

/// `ln(e^a + e^b)` by element, of which one may be minus infinity.
fn log_add_exp(a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let max = a.detach().maximum(&b.detach())?;
    ((a - &max)?.exp()? + (b - &max)?.exp()?)?.log()? + max
}

/// Log-probability of each label, `[N]`, nats.
///
/// # Shapes
/// - `logits`: `[N, V]`; gradient flows to them. `labels`: `[N]` of u32.
pub fn label_logprobs(logits: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    log_softmax(logits)?.gather(&labels.unsqueeze(1)?, D::Minus1)?.squeeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;
    use crate::testing::{assert_close, assert_finite, check_gradients, gradients, matrix, numbers};

    const ALL: [TokenDivergence; 5] = [
        TokenDivergence::ForwardKl,
        TokenDivergence::ReverseKl,
        TokenDivergence::GeneralizedJs(0.3),
        TokenDivergence::GeneralizedJs(0.0),
        TokenDivergence::GeneralizedJs(1.0),
    ];

    fn graph(teacher: Tensor, kind: TokenDivergence) -> impl Fn(&[Tensor]) -> candle_core::Result<Tensor> {
        move |student| token_divergence(&teacher, &student[0], kind)?.sum_all()
    }

    #[test]
    fn divergences_match_the_formula_by_hand() {
        let (t, s) = (stats::softmax(&[0.3, -1.0, 0.7]), stats::softmax(&[-0.2, 0.4, 0.0]));
        let kl = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        let m: Vec<f64> = t.iter().zip(&s).map(|(t, s)| 0.3 * t + 0.7 * s).collect();
        let want = [kl(&t, &s), kl(&s, &t), 0.3 * kl(&t, &m) + 0.7 * kl(&s, &m), 0.0, 0.0];
        let value = |kind| token_divergence(&matrix([[0.3, -1.0, 0.7]]), &matrix([[-0.2, 0.4, 0.0]]), kind).unwrap();
        assert_close(&ALL.map(|kind| numbers(&value(kind))[0]), &want);
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (teacher, student) = (matrix([[0.3, -1.0, 0.7], [2.0, 0.0, -2.0]]), matrix([[-0.2, 0.4, 0.0], [1.0, 1.0, -3.0]]));
        for kind in ALL {
            check_gradients(std::slice::from_ref(&student), 1e-8, graph(teacher.clone(), kind));
        }
    }

    #[test]
    fn student_that_equals_its_teacher_and_extreme_logits_are_finite() {
        let same = matrix([[0.3, -1.0, 0.7]]);
        for kind in ALL {
            let (value, gradient) = gradients(std::slice::from_ref(&same), graph(same.clone(), kind)).unwrap();
            assert!(value.abs() < 1e-15 && gradient.iter().flatten().all(|g| g.abs() < 1e-15), "{kind:?}: {gradient:?}");
            assert_finite(&[matrix([[-1e4, 1e4, 0.0]])], graph(matrix([[1e4, -1e4, 0.0]]), kind));
        }
    }

    #[test]
    fn labels_have_their_log_probabilities() {
        let labels = Tensor::new(&[2u32, 0], &candle_core::Device::Cpu).unwrap();
        let logprobs = label_logprobs(&matrix([[0.3, -1.0, 0.7], [0.0; 3]]), &labels).unwrap();
        assert_close(&numbers(&logprobs), &[stats::softmax(&[0.3, -1.0, 0.7])[2].ln(), (1.0f64 / 3.0).ln()]);
    }
}
