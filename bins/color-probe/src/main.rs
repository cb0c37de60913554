//! `color-probe`: see [`ColorProbe`].

mod answer;
mod answers;
mod chart;
mod expect;
mod http;
mod plan;
mod probe;
mod span;
mod spread;
mod target;

use answers::{Answers, Latency};
use anyhow::Result;
use common::plan::UNKNOWN;
use common::{Flags, Session, Tool};
use expect::Expect;
use http::Http;
use plan::{Ask, Until, Want};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use span::Span;
use spread::ChiSquared;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// Requests, unless told otherwise: enough to tell 60:40 from even nearly always.
const COUNT: u32 = 200;
/// Requests at a time, unless told otherwise.
const CONCURRENCY: u32 = 10;
/// How long one answer may take, unless told otherwise. A front end in the mesh answers or gives up within Envoy's 15 s.
const PATIENCE: Span = Span(Duration::from_secs(20));

/// Asks a URL many times and checks that the answers are spread as expected.
///
/// It first waits until the name resolves and good answers come, five in a row: a new load balancer
/// needs minutes until all its addresses know all targets. Then every answer must be one of the
/// expected colours, whatever its status, and a χ² test must not find the tallies at odds with the
/// weights (significance 0.001: of 100 answers, 55 and 45 are even, 80 and 20 are not). Every run
/// asks anew. Each request makes a connection of its own, so that the spread of connections is seen
/// as well; --keep-alive is faster and sees only that of requests. HTTPS trusts the authorities of
/// this machine, or those of the file that SSL_CERT_FILE names.
///
///   Reads   apps.<name>.endpoint, unless a URL is given
///   Owns    probe {chiSquared, concurrency, count, duration, errors, expect, keepAlive,
///           latencyMillis, rate, requestTimeout, tallies, url}; no header, for it may be secret
///   Calls   nothing of AWS: only the URL, by way of HTTP_PROXY and HTTPS_PROXY unless NO_PROXY has it
///   Exits   0 even, 1 uneven or a wrong answer, 2 usage, 3 input, 5 an answer never came
///
/// Examples:
///   color-probe -n http://127.0.0.1:8080/color --expect red=1,blue=1
///   color-probe --count 1000 --expect red=9,blue=1 <feapp.json | jq .probe.tallies
///   color-probe -n https://lb.example/ -H 'Host: shop.example' --duration 1m --rate 20
#[derive(Debug, clap::Parser)]
#[command(name = "color-probe", version, verbatim_doc_comment, mut_arg("timeout", |arg| arg.default_value("10m")))]
struct ColorProbe {
    /// What to ask [default: probe.url, else the endpoint of --app with the path /color]
    #[arg(value_name = "URL", value_parser = target::http)]
    url: Option<Url>,
    /// The application to ask [default: the only one with an endpoint]
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    app: Option<String>,
    /// Requests [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Ask for so long, e.g. 30s, instead of so often
    #[arg(long, value_name = "DURATION", conflicts_with = "count")]
    duration: Option<Span>,
    /// Requests a second at most [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// Requests at a time [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    concurrency: Option<u32>,
    /// Colours that may answer, with their weights [default: blue=1,red=1]
    #[arg(long, value_name = "COLOR=WEIGHT,…")]
    expect: Option<Expect>,
    /// Send a header with every request, as curl does; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = http::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How long one answer may take [default: 20s]
    #[arg(long, value_name = "DURATION")]
    request_timeout: Option<Span>,
    /// Use connections again
    #[arg(long)]
    keep_alive: bool,
    #[command(flatten)]
    flags: Flags,
    /// What this run's requests brought.
    #[arg(skip)]
    answers: RefCell<Option<Answers>>,
}

/// The `probe` key.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    /// How well the tallies fit the weights; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    chi_squared: Option<ChiSquared>,
    /// Requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    concurrency: Option<u32>,
    /// Requests in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    count: Option<u32>,
    /// How long it is asked, `1m 30s`, instead of how often.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<Span>,
    /// Requests that brought no expected colour; found, never wished for, and 0, or else there is no document.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<u64>,
    /// Weights by colour.
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Expect>,
    /// Whether connections were used again.
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<bool>,
    /// How long the answers took; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_millis: Option<Latency>,
    /// Requests a second at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    rate: Option<u32>,
    /// How long one answer may take, `20s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_timeout: Option<Span>,
    /// How often each expected colour answered; found, never wished for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tallies: Option<BTreeMap<String, u64>>,
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl Tool for ColorProbe {
    type Section = Probe;
    type Want = Want;
    type Have = Option<Answers>;
    type Change = Ask;

    fn flags(&self) -> &Flags {
        &self.flags
    }

    fn key(&self) -> Vec<&str> {
        vec!["probe"]
    }

    async fn want(&self, session: &mut Session, section: Option<Probe>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let count = plan::within("count", section.count, u32::MAX)?;
        let concurrency = plan::within("concurrency", section.concurrency, 1000)?;
        let rate = plan::within("rate", section.rate, 1000)?;
        Ok(Want {
            url: if self.flags.delete { None } else { self.target(session, section.url.as_deref())? },
            expect: self.expect.clone().or(section.expect).unwrap_or_else(Expect::red_and_blue),
            until: Until::of((self.count, self.duration), (count, section.duration), COUNT)?,
            left: session.remaining(),
            concurrency: self.concurrency.or(concurrency).unwrap_or(CONCURRENCY),
            rate: self.rate.or(rate),
            patience: self.request_timeout.or(section.request_timeout).unwrap_or(PATIENCE),
            keep_alive: self.keep_alive || section.keep_alive.unwrap_or(false),
        })
    }

    async fn observe(&self, _session: &Session, _want: &Want) -> Result<Option<Answers>> {
        Ok(self.answers.take())
    }

    fn plan(want: &Want, have: &Option<Answers>) -> Result<Vec<Ask>> {
        plan::plan(want, have.is_some())
    }

    /// Nothing was made.
    fn plan_delete(_want: &Want, _have: &Option<Answers>) -> Result<Vec<Ask>> {
        Ok(Vec::new())
    }

    async fn apply(&self, session: &Session, want: &Want, ask: Ask) -> Result<()> {
        let headers = self.headers.iter().cloned().collect();
        let http = Http::new(ask.url.clone(), headers, want.keep_alive, want.patience.0)?;
        probe::first_answers(session, &http, &want.expect).await?;
        let answers = probe::ask(session, &http, &ask, want).await?;
        session.stderr.block(chart::chart(&answers, &want.expect));
        answers.judge(ask.url.as_str(), &want.expect)?;
        session.stderr.line(chart::verdict(&answers, &want.expect));
        session.stderr.line(format_args!("try it: curl {}", ask.url));
        self.answers.replace(Some(answers));
        Ok(())
    }

    fn outcome(want: Want, have: Option<Answers>) -> Probe {
        Probe {
            chi_squared: have.as_ref().map(|answers| answers.chi_squared(&want.expect).rounded()),
            concurrency: Some(want.concurrency),
            count: want.until.count(),
            duration: want.until.time(),
            errors: have.as_ref().map(Answers::errors),
            keep_alive: Some(want.keep_alive),
            latency_millis: have.as_ref().map(Answers::latency),
            rate: want.rate,
            request_timeout: Some(want.patience),
            tallies: have.map(|answers| answers.tallies),
            url: want.url.map(String::from),
            expect: Some(want.expect),
        }
    }

    fn planned(want: Want, have: Option<Answers>) -> Probe {
        let mut probe = Self::outcome(want, have);
        probe.url.get_or_insert_with(|| UNKNOWN.to_owned());
        probe
    }
}

impl ColorProbe {
    /// Flag, then document, then the application's endpoint; none that is known only after a plan was applied.
    fn target(&self, session: &Session, url: Option<&str>) -> Result<Option<Url>> {
        match (&self.url, &self.app, url) {
            (Some(url), _, _) => Ok(Some(url.clone())),
            (None, None, Some(UNKNOWN)) => Ok(None),
            (None, None, Some(url)) => {
                target::http(url).map(Some).map_err(|why| common::Error::input(format!("probe.url: {why}")).into())
            }
            (None, app, _) => target::from_apps(&session.doc, app.as_deref()),
        }
    }
}

fn main() -> ExitCode {
    common::main::<ColorProbe>()
}
