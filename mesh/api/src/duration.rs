use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Duration {
    /// Seconds or milliseconds.
    pub unit: DurationUnit,
    /// How many of them.
    #[schemars(with = "i64", range(min = 0))]
    pub value: u64,
}

/// What a duration is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "SI says it all, and a description would change the schema's shape")]
pub enum DurationUnit {
    S,
    Ms,
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        match duration.unit {
            DurationUnit::S => Self::from_secs(duration.value),
            DurationUnit::Ms => Self::from_millis(duration.value),
        }
    }
}
