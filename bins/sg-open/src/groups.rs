//! Chooses the security groups that stand for a cluster's nodes and pods. Pure.

use std::collections::BTreeSet;

/// Groups that an interface has alike: nothing says which one stands for the cluster.
#[derive(Debug, PartialEq)]
pub struct Tie(pub Vec<String>);

/// The fewest groups, of those on the network interfaces, such that every interface has one of them: a rule for each
/// lets every node and pod in, or to all of them. `cluster` is the cluster security group, which EKS puts on all nodes
/// unless a launch template says otherwise; it alone when no nodes are seen (Fargate, scaled to zero, another account's).
/// Of groups that are worth the same it comes first, and then those that are `tagged` as the cluster's.
///
/// Greedy, so not always the very fewest; the same interfaces give the same answer in any order. Tags matter only where
/// there is no answer without them.
///
/// # Errors
/// Groups of one interface are worth the same, and tags do not decide: either may be shared with what is none of the
/// cluster's.
pub fn covering(interfaces: &[Vec<String>], cluster: &str, tagged: &BTreeSet<String>) -> Result<BTreeSet<String>, Tie> {
    let mut open: Vec<&Vec<String>> = interfaces.iter().filter(|groups| !groups.is_empty()).collect();
    if open.is_empty() {
        return Ok([cluster.to_owned()].into());
    }
    // Where an interface has one group only, there is no choice.
    let mut chosen: BTreeSet<String> =
        open.iter().filter(|groups| groups.len() == 1).flat_map(|groups| groups.iter().cloned()).collect();
    loop {
        open.retain(|groups| !groups.iter().any(|group| chosen.contains(group)));
        let worth = |group: &String| {
            let covered = open.iter().filter(|groups| groups.contains(group)).count();
            (covered, group == cluster, tagged.contains(group))
        };
        let candidates: BTreeSet<&String> = open.iter().copied().flatten().collect();
        let Some(most) = candidates.iter().map(|group| worth(group)).max() else { return Ok(chosen) };
        let best: BTreeSet<String> = candidates.into_iter().filter(|group| worth(group) == most).cloned().collect();
        for groups in &open {
            let alike: BTreeSet<&String> = groups.iter().filter(|group| best.contains(*group)).collect();
            if alike.len() > 1 {
                return Err(Tie(alike.into_iter().cloned().collect()));
            }
        }
        chosen.extend(best);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups of each interface → groups chosen.
    type Case =
        (&'static str, &'static [&'static [&'static str]], Result<&'static [&'static str], &'static [&'static str]>);

    #[test]
    fn every_interface_has_a_chosen_group() {
        let cases: [Case; 13] = [
            ("no nodes", &[], Ok(&["sg-c"])),
            ("an interface without groups", &[&[]], Ok(&["sg-c"])),
            ("managed nodes", &[&["sg-c"], &["sg-c"]], Ok(&["sg-c"])),
            ("a group beside the cluster's", &[&["sg-a", "sg-c"], &["sg-c", "sg-b"]], Ok(&["sg-c"])),
            ("launch template without it", &[&["sg-a"], &["sg-a", "sg-b"]], Ok(&["sg-a"])),
            ("node groups of both kinds", &[&["sg-c"], &["sg-b", "sg-a"], &["sg-b"]], Ok(&["sg-b", "sg-c"])),
            ("a pod with a group of its own", &[&["sg-c"], &["sg-pod"]], Ok(&["sg-c", "sg-pod"])),
            ("equals, one tagged", &[&["sg-a", "sg-tagged"]], Ok(&["sg-tagged"])),
            ("the cluster's before a tagged one", &[&["sg-tagged", "sg-c"]], Ok(&["sg-c"])),
            ("one that covers more before a tagged one", &[&["sg-a", "sg-tagged"], &["sg-a", "sg-b"]], Ok(&["sg-a"])),
            ("equals, none tagged", &[&["sg-b", "sg-a"]], Err(&["sg-a", "sg-b"])),
            ("equals, both tagged", &[&["sg-tagged", "sg-tagged-2"]], Err(&["sg-tagged", "sg-tagged-2"])),
            (
                "equals apart from each other",
                &[&["sg-a", "sg-tagged"], &["sg-b", "sg-tagged-2"]],
                Ok(&["sg-tagged", "sg-tagged-2"]),
            ),
        ];
        let tagged = ["sg-tagged", "sg-tagged-2", "sg-c"].map(str::to_owned).into();
        let owned = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>();
        for (case, interfaces, expected) in cases {
            let mut interfaces: Vec<Vec<String>> = interfaces.iter().map(|groups| owned(groups)).collect();
            let expected = expected.map(|chosen| owned(chosen).into_iter().collect()).map_err(|tie| Tie(owned(tie)));
            assert_eq!(covering(&interfaces, "sg-c", &tagged), expected, "{case}");
            interfaces.reverse();
            interfaces.iter_mut().for_each(|groups| groups.reverse());
            assert_eq!(covering(&interfaces, "sg-c", &tagged), expected, "{case}, reversed");
        }
    }

    /// Of all that three interfaces can have of four groups, with each of them tagged or not.
    #[test]
    fn tags_matter_only_where_there_is_no_answer_without_them() {
        let groups = ["sg-a", "sg-b", "sg-c", "sg-d"];
        let some =
            |bits: usize| groups.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1).map(|(_, it)| *it);
        for bits in 0..1 << (3 * groups.len()) {
            let of = |interface: usize| some(bits >> (interface * groups.len())).map(str::to_owned).collect();
            let interfaces: Vec<Vec<String>> = (0..3).map(of).collect();
            let Ok(chosen) = covering(&interfaces, "sg-c", &BTreeSet::new()) else { continue };
            for tagged in 0..1 << groups.len() {
                let tagged = some(tagged).map(str::to_owned).collect();
                assert_eq!(covering(&interfaces, "sg-c", &tagged).as_ref(), Ok(&chosen), "{interfaces:?} {tagged:?}");
            }
        }
    }
}
