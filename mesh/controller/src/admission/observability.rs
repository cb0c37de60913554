//! Options of what Envoys report: spans and statistics.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args};

use crate::envoy::{
    stats::{Stats, Statsd},
    tracing::{NODE_ADDRESS, Protocol, Tracing},
};

/// The chart's part of what Envoys report.
#[derive(Args, Clone, Debug)]
pub struct Observability {
    /// How Envoys report spans; absent: not at all
    #[arg(long = "tracing", value_name = "PROTOCOL", requires = "tracing_address")]
    protocol: Option<Protocol>,
    /// Name or address of the collector of spans; ref:status.hostIP is the pod's node
    #[arg(long, value_name = "HOST", default_value = "")]
    tracing_address: String,
    /// Port of the collector of spans
    #[arg(long, value_name = "PORT", default_value_t = 9411)]
    tracing_port: u16,
    /// Share of the requests that begin a trace, from 0 to 1
    #[arg(long = "tracing-sampling-rate", value_name = "SHARE", default_value = "1", value_parser = share)]
    sampling: u32,
    /// Whether statistics have the names of mesh and VirtualNode as tags
    #[arg(long, value_name = "true|false", default_value_t = false, action = ArgAction::Set)]
    stats_tags: bool,
    /// Whether statistics are sent to a DogStatsD server
    #[arg(long, value_name = "true|false", default_value_t = false, action = ArgAction::Set)]
    statsd: bool,
    /// Address of the DogStatsD server; ref:status.hostIP is the pod's node
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = statsd_address)]
    statsd_address: String,
    /// Port of the DogStatsD server
    #[arg(long, value_name = "PORT", default_value_t = 8125)]
    statsd_port: u16,
    /// Socket of the DogStatsD server, instead of address and port
    #[arg(long, value_name = "PATH", default_value = "")]
    statsd_socket_path: String,
}

impl Observability {
    /// Where spans go.
    pub fn tracing(&self) -> Option<Tracing> {
        self.protocol.map(|protocol| Tracing {
            protocol,
            host: self.tracing_address.clone(),
            port: self.tracing_port,
            sampling: self.sampling,
        })
    }

    /// What becomes of statistics.
    pub fn stats(&self) -> Stats {
        let address = || match self.statsd_address.parse::<IpAddr>() {
            Ok(ip) => Statsd::Address(ip, self.statsd_port),
            Err(_) => Statsd::Node(self.statsd_port),
        };
        let socket = Some(&self.statsd_socket_path).filter(|path| !path.is_empty());
        let sink = self.statsd.then(|| socket.map_or_else(address, |path| Statsd::Socket(path.clone())));
        Stats { tags: self.stats_tags, sink }
    }
}

/// A share from 0 to 1, in hundredths of a percent.
pub fn share(text: &str) -> anyhow::Result<u32> {
    let share: f64 = text.parse().context("not a number")?;
    ensure!((0.0..=1.0).contains(&share), "not from 0 to 1");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10 000")]
    Ok((share * 10_000.0).round() as u32)
}

/// Envoy sends statistics to an address and looks no name up for it.
fn statsd_address(text: &str) -> anyhow::Result<String> {
    ensure!(text == NODE_ADDRESS || text.parse::<IpAddr>().is_ok(), "neither an IP address nor {NODE_ADDRESS}");
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Chart {
        #[command(flatten)]
        observability: Observability,
    }

    fn parse(options: &[&str]) -> Result<Observability, String> {
        let parsed = Chart::try_parse_from([&["chart"], options].concat());
        parsed.map(|chart| chart.observability).map_err(|error| error.to_string())
    }

    #[test]
    fn spans_go_where_the_chart_says() {
        assert_eq!(parse(&[]).unwrap().tracing(), None);
        let options = ["--tracing=opentelemetry", "--tracing-address=otel.x", "--tracing-port=4317"];
        let tracing = |sampling| {
            Some(Tracing { protocol: Protocol::Opentelemetry, host: "otel.x".to_owned(), port: 4317, sampling })
        };
        for (rate, expected) in [(None, 10_000), (Some("0.05"), 500), (Some("0"), 0), (Some("0.0101"), 101)] {
            let rate = rate.map(|rate| format!("--tracing-sampling-rate={rate}"));
            let options: Vec<_> = options.into_iter().chain(rate.as_deref()).collect();
            assert_eq!(parse(&options).unwrap().tracing(), tracing(expected));
        }
        for rate in ["1.1", "-0.1", "NaN", "all"] {
            assert!(parse(&[&format!("--tracing-sampling-rate={rate}")]).is_err(), "{rate}");
        }
        assert!(parse(&["--tracing=zipkin"]).is_err(), "without an address");
    }

    #[test]
    fn statistics_go_where_the_chart_says() {
        let loopback = Statsd::Address([127, 0, 0, 1].into(), 8125);
        for (options, expected) in [
            (&[][..], Stats::default()),
            (&["--stats-tags=true"], Stats { tags: true, sink: None }),
            (&["--statsd=true"], Stats { tags: false, sink: Some(loopback) }),
            (
                &["--statsd=true", "--statsd-address=ref:status.hostIP", "--statsd-port=99"],
                Stats { tags: false, sink: Some(Statsd::Node(99)) },
            ),
            (
                &["--statsd=true", "--statsd-socket-path=/run/dsd.socket"],
                Stats { tags: false, sink: Some(Statsd::Socket("/run/dsd.socket".to_owned())) },
            ),
        ] {
            assert_eq!(parse(options).unwrap().stats(), expected, "{options:?}");
        }
        assert!(parse(&["--statsd-address=datadog.monitoring"]).is_err(), "a name");
    }
}
