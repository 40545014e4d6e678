//! Contrast of two views of the same texts, such as two passes with different dropout: a text's views should be alike, and unlike other texts.
//!
//! Reference: Wang et al. 2024, "Secrets of RLHF in Large Language Models Part II: Reward Modeling", section 2.4; after Gao et al. 2021
//! (SimCSE) and Caron et al. 2020 (SwAV).

use candle_core::{D, Tensor};

use super::contrastive::normalised;
use crate::softmax::log_softmax;

/// `-ln(e^(cos(s_i, t_i) / T) / Σ_j e^(cos(s_i, t_j) / T))` of each text, `[N]`; a batch's loss is the mean over its texts.
///
/// # Shapes
/// - `view_s`, `view_t`: `[N, D]` features; gradient flows to both. `temperature`: above 0.
pub fn simcse(view_s: &Tensor, view_t: &Tensor, temperature: f64) -> candle_core::Result<Tensor> {
    let (texts, _) = view_s.dims2()?;
    let cosines = normalised(view_s)?.matmul(&normalised(view_t)?.t()?)?;
    if texts == 0 {
        return cosines.sum(D::Minus1);
    }
    let own = Tensor::arange(0u32, texts as u32, view_s.device())?.unsqueeze(1)?;
    log_softmax(&(cosines / temperature)?)?.gather(&own, 1)?.squeeze(1)?.neg()
}

/// `l(t, q_s) + l(s, q_t)` of each text, `[N]`, with `l(h, q) = -Σ_k q_k ln softmax_k(h · c_k / T)`: each view tells the other one's cluster.
///
/// Features and prototypes are taken as they are; whoever wants cosines normalises them first.
///
/// # Shapes
/// - `views`: s and t, `[N, D]` each; `prototypes`: c, `[K, D]`. Gradient flows to all three.
/// - `codes`: of s and of t, `[N, K]` each, shares of clusters without gradient. `temperature`: above 0.
pub fn swav(views: [&Tensor; 2], prototypes: &Tensor, codes: [&Tensor; 2], temperature: f64) -> candle_core::Result<Tensor> {
    let predicted = |view: &Tensor, codes: &Tensor| {
        let scores = (view.matmul(&prototypes.t()?)? / temperature)?;
        if scores.elem_count() == 0 {
            return scores.sum(D::Minus1);
        }
        (log_softmax(&scores)? * codes.detach())?.sum(D::Minus1)?.neg()
    };
    let [view_s, view_t] = views;
    let [codes_s, codes_t] = codes;
    predicted(view_t, codes_s)? + predicted(view_s, codes_t)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::mean;
    use crate::testing::{assert_close, assert_finite, assert_float32_agrees, check_gradients, matrix, numbers};

    fn views() -> [Tensor; 2] {
        [matrix([[0.5, -1.0, 0.3], [1.5, 0.2, -0.4]]), matrix([[0.1, -0.7, 0.9], [-1.0, 0.8, 0.6]])]
    }

    #[test]
    fn simcse_is_the_cross_entropy_of_the_own_view() {
        // Orthogonal texts whose views agree: cosines 1 and 0.
        let view = matrix([[2.0, 0.0], [0.0, 0.5]]);
        let want = (1.0 + (-2.0f64).exp()).ln();
        assert_close(&numbers(&simcse(&view, &view, 0.5).unwrap()), &[want, want]);
        check_gradients(&views(), 1e-8, |v| mean(&simcse(&v[0], &v[1], 0.5)?));
        assert_float32_agrees(&views(), |v| mean(&simcse(&v[0], &v[1], 0.5)?));
    }

    #[test]
    fn swav_predicts_the_other_views_codes() {
        let (view, other) = (matrix([[1.0, 0.0]]), matrix([[0.0, 0.0]]));
        let (prototypes, sure, even) = (matrix([[3.0f64.ln(), 0.0], [0.0, 1.0]]), matrix([[1.0, 0.0]]), matrix([[0.5, 0.5]]));
        // s says 3 to 1 for the first cluster, as t's codes do; t says even odds.
        let got = swav([&view, &other], &prototypes, [&even, &sure], 1.0).unwrap();
        assert_close(&numbers(&got), &[-(0.75f64.ln()) + 2f64.ln()]);
        let codes = [matrix([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]), matrix([[0.1, 0.9, 0.0], [0.4, 0.4, 0.2]])];
        let prototypes = matrix([[0.3, 1.0, -0.5], [-0.2, 0.4, 0.8], [1.1, -0.6, 0.0]]);
        let leaves = [views().to_vec(), vec![prototypes]].concat();
        check_gradients(&leaves, 1e-7, |l| mean(&swav([&l[0], &l[1]], &l[2], [&codes[0], &codes[1]], 0.4)?));
    }

    #[test]
    fn zero_huge_and_no_features_have_finite_losses_and_gradients() {
        let codes = matrix([[0.5, 0.5], [1.0, 0.0]]);
        let prototypes = matrix([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        for scale in [0.0, 1e6] {
            let views = views().map(|view| (view * scale).unwrap());
            assert_finite(&views, |v| mean(&simcse(&v[0], &v[1], 0.05)?));
            assert_finite(&views, |v| mean(&swav([&v[0], &v[1]], &prototypes, [&codes, &codes], 0.1)?));
        }
        let none = [matrix::<0, 3>([]), matrix::<0, 3>([])];
        assert_eq!(assert_finite(&none, |v| mean(&simcse(&v[0], &v[1], 0.5)?)), 0.0);
        let codes = matrix::<0, 2>([]);
        assert_eq!(assert_finite(&none, |v| mean(&swav([&v[0], &v[1]], &prototypes, [&codes, &codes], 0.1)?)), 0.0);
    }
}
