use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// Whether a selector chooses an object with these labels. An absent selector chooses nothing, an empty one everything,
/// and one whose operator is unknown nothing (admission refuses it).
pub fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_some_and(|selector| Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn selectors() {
        let labels = BTreeMap::from([("app".to_owned(), "front".to_owned())]);
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "front"}}), true),
            (json!({"matchLabels": {"app": "front", "version": "v1"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["front", "back"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "Resembles"}]}), false),
        ] {
            let selector: LabelSelector = from_value(selector).unwrap();
            assert_eq!(selects(Some(&selector), &labels), expected, "{selector:?}");
        }
        assert!(!selects(None, &labels));
    }
}
