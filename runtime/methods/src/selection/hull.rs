//! Which variants of a text to train on: those at the corners of what all of them span.
//!
//! Reference: Shen et al. 2023, "The Trickle-down Impact of Reward (In-)consistency on RLHF" (ConvexDA).

use crate::stats::dot;

/// Distances and areas below this share of the extent are rounding errors of a projection.
const ROUNDING: f64 = 1e-12;
/// Most sweeps of rotations; ten are plenty for any matrix that is not made to resist.
const MAX_SWEEPS: usize = 60;

/// Indices of the points at strict corners of the convex hull, ascending. Of points at one place the first stands for all; a line has its
/// two ends, a single place its one point.
///
/// Reference: Andrew 1979, "Another efficient algorithm for convex hulls in two dimensions".
pub fn convex_hull(points: &[[f64; 2]]) -> Vec<usize> {
    let range = |axis: usize| {
        let along = points.iter().map(|point| point[axis]);
        along.clone().fold(f64::NEG_INFINITY, f64::max) - along.fold(f64::INFINITY, f64::min)
    };
    // Sorted along the longer side, so that the ends of a line are first and last whatever rounding does across it.
    let (long, short) = if range(0) >= range(1) { (0, 1) } else { (1, 0) };
    let extent = range(long).max(0.0);
    let turn = |a: usize, b: usize, c: usize| {
        let side = |to: usize, axis: usize| points[to][axis] - points[a][axis];
        side(b, long) * side(c, short) - side(b, short) * side(c, long)
    };
    let straight = |a: usize, b: usize, c: usize| turn(a, b, c) <= ROUNDING * extent * extent;
    let same = |a: usize, b: usize| (0..2).all(|axis| (points[a][axis] - points[b][axis]).abs() <= ROUNDING * extent);
    let mut distinct: Vec<usize> = Vec::new();
    for i in 0..points.len() {
        if !distinct.iter().any(|&kept| same(kept, i)) {
            distinct.push(i);
        }
    }
    distinct.sort_by(|&a, &b| points[a][long].total_cmp(&points[b][long]).then(points[a][short].total_cmp(&points[b][short])));
    // The chain on one side, without its last point, which begins the other one.
    let chain = |order: &mut dyn Iterator<Item = usize>| {
        let mut chain: Vec<usize> = Vec::new();
        for i in order {
            while chain.len() > 1 && straight(chain[chain.len() - 2], chain[chain.len() - 1], i) {
                chain.pop();
            }
            chain.push(i);
        }
        chain.pop();
        chain
    };
    if distinct.len() < 2 {
        return distinct;
    }
    let mut hull = chain(&mut distinct.iter().copied());
    hull.extend(chain(&mut distinct.iter().rev().copied()));
    // Where several points share the least or the greatest coordinate but for rounding, a chain may begin within a side.
    let mut i = 0;
    while hull.len() > 2 && i < hull.len() {
        let n = hull.len();
        if straight(hull[(i + n - 1) % n], hull[i], hull[(i + 1) % n]) {
            hull.remove(i);
            i = i.saturating_sub(1);
        } else {
            i += 1;
        }
    }
    hull.sort_unstable();
    hull
}

/// Scores of each row by its `count` leading principal components, `[rows][count]`, 0 for those that the rows do not have. The signs of components
/// are arbitrary.
///
/// `rows`: of one length. Time grows with the square of their number, and with their length.
///
/// Reference: Hestenes 1958, "Inversion of matrices by biorthogonalization and related results": rotations of pairs of rows until all are
/// orthogonal, which unlike the eigenvalues of a covariance squares no rounding errors.
pub fn principal_scores(rows: &[Vec<f64>], count: usize) -> Vec<Vec<f64>> {
    let n = rows.len();
    let width = rows.first().map_or(0, Vec::len);
    let means: Vec<f64> = (0..width).map(|j| rows.iter().map(|row| row[j]).sum::<f64>() / n as f64).collect();
    // Rows of Uᵀ X, which become orthogonal, and of Uᵀ.
    let mut rotated: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().zip(&means).map(|(x, mean)| x - mean).collect()).collect();
    let mut basis: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..MAX_SWEEPS {
        let mut orthogonal = true;
        for p in 0..n {
            for q in p + 1..n {
                let (a, b, ab) = (dot(&rotated[p], &rotated[p]), dot(&rotated[q], &rotated[q]), dot(&rotated[p], &rotated[q]));
                if ab.abs() <= f64::EPSILON * (a * b).sqrt() {
                    continue;
                }
                orthogonal = false;
                let zeta = (b - a) / (2.0 * ab);
                let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                for matrix in [&mut rotated, &mut basis] {
                    let (before, after) = matrix.split_at_mut(q);
                    for (x, y) in before[p].iter_mut().zip(&mut after[0]) {
                        (*x, *y) = (cosine * (*x - tangent * *y), cosine * (tangent * *x + *y));
                    }
                }
            }
        }
        if orthogonal {
            break;
        }
    }
    let lengths: Vec<f64> = rotated.iter().map(|row| dot(row, row).sqrt()).collect();
    let leading = super::ranked::best(&lengths, count);
    let score = |i: usize, k: usize| leading.get(k).map_or(0.0, |&component| basis[component][i] * lengths[component]);
    (0..n).map(|i| (0..count).map(|k| score(i, k)).collect()).collect()
}

/// Indices of the variants at the corners of the convex hull of all of them, ascending, in the plane of the two leading principal components of
/// their embeddings.
pub fn convex_variants(embeddings: &[Vec<f64>]) -> Vec<usize> {
    let scores = principal_scores(embeddings, 2);
    convex_hull(&scores.iter().map(|score| [score[0], score[1]]).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_close;

    #[test]
    fn corners_are_strict_and_first_of_their_place() {
        let points = [[2.0, 1.0], [0.0, 0.0], [4.0, 0.0], [2.0, 0.0], [4.0, 3.0], [4.0, 0.0], [0.0, 3.0], [4.0, 1.5]];
        assert_eq!(convex_hull(&points), [1, 2, 4, 6]);
        assert_eq!(convex_hull(&[[0.0, 5.0], [0.0, 1.0], [0.0, 9.0], [0.0, 1.0]]), [1, 2], "a line has its ends");
        assert_eq!(convex_hull(&[[1.0, 2.0]; 3]), [0]);
        assert_eq!(convex_hull(&[[-0.0, 0.0], [0.0, -0.0]]), [0]);
        assert!(convex_hull(&[]).is_empty());
    }

    #[test]
    fn corners_do_not_depend_on_rounding_or_on_the_direction_of_sides() {
        // A square turned by every degree, with the middles of its sides and its centre, which are no corners.
        let square =
            [[-1.0, 0.0], [-1.0, -1.0], [1.0, -1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]];
        for degrees in 0..360 {
            let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
            let turned = square.map(|[x, y]| [x * cos - y * sin + 3.0, x * sin + y * cos]);
            assert_eq!(convex_hull(&turned), [1, 2, 5, 7], "{degrees}");
        }
    }

    #[test]
    fn scores_keep_the_distances_of_points_in_a_plane() {
        // Points (x, y) of a plane in three dimensions: x along (1, 2, 2) / 3, y along (2, 1, -2) / 3.
        let plane = [[5.0, 0.5], [-4.0, 1.0], [0.0, -2.0], [1.0, 0.0]];
        let rows = plane.map(|[x, y]| vec![(x + 2.0 * y) / 3.0, (2.0 * x + y) / 3.0, (2.0 * x - 2.0 * y) / 3.0]);
        let scores = principal_scores(&rows, 2);
        for i in 0..4 {
            for j in 0..i {
                let distance = |a: &[f64], b: &[f64]| (a[0] - b[0]).hypot(a[1] - b[1]);
                assert_close(&[distance(&scores[i], &scores[j])], &[distance(&plane[i], &plane[j])]);
            }
        }
        let along = |k: usize| scores.iter().map(|score| score[k] * score[k]).sum::<f64>();
        assert!(along(0) > along(1), "the first component has the greater variance");
        assert_close(&[scores.iter().map(|score| score[0] * score[1]).sum()], &[0.0]);
    }

    #[test]
    fn variants_that_span_no_plane_have_the_corners_of_what_they_span() {
        let line: Vec<Vec<f64>> = [0.3, -1.1, 2.7, 0.9].iter().map(|t| vec![0.1 * t + 5.0, -0.7 * t, 1.3 * t, 0.0]).collect();
        assert_eq!(convex_variants(&line), [1, 2]);
        assert_eq!(convex_variants(&[vec![0.1, 0.2], vec![0.1, 0.2], vec![0.1, 0.2]]), [0]);
        assert_eq!(convex_variants(&[vec![0.5], vec![0.25], vec![1.0]]), [1, 2]);
        assert!(convex_variants(&[]).is_empty());
        assert_eq!(convex_variants(&[vec![], vec![]]), [0]);
    }
}
