//! Trade-offs between two objectives.

/// What points reach in two objectives, both to be large.
#[derive(Clone, Debug, PartialEq)]
pub struct Front {
    /// Indices of the points that no other one dominates (at least as good in both, better in one), ascending.
    pub indices: Vec<usize>,
    /// Area that they dominate above the reference point.
    pub hypervolume: f64,
}

/// The Pareto front of points, and its hypervolume above `reference`.
pub fn front(points: &[[f64; 2]], reference: [f64; 2]) -> Front {
    let dominates = |a: &[f64; 2], b: &[f64; 2]| a[0] >= b[0] && a[1] >= b[1] && a != b;
    let alone = |&i: &usize| !points.iter().any(|other| dominates(other, &points[i]));
    let indices: Vec<usize> = (0..points.len()).filter(alone).collect();
    let mut steps: Vec<[f64; 2]> =
        indices.iter().map(|&i| points[i]).filter(|point| point[0] > reference[0] && point[1] > reference[1]).collect();
    // From the right: each point adds the strip that is above the ones before it.
    steps.sort_by(|a, b| b[0].total_cmp(&a[0]));
    let (mut hypervolume, mut height) = (0.0, reference[1]);
    for [x, y] in steps {
        hypervolume += (x - reference[0]) * (y - height).max(0.0);
        height = height.max(y);
    }
    Front { indices, hypervolume }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area_is_that_of_the_stairs() {
        let got = front(&[[1.0, 3.0], [2.0, 2.0], [1.0, 1.0], [3.0, 1.0]], [0.0, 0.0]);
        assert_eq!(got, Front { indices: vec![0, 1, 3], hypervolume: 6.0 });
    }

    #[test]
    fn equal_points_do_not_dominate_each_other_and_points_below_the_reference_add_nothing() {
        assert_eq!(front(&[[1.0, 1.0], [1.0, 1.0]], [0.0, 0.0]), Front { indices: vec![0, 1], hypervolume: 1.0 });
        assert_eq!(front(&[[-1.0, 5.0]], [0.0, 0.0]), Front { indices: vec![0], hypervolume: 0.0 });
        assert_eq!(front(&[], [0.0, 0.0]), Front { indices: vec![], hypervolume: 0.0 });
    }
}
