//! The `plan` key: what `--plan` found it would change, for whoever reads the document after it.
//!
//! The document of a plan is the one that a run would print. A value that only a run can know, such as the id of what
//! does not exist yet, is [`UNKNOWN`] in it. The changes themselves stand under `plan`, so that nobody takes the document
//! for that of a run: without `--plan` every tool refuses it.

use crate::{Document, Error};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Stands for a value that is known only after the plan was applied.
pub const UNKNOWN: &str = "(known after apply)";

/// The key of a document that belongs to no tool.
const KEY: &str = "plan";

/// How a change counts in the total of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Something is there that was not.
    Add,
    /// Something that is there differs afterwards.
    Change,
    /// Something has gone.
    Remove,
    /// Nothing changes: it is waited for, or asked. No part of a plan.
    Wait,
    /// Nothing changes: `--delete` leaves it, and the text says why.
    Keep,
}

/// How the world must be: flags, document and defaults, resolved. What follows from it asks nobody and changes nothing.
pub trait Want {
    /// How the world is.
    type Have;
    /// One step from have to want. Its text is an order: `create role mesh`.
    type Change: Change;

    /// Where the changes happen: what is planned for two clusters in one place counts once.
    const PLACE: Place = Place::Region;

    /// Whether it only looks, so that there is never anything to do.
    const LOOKS: bool = false;

    /// What to change, in order.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind::Conflict) when it is not ours to change, and what can not be.
    fn plan(&self, have: &Self::Have) -> Result<Vec<Self::Change>>;

    /// What to remove, in order. What is not ours stays.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind::Conflict) when others need what would be removed.
    fn plan_delete(&self, have: &Self::Have) -> Result<Vec<Self::Change>>;

    /// What a person should know about what was found, one line each; told once, and not on `--delete`.
    fn remarks(&self, _have: &Self::Have) -> Vec<String> {
        Vec::new()
    }

    /// What `--delete` leaves and why, one line each: `provider …: not made by crossmesh`.
    fn left_alone(&self, _have: &Self::Have) -> Vec<String> {
        Vec::new()
    }
}

/// A step of a tool from have to want. Its text is an order: `create role mesh`.
pub trait Change: Display {
    /// How it counts.
    fn effect(&self) -> Effect;

    /// What a plan lists of it: each text counts once.
    fn entries(&self) -> Vec<String> {
        vec![self.to_string()]
    }
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The tool's word for it, `create role mesh`.
    pub change: String,
    /// How it counts.
    pub effect: Effect,
    /// Where it happens: two entries of the same change in the same place are one.
    pub place: String,
    /// The tool that would make it.
    pub tool: String,
}

/// Where the changes of a tool happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the region of the account: what two clusters both need is made once.
    Region,
    /// In the cluster.
    Cluster,
}

/// The changes by the keys they are for, such as `images.web`.
pub type Plan = BTreeMap<String, Vec<Entry>>;

impl Document {
    /// The plan that this is the document of; empty if it is that of a run.
    ///
    /// # Errors
    /// [`Kind::Input`](crate::Kind::Input) when what stands under `plan` is none.
    pub fn plan(&self) -> Result<Plan> {
        Ok(self.read(&[KEY])?.unwrap_or_default())
    }

    /// Whether a tool before this one plans to make or change something under a key.
    ///
    /// # Errors
    /// As those of [`Document::plan`].
    pub fn plans(&self, key: &str) -> Result<bool> {
        let makes = |entry: &Entry| matches!(entry.effect, Effect::Add | Effect::Change);
        Ok(self.plan()?.get(key).is_some_and(|entries| entries.iter().any(makes)))
    }

    /// The changes that remove something, whatever key they are for.
    ///
    /// # Errors
    /// As those of [`Document::plan`].
    pub fn planned_removals(&self) -> Result<BTreeSet<String>> {
        let entries = self.plan()?.into_values().flatten();
        Ok(entries.filter(|entry| entry.effect == Effect::Remove).map(|entry| entry.change).collect())
    }

    /// Refuses what is not there yet.
    pub(crate) fn refuse_plan(&self) -> Result<()> {
        let plan = self.plan()?;
        let Some(key) = plan.keys().next() else { return Ok(()) };
        let message = format!("the document is a plan: {key} may not be as it says");
        Err(Error::input(message).hint("run the tools before this one without --plan").into())
    }

    /// Puts the changes of one key into the plan; none leave no trace.
    pub(crate) fn put_plan(&mut self, key: &[&str], entries: Vec<Entry>) -> Result<()> {
        let mut plan = self.plan()?;
        plan.remove(&key.join("."));
        if !entries.is_empty() {
            plan.insert(key.join("."), entries);
        }
        if plan.is_empty() {
            self.remove(&[KEY]);
            return Ok(());
        }
        self.put(&[KEY], serde_json::to_value(plan)?)
    }

    /// The name of a place, for the entries of a plan.
    pub(crate) fn place(&self, place: Place) -> Result<String> {
        let fact = |name| self.read::<String>(&["cluster", name]).map(Option::unwrap_or_default);
        Ok(match place {
            Place::Region => format!("{} {}", fact("account")?, fact("region")?),
            Place::Cluster => format!("{} {}", fact("arn")?, fact("name")?),
        })
    }
}

/// The paths, below a value, of what is known only after the plan was applied: `rules[0].id`.
pub fn unknown(value: &Value) -> BTreeSet<String> {
    fn collect(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::String(text) if text.contains(UNKNOWN) => drop(found.insert(path.to_owned())),
            Value::Object(map) => {
                let below = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                map.iter().for_each(|(key, value)| collect(value, &below(key), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, value)| collect(value, &format!("{path}[{at}]"), found));
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    if has_unknown(value) {
        collect(value, "", &mut found);
    }
    found
}

/// Whether anything of a value is known only after the plan was applied.
pub fn has_unknown(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(UNKNOWN),
        Value::Object(map) => map.values().any(has_unknown),
        Value::Array(items) => items.iter().any(has_unknown),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::{Kind, classify};
    use serde_json::json;

    fn entry(effect: Effect) -> Entry {
        Entry { change: "create x".into(), effect, place: "1 r".into(), tool: "t".into() }
    }

    #[test]
    fn a_plan_is_refused_by_a_run_and_an_empty_one_leaves_no_trace() {
        let mut doc = Document::default();
        doc.refuse_plan().unwrap();
        doc.put_plan(&["images", "web"], vec![entry(Effect::Add)]).unwrap();
        let error = doc.refuse_plan().unwrap_err();
        assert_eq!(classify(&error).0, Kind::Input);
        assert_eq!(error.to_string(), "the document is a plan: images.web may not be as it says");
        doc.put_plan(&["images", "web"], Vec::new()).unwrap();
        assert_eq!(doc, Document::default());
    }

    #[test]
    fn only_what_is_made_or_changed_is_planned() {
        for (effect, planned) in [(Effect::Add, true), (Effect::Change, true), (Effect::Wait, false)] {
            let mut doc = Document::default();
            doc.put_plan(&["mesh"], vec![entry(effect)]).unwrap();
            assert_eq!(doc.plans("mesh").unwrap(), planned, "{effect:?}");
            assert!(!doc.plans("role").unwrap());
        }
    }

    #[test]
    fn the_plans_of_two_steps_are_united() {
        let planned = |key| {
            let mut doc = Document::default();
            doc.put_plan(&[key], vec![entry(Effect::Add)]).unwrap();
            doc.to_string()
        };
        let both = format!("{}{}", planned("a"), planned("b"));
        let plan = Document::parse("stdin", both.as_bytes()).unwrap().plan().unwrap();
        assert_eq!(plan.into_keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn another_s_plan_is_named() {
        let doc = Document::parse("stdin", br#"{"plan":{"role":[{"change":7}]}}"#).unwrap();
        assert!(doc.plan().unwrap_err().to_string().starts_with("plan.role[0].change: invalid type"));
    }

    #[test]
    fn what_is_unknown_is_named_by_its_path() {
        let value = json!({"a": [{"id": UNKNOWN, "b": "x"}], "c": format!("http://{UNKNOWN}:80"), "d": "known"});
        assert_eq!(unknown(&value).into_iter().collect::<Vec<_>>(), ["a[0].id", "c"]);
    }
}
