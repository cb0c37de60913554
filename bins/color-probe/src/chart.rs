//! The tallies as a person sees them. Pure.

use crate::answers::Answers;
use crate::expect::Expect;
use std::fmt::Write as _;

/// Characters of the longest bar.
const WIDTH: u64 = 40;

/// One bar a colour, one for errors if there are any, and a line of figures; no newline at the end.
pub fn chart(answers: &Answers, expect: &Expect) -> String {
    let mut bars: Vec<(&str, u64)> = answers.tallies.iter().map(|(color, count)| (color.as_str(), *count)).collect();
    if answers.errors() > 0 {
        bars.push(("errors", answers.errors()));
    }
    let named = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let longest = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for (name, count) in bars {
        let bar = "█".repeat(usize::try_from(count * WIDTH / longest).unwrap_or(0));
        let percent = count as f64 * 100.0 / answers.total().max(1) as f64;
        // Writing into a string can't fail.
        let _ = writeln!(text, "  {name:named$}  {count:5} {percent:5.1} %  {bar}");
    }
    let (latency, test) = (answers.latency(), answers.chi_squared(expect));
    let _ = write!(
        text,
        "  {} answers, p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, slowest {:.1} ms; against {expect}: χ² {:.2}, p {:.4}",
        answers.total(),
        latency.p50,
        latency.p90,
        latency.p99,
        latency.max,
        test.statistic,
        test.p
    );
    text
}

/// What good answers mean, in words: `even: 97 blue, 103 red`.
pub fn verdict(answers: &Answers, expect: &Expect) -> String {
    let tallies: Vec<String> = answers.tallies.iter().map(|(color, count)| format!("{count} {color}")).collect();
    let spread = if expect.is_even() { "even".to_owned() } else { format!("as {expect}") };
    format!("{spread}: {}", tallies.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use std::time::Duration;

    #[test]
    fn bars_are_in_proportion() {
        let expect = Expect::red_and_blue();
        let mut answers = Answers::new(&expect).unwrap();
        for (body, count) in [("red", 60), ("blue", 45), ("no", 15)] {
            for _ in 0..count {
                answers.add(Answer::of(&expect, 200, body), Duration::ZERO, Duration::from_millis(1));
            }
        }
        let expected = "  blue       45  37.5 %  ██████████████████████████████
  red        60  50.0 %  ████████████████████████████████████████
  errors     15  12.5 %  ██████████
  120 answers, p50 1.0 ms, p90 1.0 ms, p99 1.0 ms, slowest 1.0 ms; against blue=1,red=1: χ² 2.14, p 0.1432";
        assert_eq!(chart(&answers, &expect), expected);
    }

    #[test]
    fn no_answer_at_all_has_a_chart() {
        let expect = Expect::red_and_blue();
        assert!(chart(&Answers::new(&expect).unwrap(), &expect).contains("0 answers"));
    }
}
