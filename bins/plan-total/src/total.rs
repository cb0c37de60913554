//! Counts changes. Pure.

use anyhow::Result;
use common::plan::{Effect, Entry};
use common::{Document, Error};
use std::collections::{BTreeMap, BTreeSet};

/// The changes of several documents, each once, with the clusters whose documents name it.
#[derive(Debug, Default)]
pub struct Total(BTreeMap<Entry, BTreeSet<String>>);

impl Total {
    /// Adds the changes of a document.
    ///
    /// # Errors
    /// What stands under `plan` is none.
    pub fn add(&mut self, document: &Document) -> Result<()> {
        let cluster: String = document.read(&["cluster", "name"])?.unwrap_or_default();
        for entry in document.plan()?.into_values().flatten() {
            self.0.entry(entry).or_default().insert(cluster.clone());
        }
        Ok(())
    }

    /// `37 to add, 0 to change, 0 to remove`, and what is counted once though two clusters' plans name it.
    pub fn sum(&self) -> String {
        let count = |effect| self.with(effect).count();
        let (add, change, remove) = (count(Effect::Add), count(Effect::Change), count(Effect::Remove));
        let counted = [Effect::Add, Effect::Change, Effect::Remove].into_iter().flat_map(|effect| self.with(effect));
        let shared = counted.filter(|(_, clusters)| clusters.len() > 1).count();
        let left = self.kept("left alone");
        let once = if shared == 0 {
            String::new()
        } else {
            format!(" ({shared} of them named for more than one cluster, but made once)")
        };
        format!("{left}{add} to add, {change} to change, {remove} to remove{once}\n")
    }

    /// What a deletion left, one a line; in what is planned after it.
    ///
    /// # Errors
    /// Something would still be removed.
    pub fn left(&self) -> Result<String> {
        let remaining: Vec<&str> = self.with(Effect::Remove).map(|(entry, _)| entry.change.as_str()).collect();
        if !remaining.is_empty() {
            let message = format!("not everything has gone: still to {}", remaining.join(", "));
            return Err(Error::failed(message).hint("run it again").into());
        }
        let left = self.kept("left");
        Ok(if left.is_empty() { "nothing is left\n".to_owned() } else { left })
    }

    /// A line for each thing that a deletion leaves.
    fn kept(&self, word: &str) -> String {
        let lines = self.with(Effect::Keep).map(|(entry, _)| [word, ": ", &entry.change, "\n"].concat());
        lines.collect::<Vec<_>>().concat()
    }

    fn with(&self, effect: Effect) -> impl Iterator<Item = (&Entry, &BTreeSet<String>)> {
        self.0.iter().filter(move |(entry, _)| entry.effect == effect)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    /// A document of a cluster, whose plan has these (effect, change, place).
    fn planned(cluster: &str, entries: &[(&str, &str, &str)]) -> Document {
        let entry = |(effect, change, place): &(&str, &str, &str)| {
            format!(r#"{{"effect":"{effect}","change":"{change}","place":"{place}","tool":"t"}}"#)
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        let text = format!(r#"{{"cluster":{{"name":"{cluster}"}},"plan":{{"k":[{}]}}}}"#, entries.join(","));
        Document::parse("stdin", text.as_bytes()).unwrap()
    }

    fn total(documents: &[Document]) -> Total {
        let mut total = Total::default();
        documents.iter().for_each(|document| total.add(document).unwrap());
        total
    }

    #[test]
    fn a_change_counts_once_in_each_place() {
        let one = planned("a", &[("add", "x", "region"), ("add", "x", "a"), ("change", "y", "a"), ("wait", "z", "a")]);
        let two = planned("b", &[("add", "x", "region"), ("add", "x", "b"), ("remove", "y", "b")]);
        let once = "(1 of them named for more than one cluster, but made once)";
        assert_eq!(total(&[one.clone(), two, one]).sum(), format!("3 to add, 1 to change, 1 to remove {once}\n"));
        assert_eq!(total(&[Document::default()]).sum(), "0 to add, 0 to change, 0 to remove\n");
    }

    #[test]
    fn what_is_left_is_named_and_what_should_have_gone_is_an_error() {
        let kept = planned("a", &[("keep", "role r: not ours", "region")]);
        assert_eq!(total(std::slice::from_ref(&kept)).left().unwrap(), "left: role r: not ours\n");
        assert_eq!(
            total(std::slice::from_ref(&kept)).sum(),
            "left alone: role r: not ours\n0 to add, 0 to change, 0 to remove\n"
        );
        assert_eq!(total(&[Document::default()]).left().unwrap(), "nothing is left\n");
        let still = total(&[kept, planned("b", &[("remove", "delete role x", "region")])]).left().unwrap_err();
        assert_eq!(still.to_string(), "not everything has gone: still to delete role x");
    }
}
