//! Writes the page of a run: its verdict, its figures and its charts.
//!
//! The page is one file that asks for nothing else and has no script. It is HTML and, so that a test can read it strictly,
//! XML too. What is drawn is placed in percent: charts are as wide as the window, and their text is not stretched.

use crate::chart;
use crate::paint::paints;
use crate::plan::{Ask, Until, Want};
use crate::plot::{self, Chart, Painted};
use crate::probe::Run;
use crate::target::shown;
use crate::timeline::Series;
use anyhow::{Context as _, Result};
use common::classify;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// Fills what is no colour: patterns of the page.
const WRONG: &str = "url(#wrong)";
const SILENCE: &str = "url(#silence)";

/// A run, good or not.
pub struct Report<'a> {
    pub ask: &'a Ask,
    pub want: &'a Want,
    pub run: &'a Run,
    /// Why it is not good.
    pub error: Option<&'a anyhow::Error>,
}

/// What the template reads.
#[derive(Serialize)]
struct Page {
    passed: bool,
    verdict: String,
    causes: Vec<String>,
    hint: Option<String>,
    version: &'static str,
    total: u64,
    /// What was asked, and how.
    facts: Vec<(&'static str, String)>,
    shares: Vec<Share>,
    latency: Vec<(&'static str, String)>,
    charts: Vec<Chart>,
    errors: u64,
    reasons: Vec<(String, u64)>,
}

/// One answer's part of all.
#[derive(Serialize)]
struct Share {
    name: String,
    paint: &'static str,
    count: u64,
    percent: f64,
    expected: f64,
}

/// Whether the file can be written. It is there from then on, but what was in it is not lost yet.
///
/// # Errors
/// It cannot.
pub fn writable(file: &Path) -> Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).with_context(|| format!("write {}", file.display()))
}

impl Report<'_> {
    /// Writes the page to a file, in place of what was there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        std::fs::write(file, self.page()?).with_context(|| format!("write {}", file.display()))
    }

    fn page(&self) -> Result<String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let contents = minijinja::value::Serde(self.contents());
        // By its ending, all that is filled in is escaped.
        let rendered = environment.render_named_str("report.html", include_str!("report.html.j2"), contents);
        rendered.context("write the report")
    }

    fn contents(&self) -> Page {
        let (answers, error) = (&self.run.answers, self.error);
        let (series, latency) = (self.series(), answers.latency());
        let counted = answers.latencies().next().is_some();
        let figures = [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("max", latency.max)];
        let figures = figures.map(|(name, millis)| (name, plot::trimmed(millis)));
        Page {
            passed: error.is_none(),
            verdict: printable(&error.map_or_else(|| chart::verdict(answers, &self.want.expect), ToString::to_string)),
            causes: error
                .iter()
                .flat_map(|error| error.chain().skip(1))
                .map(|cause| printable(&cause.to_string()))
                .collect(),
            hint: error.and_then(|error| classify(error).1).map(printable),
            version: env!("CARGO_PKG_VERSION"),
            total: answers.total(),
            facts: self.facts(),
            shares: series.iter().map(|series| self.share(series)).collect(),
            latency: figures.into_iter().filter(|_| counted).collect(),
            charts: plot::over_time(&answers.timeline, &series).into_iter().chain(plot::latencies(answers)).collect(),
            errors: answers.errors(),
            reasons: answers.reasons().into_iter().map(|(reason, count)| (printable(&reason), count)).collect(),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let (want, test) = (self.want, self.run.answers.chi_squared(&self.want.expect).rounded());
        let connections = match (&self.ask.context, want.keep_alive) {
            (Some(_), _) => "as the API server makes them",
            (None, true) => "used again",
            (None, false) => "a new one for each request",
        };
        vec![
            ("URL", shown(&self.ask.url)),
            (
                "Reached",
                match &self.ask.context {
                    Some(context) => format!("through the API server of context {}", printable(context)),
                    None => "directly".to_owned(),
                },
            ),
            (
                "Requests",
                match self.ask.until {
                    Until::Count(count) => count.to_string(),
                    Until::Time(time) => format!("for {time}"),
                },
            ),
            ("Concurrency", want.concurrency.to_string()),
            ("Rate", want.rate.map_or_else(|| "no limit".to_owned(), |rate| format!("at most {rate} a second"))),
            ("Connections", connections.to_owned()),
            ("Request timeout", want.patience.to_string()),
            ("Expected", printable(&want.expect.to_string())),
            ("χ² test", format!("χ² {}, p {}", test.statistic, test.p)),
            ("Began", humantime::format_rfc3339_seconds(self.run.began).to_string()),
            ("Waited for good answers", span(self.run.waited)),
            ("Asked for", span(self.run.asked)),
        ]
    }

    /// The series of answers, in the order in which they are drawn.
    fn series(&self) -> Vec<Painted> {
        let (colors, answers) = (&self.run.answers.tallies, &self.run.answers);
        let painted = colors.keys().zip(paints(colors.keys()));
        let colors = painted.map(|(color, paint)| (Series::Color(color.clone()), printable(color), paint));
        let wrong = (answers.wrong() > 0).then(|| (Series::Wrong, "another answer".to_owned(), WRONG));
        let silence = (answers.silence() > 0).then(|| (Series::Silence, "no answer".to_owned(), SILENCE));
        colors.chain(wrong).chain(silence).collect()
    }

    fn share(&self, (series, name, paint): &Painted) -> Share {
        let answers = &self.run.answers;
        let (count, expected) = match series {
            Series::Color(color) => (answers.tallies[color], self.want.expect.share(color)),
            Series::Wrong => (answers.wrong(), 0.0),
            Series::Silence => (answers.silence(), 0.0),
        };
        let percent = plot::percent(count, answers.total());
        Share { name: name.clone(), paint, count, percent, expected: plot::tenth(expected * 100.0) }
    }
}

fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_millis(time.as_millis() as u64)).to_string()
}

/// A text of HTML and XML, which have no control characters. The template escapes the rest.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::answer::Answer;
    use crate::answers::Answers;
    use crate::plan;
    use common::Error;
    use roxmltree::{Document, Node, ParsingOptions};
    use snapbox::{Data, assert_data_eq};
    use std::time::SystemTime;

    /// The page of these answers, of which one comes every 7 ms, each a little slower than the one before.
    fn page(expect: &str, bodies: &[(u16, &str, usize)], silent: usize, error: Option<&anyhow::Error>) -> String {
        let expect = expect.parse().unwrap();
        let mut answers = Answers::new(&expect).unwrap();
        let given = bodies.iter().flat_map(|(status, body, count)| vec![Answer::of(&expect, *status, body); *count]);
        let silence = vec![Answer::Silence("Connection refused".to_owned()); silent];
        for (at, answer) in given.chain(silence).enumerate() {
            let at = u32::try_from(at).unwrap();
            answers.add(
                answer,
                Duration::from_millis(7) * at,
                Duration::from_micros(900) + Duration::from_micros(130) * at,
            );
        }
        let url = url::Url::parse("http://front.k8multi.svc:8080/color?a=1&b=2").unwrap();
        let until = Until::Count(u32::try_from(answers.total()).unwrap());
        let ask = Ask { url, until, context: Some("shop".to_owned()) };
        let want = plan::tests::want(until);
        let report = Report {
            ask: &ask,
            want: &Want { expect, ..want },
            run: &Run {
                answers,
                began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000),
                waited: Duration::from_millis(1250),
                asked: Duration::from_millis(7) * until.count().unwrap(),
            },
            error,
        };
        report.page().unwrap()
    }

    fn parsed<T>(page: &str, read: impl FnOnce(&Document) -> T) -> T {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        read(&Document::parse_with_options(page, options).unwrap())
    }

    fn texts(node: Node) -> String {
        node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect()
    }

    /// Compares with the golden files. After a change: `SNAPSHOTS=overwrite`.
    #[test]
    fn pages_are_the_golden_ones() {
        let uneven =
            anyhow::Error::from(Error::failed("the answers are not spread as blue=1,red=1").hint("compare them"));
        let refused = uneven.context(Error::failed("ask Service k8multi/front").hint("is it there?"));
        for (name, page) in [
            ("passed", page("red=1,blue=1", &[(200, "red", 51), (200, "blue", 49)], 0, None)),
            (
                "failed",
                page("v1=9,v2=1,red=0", &[(200, "v1", 60), (200, "v2", 30), (503, "no <b>", 7)], 3, Some(&refused)),
            ),
            ("nothing", page("red=1,blue=1", &[], 0, Some(&refused))),
        ] {
            let file = format!("{}/src/testdata/{name}.html", env!("CARGO_MANIFEST_DIR"));
            let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION");
            assert_data_eq!(page, Data::read_from(file.as_ref(), None).raw());
        }
    }

    /// Nothing that others said is more than text, and the page asks for nothing.
    #[test]
    fn what_others_say_is_text() {
        let hostile = "</title><script>alert(1)</script>\u{0}\u{1b}\u{ffff}&amp;\"'";
        let expect = format!("{hostile}=1,red=1");
        let error = anyhow::Error::msg(hostile).context(Error::failed(hostile).hint(hostile));
        let page = page(&expect, &[(200, hostile, 9), (200, "red", 9), (500, hostile, 9)], 2, Some(&error));
        parsed(&page, |document| {
            let shown = hostile.replace(['\u{0}', '\u{1b}', '\u{ffff}'], "\u{fffd}");
            let named: Vec<String> =
                document.descendants().filter(|node| node.attribute("scope") == Some("row")).map(texts).collect();
            assert_eq!(named, [shown.as_str(), "red", "another answer", "no answer", "all", "all"]);
            for node in document.descendants().filter(Node::is_element) {
                let name = node.tag_name().name();
                assert!(!["script", "link", "img", "iframe", "b"].contains(&name), "{name}");
                for attribute in node.attributes() {
                    assert!(
                        !attribute.name().starts_with("on") && !["src", "href"].contains(&attribute.name()),
                        "{page}"
                    );
                }
            }
        });
        assert_eq!(
            page.matches("script").count(),
            page.matches("&lt;script&gt;").count() + page.matches("&lt;&#x2f;script&gt;").count()
        );
    }

    /// Every answer is in a bar, and every bar is in its chart.
    #[test]
    fn charts_show_all_of_it() {
        let page = page("red=1,blue=1", &[(200, "red", 51), (200, "blue", 49), (404, "x", 5)], 5, None);
        parsed(&page, |document| {
            let charts: Vec<Node> =
                document.descendants().filter(|node| node.attribute("role") == Some("img")).collect();
            for (chart, counted) in charts.iter().zip([110, 100]) {
                let bars = chart.descendants().filter(|node| node.tag_name().name() == "g").map(texts);
                let of = |title: &str| -> u64 {
                    let (_, said) = title.rsplit_once(": ").unwrap();
                    said.split(", ").map(|part| part.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
                };
                assert_eq!(bars.map(|title| of(title.trim())).sum::<u64>(), counted);
                for rect in chart.descendants().filter(|node| node.tag_name().name() == "rect") {
                    let of = |name| rect.attribute(name).unwrap().trim_end_matches('%').parse::<f64>().unwrap();
                    assert!(of("x") >= 0.0 && of("x") + of("width") < 100.1, "{rect:?}");
                    assert!(of("y") >= 0.0 && of("y") + of("height") < 100.2, "{rect:?}");
                }
                for id in chart.attribute("aria-labelledby").into_iter().chain(chart.attribute("aria-describedby")) {
                    assert!(document.descendants().any(|node| node.attribute("id") == Some(id)), "{id}");
                }
            }
            assert_eq!(charts.len(), 2);
        });
    }
}
