//! Counts what came when, in bins that grow with the run. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// Bins at most; at least half as many, once the run is long enough.
const MOST: usize = 64;

/// How much time a bin holds at first.
const FIRST: Duration = Duration::from_millis(1);

/// What answers are counted as: each colour for itself, and all others together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// An expected colour.
    Color(String),
    /// Anything else that was answered.
    Wrong,
    /// No answer.
    Silence,
}

/// How many answers of each series came within one bin's time.
pub type Bin = BTreeMap<Series, u64>;

/// A run, in bins of the same width.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    width: Duration,
    bins: Vec<Bin>,
}

impl Timeline {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { width: FIRST, bins: Vec::new() }
    }

    /// One more answer, so long after the beginning.
    pub fn add(&mut self, series: Series, at: Duration) {
        while at >= self.width * MOST as u32 {
            self.width *= 2;
            self.bins = self.bins.chunks(2).map(united).collect();
        }
        let index = (at.as_nanos() / self.width.as_nanos()) as usize;
        if self.bins.len() <= index {
            self.bins.resize(index + 1, Bin::new());
        }
        *self.bins[index].entry(series).or_default() += 1;
    }

    /// How much time a bin holds.
    pub fn width(&self) -> Duration {
        self.width
    }

    /// All bins up to that of the last answer.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }
}

fn united(bins: &[Bin]) -> Bin {
    let mut all = Bin::new();
    for (series, count) in bins.iter().flatten() {
        *all.entry(series.clone()).or_default() += count;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_grow_with_the_run_and_lose_nothing() {
        let mut timeline = Timeline::new();
        for millis in 0..1000 {
            let series = if millis % 4 == 0 { Series::Wrong } else { Series::Color("red".into()) };
            timeline.add(series, Duration::from_millis(millis));
        }
        assert_eq!((timeline.width(), timeline.bins().len()), (Duration::from_millis(16), 63));
        let full = Bin::from([(Series::Color("red".into()), 12), (Series::Wrong, 4)]);
        assert!(timeline.bins()[..62].iter().all(|bin| *bin == full), "{timeline:?}");
        assert_eq!(timeline.bins()[62].values().sum::<u64>(), 8, "the last 8 ms");
    }

    #[test]
    fn a_pause_is_seen() {
        let mut timeline = Timeline::new();
        timeline.add(Series::Silence, Duration::ZERO);
        timeline.add(Series::Silence, Duration::from_secs(3600));
        let counts: Vec<u64> = timeline.bins().iter().map(|bin| bin.values().sum()).collect();
        let last = counts.len() - 1;
        assert!(last >= MOST / 2, "{counts:?}");
        assert!(counts.iter().enumerate().all(|(at, count)| *count == u64::from(at == 0 || at == last)), "{counts:?}");
    }
}
