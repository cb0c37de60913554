//! `color-probe`: see [`ColorProbe`].

mod answer;
mod answers;
mod chart;
mod cluster;
mod direct;
mod expect;
mod http;
mod paint;
mod plan;
mod plot;
mod probe;
mod report;
mod section;
mod service;
mod shell;
mod span;
mod spread;
mod target;
mod timeline;

use answers::Answers;
use anyhow::Result;
use cluster::Cluster;
use common::plan::UNKNOWN;
use common::{Error, Session, Tool};
use expect::Expect;
use http::{Header, Http};
use plan::{Ask, Until, Want};
use probe::Run;
use report::Report;
use section::Probe;
use service::Service;
use shell::quoted;
use span::Span;
use std::cell::RefCell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use target::shown;
use url::Url;

/// Requests, unless told otherwise: enough to tell 60:40 from even nearly always.
const COUNT: u32 = 200;
/// Requests at a time, unless told otherwise.
const CONCURRENCY: u32 = 10;
/// How long one answer may take, unless told otherwise. A front end in the mesh answers or gives up within Envoy's 15 s.
const PATIENCE: Span = Span(Duration::from_secs(20));

/// Asks a URL many times and checks that the answers are spread as expected.
///
/// It first waits until the name resolves and good answers come, five in a row: a
/// new load balancer needs minutes until all its addresses know all targets. Then
/// every answer must be one of the expected colours, whatever its status, and a
/// χ² test must not find the tallies at odds with the weights (significance
/// 0.001: of 100 answers, 55 and 45 are even, 80 and 20 are not). Every run asks
/// anew. Each request makes a connection of its own, so that the spread of
/// connections is seen as well; --keep-alive is faster and sees only that of
/// requests. HTTPS trusts the authorities of this machine, or those of the file
/// that SSL_CERT_FILE names.
///
/// With --report it writes a page of the run, with charts, to a file: one HTML
/// file that needs no network and no script. A run that fails writes it, too.
///
/// With --via-cluster the Kubernetes API server asks in its place, by a
/// kubeconfig and without a load balancer: the URL is
/// http://NAME.NAMESPACE.svc:PORT/PATH, by default that of the application's
/// first Service of type LoadBalancer, or of its only Service, with the path
/// /color.
///
///   Reads   apps.<name>.endpoint, unless a URL is given; cluster.endpoint and
///           apps.<name>.objects with --via-cluster
///   Owns    probe {chiSquared, concurrency, count, duration, errors, expect,
///           keepAlive, latencyMillis, rate, requestTimeout, tallies, url,
///           viaCluster}; no header, which may be secret
///   Calls   nothing of AWS: only the URL, by way of HTTP_PROXY and HTTPS_PROXY
///           unless NO_PROXY has it; with --via-cluster Kubernetes: get of
///           services and services/proxy
///   Exits   0 even, 1 uneven or a wrong answer, 2 usage, 3 input, 5 an answer
///           never came
///
/// Examples:
///   color-probe -n http://127.0.0.1:8080/color --expect red=1,blue=1
///   color-probe --count 1000 --expect red=9,blue=1 <feapp.json |
///     jq .probe.tallies
///   color-probe --via-cluster --context shop --report run.html <feapp.json
///   color-probe -n https://lb.example/ -H 'Host: shop.example' \
///     --duration 1m --rate 20
#[derive(Debug, clap::Parser)]
#[command(name = "color-probe", version, verbatim_doc_comment)]
struct ColorProbe {
    /// What to ask [default: probe.url, else the endpoint of --app with the path /color]
    #[arg(value_name = "URL")]
    url: Option<String>,
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
    /// Send a header with every request, as curl does: NAME: for none of that name, NAME; for an empty one; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = http::header)]
    headers: Vec<Header>,
    /// How long one answer may take [default: 20s]
    #[arg(long, value_name = "DURATION")]
    request_timeout: Option<Span>,
    /// Use connections again
    #[arg(long)]
    keep_alive: bool,
    /// Write a page of the run, with charts, to this file, also if the run fails
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    via: cluster::Flags,
    /// What this run's requests brought.
    #[arg(skip)]
    answers: RefCell<Option<Answers>>,
}

impl Tool for ColorProbe {
    type Section = Probe;
    type Want = Want;

    const TIMEOUT: &str = "10m";

    fn key(&self) -> Vec<&str> {
        vec!["probe"]
    }

    async fn want(&self, session: &mut Session, section: Option<Probe>) -> Result<Want> {
        let section = section.unwrap_or_default();
        let count = plan::within("count", section.count, u32::MAX)?;
        let concurrency = plan::within("concurrency", section.concurrency, 1000)?;
        let rate = plan::within("rate", section.rate, 1000)?;
        let via_cluster = self.via.wanted(section.via_cluster == Some(true), self.url.is_some(), &self.headers)?;
        let cluster = match via_cluster && !session.flags.delete {
            true => Some(Cluster::new(session, &self.via).await?),
            false => None,
        };
        // A URL of the other way is none of this one.
        let known = section.url.filter(|_| via_cluster == (section.via_cluster == Some(true)));
        Ok(Want {
            url: if session.flags.delete { None } else { self.target(session, cluster.as_ref(), known).await? },
            cluster,
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

    async fn apply(&self, session: &Session, want: &Want, ask: Ask) -> Result<()> {
        let (url, headers, patience) = (ask.url.clone(), &self.headers, want.patience.0);
        let (http, command) = match &want.cluster {
            Some(cluster) => (Http::through(cluster.clone(), url, headers, patience)?, cluster.command(&ask.url)),
            None => {
                let command = format!("curl {}", quoted(&shown(&ask.url)));
                (Http::new(url, headers, want.keep_alive, patience)?, command)
            }
        };
        if let Some(file) = &self.report {
            report::writable(file)?;
        }
        let mut run = Run::new(&want.expect)?;
        let asked = async {
            run.ask(session, http, &ask, want).await?;
            session.stderr.block(chart::chart(&run.answers, &want.expect));
            run.answers.judge(&shown(&ask.url), &want.expect).map_err(anyhow::Error::from)
        };
        let outcome = match (asked.await, &want.cluster) {
            (Err(error), Some(cluster)) => Err(cluster.explained(error, &ask.url)),
            (outcome, _) => outcome,
        };
        let written = self.report.as_deref().map_or(Ok(()), |file| {
            session.stderr.line(format_args!("report: {}", file.display()));
            Report { ask: &ask, want, run: &run, error: outcome.as_ref().err() }.write(file)
        });
        outcome.and(written)?;
        session.stderr.line(chart::verdict(&run.answers, &want.expect));
        session.stderr.line(format_args!("try it: {command}"));
        self.answers.replace(Some(run.answers));
        Ok(())
    }

    fn outcome(want: Want, have: Option<Answers>) -> Probe {
        Probe::found(want, have)
    }

    fn planned(want: Want, have: Option<Answers>) -> Probe {
        let mut probe = Self::outcome(want, have);
        probe.url.get_or_insert_with(|| UNKNOWN.to_owned());
        probe
    }
}

impl ColorProbe {
    /// Flag, then document, then the application's; none that is known only after a plan was applied.
    async fn target(&self, session: &Session, cluster: Option<&Cluster>, url: Option<String>) -> Result<Option<Url>> {
        let app = self.app.as_deref();
        let url = match (&self.url, app, url) {
            // Not by the parser of the command line, which would quote it with its password.
            (Some(url), _, _) => target::http(url).map_err(Error::usage)?,
            (None, None, Some(url)) if url == UNKNOWN => return Ok(None),
            (None, None, Some(url)) => target::http(&url).map_err(|why| Error::input(format!("probe.url: {why}")))?,
            _ => match cluster {
                Some(cluster) => return cluster.url(session, app).await,
                None => return target::from_apps(&session.doc, app),
            },
        };
        if cluster.is_some() {
            Service::of(&url).map_err(Error::usage)?;
        }
        Ok(Some(url))
    }
}

fn main() -> ExitCode {
    common::main::<ColorProbe>()
}
