//! Search for the thresholds of constraints without gradients, where a value costs a training run.
//!
//! Reference: Moskovitz et al. 2023, "Confronting Reward Model Overoptimization with Constrained RLHF" (NM-PPO), as released; after Nelder and
//! Mead 1965, "A simplex method for function minimization".

use crate::advantage::{mean, std_dev};
use crate::stats::order;

/// How the simplex moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NelderMead {
    /// Reflection: the worst vertex goes this far beyond the centroid of the others.
    pub alpha: f64,
    /// Expansion: the reflection's distance from the centroid is multiplied by it.
    pub gamma: f64,
    /// Contraction: the worst vertex's distance from the centroid is multiplied by it.
    pub rho: f64,
    /// Shrinkage: the distance of all others from the best vertex is multiplied by it.
    pub sigma: f64,
    /// Most moves.
    pub iterations: usize,
    /// The search ends after a shrinkage that leaves values with a standard deviation (dividing by their number) below it.
    pub tolerance: f64,
}

impl Default for NelderMead {
    fn default() -> Self {
        NelderMead { alpha: 1.0, gamma: 2.0, rho: 0.5, sigma: 0.5, iterations: 10, tolerance: 0.01 }
    }
}

/// A move of the simplex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The worst vertex was reflected.
    Reflect,
    /// It went further that way.
    Expand,
    /// It came nearer to the others.
    Contract,
    /// All came nearer to the best.
    Shrink,
}

/// Where a search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Vertices, the best first.
    pub simplex: Vec<Vec<f64>>,
    /// Their values, ascending.
    pub values: Vec<f64>,
    /// What was done, in order.
    pub moves: Vec<Move>,
}

/// `from + factor · (to - from)`.
fn along(from: &[f64], to: &[f64], factor: f64) -> Vec<f64> {
    from.iter().zip(to).map(|(from, to)| from + factor * (to - from)).collect()
}

impl NelderMead {
    /// Minimizes `objective` from a simplex, of one vertex more than coordinates. Each new vertex is evaluated once.
    ///
    /// As in the release, an expansion is kept where it is below the best vertex, even if the reflection is lower still, and contractions
    /// go towards the worst vertex only.
    pub fn minimize(&self, simplex: Vec<Vec<f64>>, mut objective: impl FnMut(&[f64]) -> f64) -> Search {
        let mut vertices: Vec<(Vec<f64>, f64)> = simplex.into_iter().map(|x| (objective(&x), x)).map(|(f, x)| (x, f)).collect();
        let mut moves = Vec::new();
        let sort = |vertices: &mut Vec<(Vec<f64>, f64)>| vertices.sort_by(|a, b| order(a.1, b.1));
        sort(&mut vertices);
        // A simplex of one vertex has nowhere to go.
        let steps = if vertices.len() < 2 { 0 } else { self.iterations };
        for _ in 0..steps {
            let last = vertices.len() - 1;
            let (best, second_worst, worst) = (vertices[0].1, vertices[last - 1].1, vertices[last].1);
            let coordinate = |i: usize| mean(&vertices[..last].iter().map(|(x, _)| x[i]).collect::<Vec<_>>());
            let centroid: Vec<f64> = (0..vertices[last].0.len()).map(coordinate).collect();
            let mut at = |x: Vec<f64>| (objective(&x), x);
            let (reflected_value, reflected) = at(along(&centroid, &vertices[last].0, -self.alpha));
            let (made, vertex) = if reflected_value < best {
                let (value, expanded) = at(along(&centroid, &reflected, self.gamma));
                if value < best {
                    (Move::Expand, Some((expanded, value)))
                } else {
                    (Move::Reflect, Some((reflected, reflected_value)))
                }
            } else if reflected_value < second_worst {
                (Move::Reflect, Some((reflected, reflected_value)))
            } else {
                let (value, contracted) = at(along(&centroid, &vertices[last].0, self.rho));
                if value < worst { (Move::Contract, Some((contracted, value))) } else { (Move::Shrink, None) }
            };
            moves.push(made);
            match vertex {
                Some(vertex) => vertices[last] = vertex,
                None => {
                    let (first, others) = vertices.split_at_mut(1);
                    for (x, value) in others {
                        *x = along(&first[0].0, x, self.sigma);
                        *value = objective(x);
                    }
                }
            }
            sort(&mut vertices);
            let spread = std_dev(&vertices.iter().map(|vertex| vertex.1).collect::<Vec<_>>(), 0);
            if made == Move::Shrink && spread < self.tolerance {
                break;
            }
        }
        let (simplex, values) = vertices.into_iter().unzip();
        Search { simplex, values, moves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    fn line(simplex: [f64; 2], iterations: usize, objective: impl Fn(f64) -> f64) -> Search {
        let search = NelderMead { iterations, ..NelderMead::default() };
        search.minimize(simplex.map(|x| vec![x]).to_vec(), |x| objective(x[0]))
    }

    #[test]
    fn each_move_follows_the_rule_by_hand() {
        // From 3 and 2: reflected to 1, expanded to 0, which is below the best.
        let far = line([3.0, 2.0], 1, |x| x * x);
        assert_eq!((far.moves, far.simplex, far.values), (vec![Move::Expand], vec![vec![0.0], vec![2.0]], vec![0.0, 4.0]));
        // Expanded to 0.2, no better than 1.2; reflected to 0.7.
        let near = line([1.7, 1.2], 1, |x| (x - 0.7).abs());
        assert_eq!(near.moves, [Move::Reflect]);
        assert_close(&near.simplex.concat(), &[0.7, 1.2]);
        // Reflected to -1, no better; half way back to 1 is 0.5.
        let between = line([1.0, 0.0], 1, f64::abs);
        assert_eq!((between.moves, between.simplex), (vec![Move::Contract], vec![vec![0.0], vec![0.5]]));
        // The contraction to 0.5 is a peak.
        let peak = line([1.0, 0.0], 1, |x| if x == 0.5 || x < 0.0 { 9.0 } else { x });
        assert_eq!((peak.moves, peak.values), (vec![Move::Shrink], vec![0.0, 9.0]));
    }

    #[test]
    fn expansion_is_kept_although_the_reflection_is_lower() {
        // Reflected to 1 (0.5), expanded to 0 (1), both below 2 at the best vertex.
        let search = line([3.0, 2.0], 1, |x| if x == 0.0 { 1.0 } else { (x - 0.5).abs() });
        assert_eq!((search.moves, search.values), (vec![Move::Expand], vec![1.0, 1.5]));
    }

    #[test]
    fn shrinkage_to_like_values_ends_the_search() {
        let flat = line([1.0, 0.0], 9, |_| 2.0);
        assert_eq!((flat.moves, flat.simplex), (vec![Move::Shrink], vec![vec![1.0], vec![0.5]]), "ties keep their order");
    }

    #[test]
    fn minimum_of_a_bowl_is_found() {
        let search = NelderMead { iterations: 200, tolerance: 0.0, ..NelderMead::default() };
        let start = vec![vec![1.0, 1.0], vec![1.2, 0.9], vec![0.8, 1.3]];
        let found = search.minimize(start, |x| (x[0] - 0.3).powi(2) + 2.0 * (x[1] + 0.4).powi(2));
        assert!((found.simplex[0][0] - 0.3).abs() < 1e-6 && (found.simplex[0][1] + 0.4).abs() < 1e-6, "{found:?}");
        assert_eq!(search.minimize(vec![], |_| 0.0).moves, []);
        assert_eq!(search.minimize(vec![vec![1.0]], |x| x[0]).values, [1.0]);
    }
}
