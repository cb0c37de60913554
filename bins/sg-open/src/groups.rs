//! Which security groups stand for a cluster's nodes. Pure.

use std::collections::BTreeSet;

/// The fewest groups, of those on the nodes' network interfaces, such that every interface has one of them: a rule
/// for each lets every node in, or to every node. `cluster` is the cluster security group, which EKS puts on all
/// nodes unless a launch template says otherwise; it alone when no nodes are seen (Fargate, scaled to zero, another
/// account's).
///
/// Greedy, so not always the very fewest; the same interfaces give the same answer in any order.
pub fn covering(interfaces: &[Vec<String>], cluster: &str) -> Vec<String> {
    let mut open: Vec<&Vec<String>> = interfaces.iter().filter(|groups| !groups.is_empty()).collect();
    if open.is_empty() {
        return vec![cluster.to_owned()];
    }
    let mut chosen = BTreeSet::new();
    while !open.is_empty() {
        let candidates: BTreeSet<&String> = open.iter().copied().flatten().collect();
        let worth = |group: &String| (open.iter().filter(|groups| groups.contains(group)).count(), group == cluster);
        // The first of equals in the order of their ids, hence the reverse.
        let Some(best) = candidates.into_iter().rev().max_by_key(|group| worth(group)) else { break };
        chosen.insert(best.clone());
        open.retain(|groups| !groups.contains(best));
    }
    chosen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of each interface → groups chosen.
    type Case = (&'static str, &'static [&'static [&'static str]], &'static [&'static str]);

    #[test]
    fn every_interface_has_a_chosen_group() {
        let cases: [Case; 7] = [
            ("no nodes", &[], &["sg-c"]),
            ("an interface without groups", &[&[]], &["sg-c"]),
            ("managed nodes", &[&["sg-c"], &["sg-c"]], &["sg-c"]),
            ("a group beside the cluster's", &[&["sg-a", "sg-c"], &["sg-c", "sg-b"]], &["sg-c"]),
            ("launch template without it", &[&["sg-a"], &["sg-a", "sg-b"]], &["sg-a"]),
            ("node groups of both kinds", &[&["sg-c"], &["sg-b", "sg-a"], &["sg-b"]], &["sg-b", "sg-c"]),
            ("equals: the first id", &[&["sg-b", "sg-a"]], &["sg-a"]),
        ];
        for (case, interfaces, chosen) in cases {
            let mut interfaces: Vec<Vec<String>> =
                interfaces.iter().map(|groups| groups.iter().map(|group| (*group).to_owned()).collect()).collect();
            assert_eq!(covering(&interfaces, "sg-c"), chosen, "{case}");
            interfaces.reverse();
            assert_eq!(covering(&interfaces, "sg-c"), chosen, "{case}, reversed");
        }
    }
}
