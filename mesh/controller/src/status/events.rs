//! Publishes events, so that `kubectl describe` shows what became of an object.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::NAME;
use crate::model::ObjectKey;

/// Characters of an event's note; the API server accepts 1 kB.
const NOTE_LENGTH: usize = 1000;

/// The last note of each reason, and what has published it. A recorder knows events by their reason and would repeat the
/// first note for all.
type Published = BTreeMap<String, (String, Recorder)>;

/// Publishes events. The same event of an object again is one more in its series.
pub struct Events {
    client: Client,
    /// The pod's name.
    instance: String,
    published: Mutex<HashMap<ObjectKey, Published>>,
}

impl Events {
    /// `instance` is the name of this replica's pod.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance, published: Mutex::default() }
    }

    /// Publishes an event. One that cannot be written is only logged, since a condition says the same.
    pub async fn publish(&self, object: (&ObjectKey, &ObjectReference), type_: EventType, reason: &str, note: &str) {
        let (key, reference) = object;
        let note: String = note.chars().take(NOTE_LENGTH).collect();
        let recorder = self.recorder(key, reason, &note);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note).filter(|note| !note.is_empty()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, reference).await {
            tracing::warn!(object = %key, %error, "cannot publish an event");
        }
    }

    /// Whether the last event of that reason had this note.
    pub fn is_published(&self, key: &ObjectKey, reason: &str, note: &str) -> bool {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.get(key).and_then(|reasons| reasons.get(reason)).is_some_and(|(published, _)| published == note)
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn recorder(&self, key: &ObjectKey, reason: &str, note: &str) -> Recorder {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = published.entry(key.clone()).or_default();
        match reasons.get(reason) {
            Some((published, recorder)) if published == note => recorder.clone(),
            _ => {
                let reporter = Reporter { controller: NAME.to_owned(), instance: Some(self.instance.clone()) };
                let recorder = Recorder::new(self.client.clone(), reporter);
                reasons.insert(reason.to_owned(), (note.to_owned(), recorder.clone()));
                recorder
            }
        }
    }
}
