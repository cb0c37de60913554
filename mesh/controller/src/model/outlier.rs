//! Describes when callers leave out a pod that fails.

use serde::Serialize;

use super::Invalid;

/// When callers leave out a pod that fails, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Errors in a row after which a pod is left out: answers of 500 to 599, and connections that fail.
    pub max_server_errors: u32,
    /// Milliseconds between two looks at which pods may come back.
    pub interval_millis: u64,
    /// Milliseconds that a pod is left out the first time; each further time it is that much longer.
    pub base_ejection_millis: u64,
    /// Percentage of the pods that may be left out at the same time, 0 to 100; one may be in any case.
    pub max_ejection_percent: u32,
}

impl OutlierDetection {
    /// The same, if Envoy takes its numbers.
    ///
    /// # Errors
    /// A time or the number of errors is 0, or the percentage is above 100.
    pub fn checked(self) -> Result<Self, Invalid> {
        if self.max_server_errors == 0 || self.interval_millis == 0 || self.base_ejection_millis == 0 {
            return Err(Invalid::new("maxServerErrors, interval or baseEjectionDuration is 0"));
        }
        if self.max_ejection_percent > 100 {
            return Err(Invalid::new("maxEjectionPercent is above 100"));
        }
        Ok(self)
    }
}
