//! Preferences between the leaves of a tree of responses, whose annotators read what follows the common prefix only.
//!
//! Reference: Qiu et al. 2024, "Reward Generalization in RLHF: A Topological Perspective".

/// A tree by the parent of each node; the root, the prompt, has none.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    parents: &'a [Option<usize>],
}

/// Two leaves and where their ways part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafPair {
    /// The lower index.
    pub a: usize,
    /// The higher one.
    pub b: usize,
    /// Their lowest common ancestor.
    pub ancestor: usize,
}

/// What comparing leaves costs annotators.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnnotationCost {
    /// Mean length of a compared response.
    pub full: f64,
    /// Mean length of what follows the common prefix.
    pub without_prefix: f64,
    /// The share that is saved.
    pub saving: f64,
}

impl<'a> Tree<'a> {
    /// A tree, if parents lead to a root without a circle.
    pub fn new(parents: &'a [Option<usize>]) -> Option<Self> {
        let leads_up = |mut node: usize| {
            for _ in 0..parents.len() {
                match parents.get(node)? {
                    Some(parent) => node = *parent,
                    None => return Some(()),
                }
            }
            None
        };
        (0..parents.len()).all(|node| leads_up(node).is_some()).then_some(Tree { parents })
    }

    /// Nodes from the first below the root to `node`; without the root.
    pub fn path(&self, node: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut at = node;
        while let Some(parent) = self.parents[at] {
            path.push(at);
            at = parent;
        }
        path.reverse();
        path
    }

    /// Nodes without children, in order; never the root.
    pub fn leaves(&self) -> Vec<usize> {
        let is_leaf = |node: &usize| self.parents[*node].is_some() && !self.parents.contains(&Some(*node));
        (0..self.parents.len()).filter(is_leaf).collect()
    }

    /// Depth of a node; 0 for the root.
    pub fn depth(&self, node: usize) -> usize {
        self.path(node).len()
    }

    /// Nodes that both ways have in common, from the first below the root.
    pub fn shared(&self, a: usize, b: usize) -> Vec<usize> {
        self.path(a).into_iter().zip(self.path(b)).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    }

    /// All pairs of leaves, in order.
    pub fn pairs(&self) -> Vec<LeafPair> {
        let leaves = self.leaves();
        let root = |node: usize| {
            let mut at = node;
            while let Some(parent) = self.parents[at] {
                at = parent;
            }
            at
        };
        let pair = |a: usize, b: usize| LeafPair { a, b, ancestor: self.shared(a, b).last().copied().unwrap_or_else(|| root(a)) };
        let places = (0..leaves.len()).flat_map(|i| (i + 1..leaves.len()).map(move |j| (i, j)));
        places.map(|(i, j)| pair(leaves[i], leaves[j])).collect()
    }

    /// Cost of comparing pairs of nodes, of segments of these lengths; each response counts once per pair.
    pub fn annotation_cost(&self, lengths: &[f64], pairs: &[(usize, usize)]) -> AnnotationCost {
        if pairs.is_empty() {
            return AnnotationCost::default();
        }
        let length = |nodes: &[usize]| nodes.iter().map(|&node| lengths[node]).sum::<f64>();
        let (mut full, mut own) = (0.0, 0.0);
        for &(a, b) in pairs {
            let both = length(&self.path(a)) + length(&self.path(b));
            full += both;
            own += both - 2.0 * length(&self.shared(a, b));
        }
        let responses = 2.0 * pairs.len() as f64;
        let saving = if full > 0.0 { 1.0 - own / full } else { 0.0 };
        AnnotationCost { full: full / responses, without_prefix: own / responses, saving }
    }
}

/// Leaves, inner nodes (the root is one) and pairs of leaves by the depth of their ancestor, of a tree with `branching` children everywhere.
pub fn balanced(branching: u64, depth: u32) -> (u64, u64, Vec<u64>) {
    let inner = (0..depth).map(|d| branching.pow(d)).sum();
    let pairs = |d: u32| {
        let below = branching.pow(depth - d - 1);
        branching.pow(d) * (branching * (branching - 1) / 2) * below * below
    };
    (branching.pow(depth), inner, (0..depth).map(pairs).collect())
}

/// Variance of inferring one response's reward from another's: along the path of least variance over undirected edges `(a, b, variance)`,
/// which add up; None where there is none.
pub fn inference_variance(nodes: usize, edges: &[(usize, usize, f64)], from: usize, to: usize) -> Option<f64> {
    let mut best = vec![f64::INFINITY; nodes];
    *best.get_mut(from)? = 0.0;
    // Bellman-Ford: as many rounds as a path may have edges.
    for _ in 1..nodes {
        for &(a, b, variance) in edges {
            best[b] = best[b].min(best[a] + variance);
            best[a] = best[a].min(best[b] + variance);
        }
    }
    best.get(to).copied().filter(|variance| variance.is_finite())
}

/// Variance of the logistic noise in a comparison, π² / (3 beta²).
pub fn label_noise_variance(beta: f64) -> f64 {
    std::f64::consts::PI.powi(2) / (3.0 * beta * beta)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENTS: [Option<usize>; 6] = [None, Some(0), Some(0), Some(1), Some(1), Some(2)];

    #[test]
    fn pairs_of_leaves_part_at_their_lowest_common_ancestor() {
        let tree = Tree::new(&PARENTS).unwrap();
        let pair = |a, b, ancestor| LeafPair { a, b, ancestor };
        assert_eq!(tree.pairs(), [pair(3, 4, 1), pair(3, 5, 0), pair(4, 5, 0)]);
        assert_eq!((tree.leaves(), tree.depth(0), tree.depth(5)), (vec![3, 4, 5], 0, 2));
    }

    #[test]
    fn prompt_alone_has_no_leaf_and_circles_are_no_trees() {
        assert!(Tree::new(&[None]).unwrap().leaves().is_empty());
        assert!(Tree::new(&[Some(1), Some(0)]).is_none() && Tree::new(&[Some(7)]).is_none());
    }

    #[test]
    fn shared_prefix_is_read_once() {
        let tree = Tree::new(&PARENTS).unwrap();
        let cost = tree.annotation_cost(&[0.0, 10.0, 4.0, 2.0, 4.0, 6.0], &[(3, 4)]);
        assert_eq!(cost, AnnotationCost { full: 13.0, without_prefix: 3.0, saving: 1.0 - 6.0 / 26.0 });
        assert_eq!(tree.annotation_cost(&[], &[]), AnnotationCost::default());
    }

    #[test]
    fn balanced_counts_are_those_of_the_tree() {
        assert_eq!(balanced(2, 2), (4, 3, vec![4, 2]));
        assert_eq!(balanced(3, 0), (1, 0, vec![]));
    }

    #[test]
    fn shortest_way_counts_and_islands_are_out_of_reach() {
        let edges = [(0, 1, 1.0), (1, 2, 0.5), (0, 2, 2.0), (2, 0, 9.0)];
        assert_eq!(inference_variance(4, &edges, 2, 0), Some(1.5));
        assert_eq!((inference_variance(4, &edges, 0, 3), inference_variance(4, &edges, 3, 3)), (None, Some(0.0)));
    }
}
