//! Pages that prompts of a call have in common: system prompts, few-shot examples, the same question twice.

use std::collections::HashMap;

use plumb_core::rollout::Prompt;

use super::kv_cache::PAGE;

/// A radix tree over the prompts of a call, a page of tokens an edge (as in SGLang's RadixAttention, Zheng et al. 2024).
///
/// All prompts are known when a call begins. So a page is computed by the first prompt that has it and kept exactly until the last
/// one is done; which prompts meet it in between changes nothing but the work. Weights change between calls, so nothing outlives one.
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: Vec<Node>,
    /// For each prompt its nodes from the root.
    paths: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Prompts that have this page and are not done.
    prompts: usize,
    /// Where its keys and values are, once a prompt began to compute them.
    page: Option<u32>,
}

impl PrefixTree {
    /// The tree of these prompts. The page with a prompt's last token is its own, as that token must be run for its logits.
    pub fn new(prompts: &[Prompt]) -> Self {
        let mut tree = PrefixTree::default();
        // Keys are the tokens themselves, so that equal means equal.
        let mut children: HashMap<(Option<u32>, &[u32]), u32> = HashMap::new();
        for prompt in prompts {
            let mut parent = None;
            let whole = prompt.tokens.len().saturating_sub(1) / PAGE;
            let path = prompt.tokens.chunks_exact(PAGE).take(whole).map(|tokens| {
                let node = *children.entry((parent, tokens)).or_insert_with(|| {
                    tree.nodes.push(Node::default());
                    (tree.nodes.len() - 1) as u32
                });
                tree.nodes[node as usize].prompts += 1;
                parent = Some(node);
                node
            });
            tree.paths.push(path.collect());
        }
        tree
    }

    /// The prompt's nodes from the root, one for each page that another prompt may have.
    pub fn path(&self, prompt: usize) -> &[u32] {
        &self.paths[prompt]
    }

    /// Prompts that have a node's page and are not done.
    pub fn prompts(&self, node: u32) -> usize {
        self.nodes[node as usize].prompts
    }

    /// A page that some prompt computes, if any does.
    pub fn page(&self, node: u32) -> Option<u32> {
        self.nodes[node as usize].page
    }

    /// Says where a node's keys and values will be.
    pub fn set_page(&mut self, node: u32, page: u32) {
        self.nodes[node as usize].page = Some(page);
    }

    /// A prompt is done. Calls `free` with the pages that no other needs.
    pub fn release(&mut self, prompt: usize, mut free: impl FnMut(u32)) {
        for &node in &self.paths[prompt] {
            let node = &mut self.nodes[node as usize];
            node.prompts -= 1;
            if node.prompts == 0 {
                node.page.take().into_iter().for_each(&mut free);
            }
        }
    }

    /// Pages of the whole tree that more than one prompt has, and for each prompt how many it has alone.
    pub fn shared_and_own(&self) -> (usize, Vec<usize>) {
        let is_shared = |node: &u32| self.prompts(*node) > 1;
        let shared = self.nodes.iter().filter(|node| node.prompts > 1).count();
        (shared, self.paths.iter().map(|path| path.iter().filter(|node| !is_shared(node)).count()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(tokens: impl IntoIterator<Item = u32>) -> Prompt {
        Prompt { id: 0, tokens: tokens.into_iter().collect() }
    }

    #[test]
    fn equal_beginnings_share_whole_pages_and_never_the_page_of_the_last_token() {
        let prompts = [
            prompt(0..33),
            prompt((0..32).chain([90])),
            // Its second page differs in one token; the same 16 tokens as another's second page, but after other ones.
            prompt((0..20).chain([77]).chain(21..40)),
            prompt((16..32).chain(0..17)),
            prompt(0..32),
            prompt(0..5),
        ];
        let mut tree = PrefixTree::new(&prompts);
        assert_eq!(tree.path(0), tree.path(1));
        assert_eq!((tree.path(0).len(), tree.path(2).len()), (2, 2));
        assert_eq!(tree.path(0)[0], tree.path(2)[0]);
        assert_ne!(tree.path(0)[1], tree.path(2)[1]);
        assert!(tree.path(3).iter().all(|node| !tree.path(0).contains(node)), "equal tokens after others are not equal");
        assert_eq!(tree.path(4), &tree.path(0)[..1], "the last of 32 tokens must be run");
        assert!(tree.path(5).is_empty());
        assert_eq!(tree.shared_and_own(), (2, vec![0, 0, 1, 2, 0, 0]));

        for (prompt, page) in [(0, 8), (2, 9)] {
            for node in tree.path(prompt).to_vec() {
                if tree.page(node).is_none() {
                    tree.set_page(node, page);
                }
            }
        }
        let mut freed = Vec::new();
        for prompt in [0, 2, 4] {
            tree.release(prompt, |page| freed.push(page));
        }
        assert_eq!(freed, [9], "the page that prompt 2 has alone");
        tree.release(1, |page| freed.push(page));
        assert_eq!(freed, [9, 8, 8]);
    }
}
