//! Holds what stands under the document's `probe`.

use crate::answers::{Answers, Latency};
use crate::expect::Expect;
use crate::plan::Want;
use crate::span::Span;
use crate::spread::ChiSquared;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `probe` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Probe {
    /// How well the tallies fit the weights; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chi_squared: Option<ChiSquared>,
    /// Requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u32>,
    /// Requests in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub count: Option<u32>,
    /// How long it is asked, `1m 30s`, instead of how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Span>,
    /// Requests that brought no expected colour; read-only, and 0, or else there is no document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<u64>,
    /// Weights by colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Whether connections were used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// How long the answers took; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_millis: Option<Latency>,
    /// Requests a second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub rate: Option<u32>,
    /// How long one answer may take, `20s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Span>,
    /// How often each expected colour answered; read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tallies: Option<BTreeMap<String, u64>>,
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether the URL names a Service, and is asked through the Kubernetes API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via_cluster: Option<bool>,
}

impl Probe {
    /// What was asked for, and what came of it.
    pub fn found(want: Want, have: Option<Answers>) -> Self {
        Self {
            chi_squared: have.as_ref().map(|answers| answers.chi_squared(&want.expect).rounded()),
            concurrency: Some(want.concurrency),
            count: want.until.count(),
            duration: want.until.time(),
            errors: have.as_ref().map(Answers::errors),
            keep_alive: want.cluster.is_none().then_some(want.keep_alive),
            latency_millis: have.as_ref().map(Answers::latency),
            rate: want.rate,
            request_timeout: Some(want.patience),
            tallies: have.map(|answers| answers.tallies),
            url: want.url.map(String::from),
            via_cluster: want.cluster.map(|_| true),
            expect: Some(want.expect),
        }
    }
}
