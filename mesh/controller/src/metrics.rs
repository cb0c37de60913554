//! Counts what the controller does, for Prometheus.

use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Labels of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Such as `VirtualNode`.
    pub kind: String,
}

/// Labels of problems.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindAndReason {
    /// Such as `VirtualNode`.
    pub kind: String,
    /// A condition's reason, such as `BackendNotFound`.
    pub reason: String,
}

/// Labels of xDS responses and of what Envoys answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceType {
    /// `cds`, `eds`, `lds`, `rds` or `sds`.
    pub r#type: String,
}

/// Labels of calls of AWS Cloud Map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// Such as `RegisterInstance`.
    pub operation: String,
    /// `ok`, or the error's code, such as `ThrottlingException`.
    pub outcome: String,
}

/// All metrics. Cloning is cheap, every clone counts into the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Seconds of each translation of the cluster.
    pub translations: Histogram,
    /// Objects of the cluster.
    pub objects: Family<Kind, Gauge>,
    /// Objects with a problem, by its reason.
    pub problems: Family<KindAndReason, Gauge>,
    /// Envoys that are connected.
    pub xds_streams: Gauge,
    /// Responses sent to Envoys.
    pub xds_pushes: Family<ResourceType, Counter>,
    /// Responses that Envoys have accepted.
    pub xds_acks: Family<ResourceType, Counter>,
    /// Responses that Envoys have rejected.
    pub xds_nacks: Family<ResourceType, Counter>,
    /// Seconds from a change until an Envoy has accepted all that follows from it.
    pub xds_convergence: Histogram,
    /// Calls of Cloud Map.
    pub cloudmap_calls: Family<Call, Counter>,
    /// 1 where this replica leads.
    pub leader: Gauge,
    /// When the certificate of the webhook and of xDS ends, in seconds since 1970.
    pub certificate_expiration: Gauge,
}

impl Metrics {
    /// All of them, at 0.
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let mut registry = Registry::with_prefix("appmesh_controller");
        let mut metrics = Self {
            registry: Arc::default(),
            translations: seconds(),
            objects: Family::default(),
            problems: Family::default(),
            xds_streams: Gauge::default(),
            xds_pushes: Family::default(),
            xds_acks: Family::default(),
            xds_nacks: Family::default(),
            xds_convergence: seconds(),
            cloudmap_calls: Family::default(),
            leader: Gauge::default(),
            certificate_expiration: Gauge::default(),
        };
        let in_seconds = || Unit::Seconds;
        registry.register_with_unit(
            "translation",
            "Time of each translation",
            in_seconds(),
            metrics.translations.clone(),
        );
        registry.register("objects", "Objects of the cluster", metrics.objects.clone());
        registry.register("problems", "Objects with a problem, by its reason", metrics.problems.clone());
        registry.register("xds_streams", "Envoys that are connected", metrics.xds_streams.clone());
        registry.register("xds_pushes", "Responses sent to Envoys", metrics.xds_pushes.clone());
        registry.register("xds_acks", "Responses accepted by Envoys", metrics.xds_acks.clone());
        registry.register("xds_nacks", "Responses rejected by Envoys", metrics.xds_nacks.clone());
        let help = "Time from a change until an Envoy has accepted all that follows from it";
        registry.register_with_unit("xds_convergence", help, in_seconds(), metrics.xds_convergence.clone());
        registry.register("cloudmap_calls", "Calls of AWS Cloud Map", metrics.cloudmap_calls.clone());
        registry.register("leader", "1 where this replica leads", metrics.leader.clone());
        let help = "When the certificate of the webhook and of xDS ends, in seconds since 1970";
        let expiration = metrics.certificate_expiration.clone();
        registry.register_with_unit("certificate_expiration_timestamp", help, in_seconds(), expiration);
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// In Prometheus' text format.
    ///
    /// # Errors
    /// A metric does not print.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        encode(&mut text, &self.registry).context("printing the metrics")?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// All metrics, each with a series: one without is not in the text.
    fn all() -> String {
        let metrics = Metrics::new();
        // All fields by their names, so that this does not compile without a new one.
        let Metrics {
            registry: _,
            translations: _,
            objects,
            problems,
            xds_streams: _,
            xds_pushes,
            xds_acks,
            xds_nacks,
            xds_convergence: _,
            cloudmap_calls,
            leader: _,
            certificate_expiration: _,
        } = &metrics;
        let kind = || "Mesh".to_owned();
        objects.get_or_create(&Kind { kind: kind() }).set(1);
        problems.get_or_create(&KindAndReason { kind: kind(), reason: "Invalid".to_owned() }).set(1);
        for family in [xds_pushes, xds_acks, xds_nacks] {
            family.get_or_create(&ResourceType { r#type: "cds".to_owned() }).inc();
        }
        let call = Call { operation: "ListServices".to_owned(), outcome: "ok".to_owned() };
        cloudmap_calls.get_or_create(&call).inc();
        metrics.text().unwrap()
    }

    #[test]
    fn the_manual_and_the_dashboard_name_the_metrics_that_there_are() {
        let manual = include_str!("../../../docs/observability.md");
        let dashboard = include_str!("../../../charts/appmesh-controller/dashboards/crossmesh.json");
        let text = all();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let mut known: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
        let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        for (family, kind) in families {
            // A histogram is named by its family, a counter never.
            if kind == "histogram" {
                known.insert(family);
            }
            let name = if kind == "counter" { format!("{family}_total") } else { family.to_owned() };
            let row = format!("\n| `{name}` | {kind} |");
            assert!(manual.contains(&row), "docs/observability.md has no row {row:?}");
        }
        serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
        for (file, content) in [("docs/observability.md", manual), ("crossmesh.json", dashboard)] {
            let words = content.split(|character: char| !character.is_ascii_lowercase() && character != '_');
            let named: BTreeSet<_> = words.filter(|word| word.starts_with("appmesh_controller_")).collect();
            let unknown: Vec<_> = named.difference(&known).collect();
            assert!(!named.is_empty() && unknown.is_empty(), "{file} names {unknown:?}");
        }
    }
}
