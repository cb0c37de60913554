//! Places the charts of a report. Pure.

use crate::answers::Answers;
use crate::timeline::{Series, Timeline};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a latency's bar is filled with, whatever was answered.
const LATENCY: &str = "#6e7781";

/// Bars of the latencies' distribution.
const BARS: usize = 40;

/// Labels that a logarithmic axis has room for; if there were more, it has those of powers of ten.
const LABELS: usize = 7;

/// A series of answers, with its name and how it is filled.
pub type Painted = (Series, String, &'static str);

/// Bars over an axis, in percent of its width and height, from its upper left corner.
#[derive(Serialize)]
pub struct Chart {
    id: &'static str,
    title: &'static str,
    /// All of it in a sentence, for whoever does not see it.
    summary: String,
    bars: Vec<Bar>,
    columns: Vec<Tick>,
    rows: Vec<Tick>,
    marks: Vec<Tick>,
}

#[derive(Serialize)]
struct Bar {
    /// What it says if it is pointed at.
    title: String,
    x: f64,
    width: f64,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    paint: &'static str,
    y: f64,
    height: f64,
}

#[derive(Serialize)]
struct Tick {
    at: f64,
    label: String,
}

/// What came when; none if nothing came.
pub fn over_time(timeline: &Timeline, series: &[Painted]) -> Option<Chart> {
    let (width, bins) = (timeline.width().as_secs_f64() * 1000.0, timeline.bins());
    let most = bins.iter().map(|bin| bin.values().sum::<u64>()).max()?;
    let end = width * bins.len() as f64;
    let (rows, top) = counts(most);
    let bar = |(index, bin): (usize, &BTreeMap<Series, u64>)| {
        let mut height = 0;
        let (mut parts, mut said) = (Vec::new(), Vec::new());
        for (series, name, paint) in series {
            let Some(count) = bin.get(series) else { continue };
            height += count;
            parts.push(Part { paint, y: tenth(100.0 - percent(height, top)), height: percent(*count, top) });
            said.push(format!("{count} {name}"));
        }
        let from = index as f64 * width;
        let title = format!("{} to {}: {}", millis(from), millis(from + width), said.join(", "));
        Bar { title, x: hundredth(from / end * 100.0), width: hundredth(width / end * 100.0), parts }
    };
    let step = step(end, 6.0);
    let columns = (0..).map(|tick| f64::from(tick) * step).take_while(|at| *at <= end);
    Some(Chart {
        id: "time",
        title: "Answers over time",
        summary: format!("How many answers of each kind came in every {} of {}.", millis(width), millis(end)),
        bars: bins.iter().enumerate().filter(|(_, bin)| !bin.is_empty()).map(bar).collect(),
        columns: columns.map(|at| Tick { at: hundredth(at / end * 100.0), label: millis(at) }).collect(),
        rows,
        marks: Vec::new(),
    })
}

/// How long colours took, on a logarithmic axis; none if there are none.
pub fn latencies(answers: &Answers) -> Option<Chart> {
    let recorded: Vec<(f64, u64)> = answers.latencies().map(|(time, count)| (time.max(0.001), count)).collect();
    let ((fastest, _), (slowest, _)) = (recorded.first()?, recorded.last()?);
    // From one tick to another: 1, 2, 5, 10, 20, 50 and so on.
    let ticks: Vec<f64> = (-3..6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power))).collect();
    let low = ticks.iter().rev().find(|tick| *tick <= fastest)?;
    let high = ticks.iter().find(|tick| *tick > slowest)?;
    let at = |time: f64| (time / low).ln() / (high / low).ln();
    let mut counts_of = [0; BARS];
    for (time, count) in &recorded {
        counts_of[((at(*time) * BARS as f64) as usize).min(BARS - 1)] += count;
    }
    let (rows, top) = counts(counts_of.iter().copied().max()?);
    let edge = |index: usize| low * (high / low).powf(index as f64 / BARS as f64);
    let width = 100.0 / BARS as f64;
    let bar = |(index, count): (usize, &u64)| {
        let height = percent(*count, top);
        Bar {
            title: format!("{} to {}: {count}", millis(edge(index)), millis(edge(index + 1))),
            x: hundredth(index as f64 * width),
            width: hundredth(width),
            parts: vec![Part { paint: LATENCY, y: tenth(100.0 - height), height }],
        }
    };
    let mut labelled: Vec<f64> = ticks.iter().copied().filter(|tick| tick >= low && tick <= high).collect();
    if labelled.len() > LABELS {
        labelled.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-9);
    }
    let latency = answers.latency();
    let marks = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99)];
    Some(Chart {
        id: "latency",
        title: "How long colours took",
        summary: format!(
            "Of the answers that were a colour, half took at most {}, 90 of 100 at most {}, 99 of 100 at most {}, the slowest {}.",
            millis(latency.p50),
            millis(latency.p90),
            millis(latency.p99),
            millis(latency.max)
        ),
        bars: counts_of.iter().enumerate().filter(|(_, count)| **count > 0).map(bar).collect(),
        columns: labelled
            .into_iter()
            .map(|tick| Tick { at: hundredth(at(tick) * 100.0), label: millis(tick) })
            .collect(),
        rows,
        marks: marks.map(|(name, time)| Tick { at: hundredth(at(time) * 100.0), label: name.to_owned() }).into(),
    })
}

/// Ticks of an axis of counts, and the count at its top.
fn counts(most: u64) -> (Vec<Tick>, u64) {
    let step = step(most as f64, 4.0).max(1.0) as u64;
    let top = most.div_ceil(step) * step;
    let ticks = (0..=top / step).map(|tick| tick * step);
    (ticks.map(|count| Tick { at: tenth(100.0 - percent(count, top)), label: count.to_string() }).collect(), top)
}

/// The step of an axis that has about so many ticks: 1, 2 or 5, or 10, 100 … times as much.
fn step(length: f64, ticks: f64) -> f64 {
    let rough = length / ticks;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

/// Percent, to a tenth.
pub fn percent(of: u64, all: u64) -> f64 {
    tenth(of as f64 * 100.0 / all.max(1) as f64)
}

/// To one digit behind the point.
pub fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn hundredth(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// To three digits behind the point, and no more than are needed.
pub fn trimmed(number: f64) -> String {
    format!("{number:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `250 ms`, `1.5 s`.
fn millis(millis: f64) -> String {
    if millis >= 1000.0 { format!("{} s", trimmed(millis / 1000.0)) } else { format!("{} ms", trimmed(millis)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_steps() {
        for (length, ticks, expected) in [(1000.0, 5.0, 200.0), (1.0, 4.0, 0.5), (31.0, 4.0, 10.0), (448.0, 5.0, 100.0)]
        {
            assert_eq!(step(length, ticks), expected, "{length}");
        }
        for (most, labels) in
            [(1, &["0", "1"][..]), (7, &["0", "2", "4", "6", "8"]), (200, &["0", "50", "100", "150", "200"])]
        {
            assert_eq!(counts(most).0.iter().map(|tick| tick.label.as_str()).collect::<Vec<_>>(), labels, "{most}");
        }
        for (time, shown) in [(0.25, "0.25 ms"), (200.0, "200 ms"), (1500.0, "1.5 s"), (0.1 + 0.2, "0.3 ms")] {
            assert_eq!(millis(time), shown);
        }
    }
}
