//! Options of what the controller's servers accept: versions of TLS and cipher suites, by the names of Go's crypto/tls.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use rustls::{
    ConfigBuilder, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion, WantsVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

/// What the webhook and the server of Envoys' configuration accept.
#[derive(Args, Clone, Debug, Default)]
pub struct Policy {
    /// Lowest version of TLS
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12")]
    tls_min_version: Version,
    /// Cipher suites, by the names of Go's crypto/tls; absent: all that are safe
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = suite)]
    tls_cipher_suite: Vec<SupportedCipherSuite>,
}

/// A version of TLS, by Go's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Version {
    #[default]
    #[value(name = "VersionTLS12")]
    Tls12,
    #[value(name = "VersionTLS13")]
    Tls13,
}

impl Policy {
    /// Begins the configuration of a server.
    ///
    /// # Errors
    /// No cipher suite is left for a version.
    pub(super) fn builder(&self) -> anyhow::Result<ConfigBuilder<ServerConfig, WantsVerifier>> {
        let mut provider = aws_lc_rs::default_provider();
        if !self.tls_cipher_suite.is_empty() {
            provider.cipher_suites.clone_from(&self.tls_cipher_suite);
        }
        let versions: &[&SupportedProtocolVersion] = match self.tls_min_version {
            Version::Tls12 => &[&TLS13, &TLS12],
            Version::Tls13 => &[&TLS13],
        };
        let usable: Vec<_> = versions.iter().copied().filter(|version| has_suite(&provider, version)).collect();
        ensure!(!usable.is_empty(), "none of the cipher suites is of an accepted version of TLS");
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        builder.with_protocol_versions(&usable).context("choosing versions of TLS")
    }
}

fn has_suite(provider: &CryptoProvider, version: &SupportedProtocolVersion) -> bool {
    provider.cipher_suites.iter().any(|suite| suite.version() == version)
}

fn suite(name: &str) -> anyhow::Result<SupportedCipherSuite> {
    let known = || aws_lc_rs::ALL_CIPHER_SUITES.iter();
    let found = known().find(|suite| go_name(suite) == name || go_name(suite) == format!("{name}_SHA256"));
    let names = || known().map(go_name).collect::<Vec<_>>().join(", ");
    found.copied().with_context(|| format!("no safe cipher suite; these are: {}", names()))
}

/// Go's name of a cipher suite: those of TLS 1.3 have no version in it.
fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        policy: Policy,
    }

    #[test]
    fn names_are_those_of_go() {
        let suites = |policy: &Policy| policy.tls_cipher_suite.iter().map(go_name).collect::<Vec<_>>();
        for (options, expected) in [
            (&[][..], Some(&[][..])),
            (
                &["--tls-cipher-suite=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
                Some(&["TLS_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]),
            ),
            // Go's older name.
            (
                &["--tls-cipher-suite=TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"],
                Some(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"]),
            ),
            (&["--tls-cipher-suite=TLS_RSA_WITH_RC4_128_SHA"], None),
            (&["--tls-min-version=VersionTLS13"], Some(&[])),
            (&["--tls-min-version=VersionTLS10"], None),
        ] {
            let parsed = Options::try_parse_from([&["x"], options].concat()).ok();
            let parsed = parsed.map(|options| suites(&options.policy));
            assert_eq!(
                parsed.as_deref(),
                expected.map(|names| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{options:?}"
            );
        }
    }

    #[test]
    fn a_policy_that_accepts_nothing_is_refused() {
        for (options, accepts) in [
            (&["--tls-min-version=VersionTLS13"][..], true),
            (&["--tls-cipher-suite=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], true),
            (&["--tls-cipher-suite=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--tls-min-version=VersionTLS13"], false),
        ] {
            let policy = Options::try_parse_from([&["x"], options].concat()).unwrap().policy;
            assert_eq!(policy.builder().is_ok(), accepts, "{options:?}");
        }
    }
}
