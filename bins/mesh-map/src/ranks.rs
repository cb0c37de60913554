//! Ranks the nodes of a graph: callers before those that they call.

/// The rank of each node. An edge leads to a higher rank unless it closes a circle; then it leads back to a lower one.
pub fn ranks(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut called = vec![Vec::new(); count];
    let mut is_source = vec![true; count];
    for (from, to) in edges {
        called[*from].push(*to);
        is_source[*to] = false;
    }
    let (finished, called) = without_circles(called, &is_source);
    let mut ranks = vec![0; count];
    // Who finished last is called by nobody who finished before.
    for id in finished.iter().rev() {
        for to in &called[*id] {
            ranks[*to] = ranks[*to].max(ranks[*id] + 1);
        }
    }
    // Nearer to what it calls, so that no edge is longer than it must be.
    for id in (0..count).filter(|id| is_source[*id]) {
        let nearest = called[id].iter().map(|to| ranks[*to]).min();
        ranks[id] = nearest.map_or(0, |rank: usize| rank.saturating_sub(1));
    }
    ranks
}

/// Where a depth-first search stands with a node.
#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    /// On the way from a root to where the search is.
    Open,
    Finished,
}

/// Searches depth-first, from the sources first: the order in which nodes are finished, and what each calls, without the
/// edges back to a node on the way to it. Only an edge in a circle leads back.
fn without_circles(mut called: Vec<Vec<usize>>, is_source: &[bool]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut visits = vec![Visit::New; called.len()];
    let mut finished = Vec::with_capacity(called.len());
    let sources = (0..called.len()).filter(|id| is_source[*id]);
    for root in sources.chain(0..called.len()) {
        if visits[root] != Visit::New {
            continue;
        }
        visits[root] = Visit::Open;
        // Not by recursion: a chain may be longer than a stack is deep.
        let mut way = vec![(root, 0)];
        while let Some((id, next)) = way.last_mut() {
            match called[*id].get(*next).map(|to| (*to, visits[*to])) {
                Some((to, Visit::New)) => {
                    *next += 1;
                    visits[to] = Visit::Open;
                    way.push((to, 0));
                }
                Some((_, Visit::Open)) => {
                    called[*id].remove(*next);
                }
                Some((_, Visit::Finished)) => *next += 1,
                None => {
                    visits[*id] = Visit::Finished;
                    finished.push(*id);
                    way.pop();
                }
            }
        }
    }
    (finished, called)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn callers_come_before_those_that_they_call() {
        for (count, edges, expected) in [
            (0, &[][..], vec![]),
            (2, &[], vec![0, 0]),
            (3, &[(0, 1), (1, 2), (0, 2)], vec![0, 1, 2]),
            // A source stands before the nearest that it calls.
            (5, &[(0, 1), (1, 2), (2, 3), (4, 3)], vec![0, 1, 2, 3, 2]),
            // A circle begins where it is entered, and what hangs on it comes after all of it.
            (5, &[(4, 1), (1, 2), (2, 0), (0, 1), (0, 3), (4, 3)], vec![3, 1, 2, 4, 0]),
            // One that nobody enters begins at its first node.
            (3, &[(0, 1), (1, 0), (1, 2)], vec![0, 1, 2]),
            (4, &[(3, 0), (0, 1), (1, 0), (1, 2), (2, 3)], vec![0, 1, 2, 3]),
        ] {
            assert_eq!(ranks(count, edges), expected, "{edges:?}");
        }
    }

    /// The nodes that can be reached from each.
    fn reached(count: usize, edges: &[(usize, usize)]) -> Vec<Vec<bool>> {
        let mut reached = vec![vec![false; count]; count];
        edges.iter().for_each(|(from, to)| reached[*from][*to] = true);
        for via in 0..count {
            for from in 0..count {
                for to in 0..count {
                    reached[from][to] |= reached[from][via] && reached[via][to];
                }
            }
        }
        reached
    }

    proptest! {
        #[test]
        fn only_in_a_circle_does_an_edge_lead_back(edges in prop::collection::btree_set((0..12_usize, 0..12_usize), 0..30)) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| from != to).collect();
            let (ranks, reached) = (ranks(12, &edges), reached(12, &edges));
            prop_assert_eq!(ranks.len(), 12);
            for (from, to) in &edges {
                prop_assert!(ranks[*from] != ranks[*to], "{} and {} of {:?}: {:?}", from, to, &edges, &ranks);
                prop_assert!(ranks[*from] < ranks[*to] || reached[*to][*from], "{from} -> {to} of {edges:?}: {ranks:?}");
            }
        }
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let edges: Vec<(usize, usize)> = (1..200_000).map(|to| (to - 1, to)).collect();
        assert_eq!(ranks(200_000, &edges).last(), Some(&199_999));
    }
}
