//! What is redirected and what is not, as nftables chains: pure, nothing here asks the kernel.

use nlink::netlink::nftables::{
    BaseChain, Chain, CmpOp, Expr, Field, Match, MetaKey, NatHook, Priority, Register, Rule,
};

use crate::Capture;

/// The table that is ours; every other table is somebody else's.
pub const TABLE: &str = "appmesh";

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// `NFPROTO_IPV6` of linux/netfilter.h.
const NFPROTO_IPV6: u8 = 10;

/// A base chain of the table and its rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooked {
    /// The chain's name, which is also its hook's.
    pub name: &'static str,
    /// Where the kernel calls it.
    pub hook: NatHook,
    /// What it does, first match first.
    pub rules: Vec<Rule>,
}

impl Hooked {
    /// The chain as netlink takes it, without its rules.
    pub fn chain(&self) -> nlink::Result<Chain> {
        // Both hooks rewrite the destination, so both have its priority, -100, as nft's dstnat.
        let base = BaseChain::nat(self.hook, Priority::DstNat);
        Ok(Chain::new(TABLE, self.name)?.base(base))
    }
}

/// The chains of the table, in the inet family: one set of rules for IPv4 and IPv6.
pub fn chains(capture: &Capture) -> Vec<Hooked> {
    vec![
        Hooked { name: "prerouting", hook: NatHook::Prerouting, rules: ingress(capture) },
        Hooked { name: "output", hook: NatHook::Output, rules: egress(capture) },
    ]
}

fn ingress(capture: &Capture) -> Vec<Rule> {
    let rule = || Rule::new(TABLE, "prerouting");
    let mut rules = vec![rule().match_iif("lo").accept()];
    rules.extend(leave_ipv6(capture, rule()));
    rules.extend(
        capture
            .app_ports
            .0
            .iter()
            .map(|port| rule().match_tcp_dport(port.get()).redirect(Some(capture.envoy_ingress_port))),
    );
    rules
}

fn egress(capture: &Capture) -> Vec<Rule> {
    let rule = || Rule::new(TABLE, "output");
    // What comes to Envoy's own port without having been redirected it would pass on to where it was going: to itself, again
    // and again. At its other port nothing takes it.
    let to_itself = sent_by(capture.ignore_uid, rule().match_oif("lo")).match_tcp_dport(capture.envoy_egress_port);
    let mut rules = vec![to_itself.redirect(Some(capture.envoy_ingress_port))];
    // The route is known here, and the pod's own addresses leave through lo as 127.0.0.1 does.
    rules.extend([rule().match_oif("lo").accept(), sent_by(capture.ignore_uid, rule()).accept()]);
    rules.extend(leave_ipv6(capture, rule()));
    let addresses = capture.egress_ignored_ip.0.iter();
    rules.extend(addresses.map(|net| rule().match_daddr(net.addr(), net.prefix_len()).accept()));
    let ports = capture.egress_ignored_ports.0.iter();
    rules.extend(ports.map(|port| rule().match_tcp_dport(port.get()).accept()));
    rules.push(rule().match_l4proto(TCP).redirect(Some(capture.envoy_egress_port)));
    rules
}

fn leave_ipv6(capture: &Capture, rule: Rule) -> Option<Rule> {
    (!capture.enable_ipv6).then(|| rule.then(Match::eq(Field::NfProto, NFPROTO_IPV6)).accept())
}

/// `meta skuid UID`: the owner of the socket. nlink has the expressions, not the match.
fn sent_by(uid: u32, rule: Rule) -> Rule {
    rule.expr(Expr::Meta { dreg: Register::R0, key: MetaKey::SkUid }).expr(Expr::Cmp {
        sreg: Register::R0,
        op: CmpOp::Eq,
        data: uid.to_ne_bytes().to_vec(),
    })
}

/// One line that says what stands now, for `kubectl logs POD -c proxyinit`.
pub fn summary(capture: &Capture) -> String {
    let or_none = |list: String| if list.is_empty() { "none".into() } else { list };
    format!(
        "{} redirected: in on ports {} to {}, out to {} except uid {}, addresses {}, ports {}",
        if capture.enable_ipv6 { "IPv4 and IPv6" } else { "IPv4" },
        or_none(capture.app_ports.to_string()),
        capture.envoy_ingress_port,
        capture.envoy_egress_port,
        capture.ignore_uid,
        or_none(capture.egress_ignored_ip.to_string()),
        or_none(capture.egress_ignored_ports.to_string()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that can't read its own table must fail")]

    use super::*;
    use clap::Parser as _;

    fn capture(args: &[&str]) -> Capture {
        Capture::try_parse_from([&["capture", "--start-enabled=1"], args].concat()).unwrap()
    }

    /// The rules as `nft list table inet appmesh` prints them.
    fn syntax(rules: &[Rule]) -> Vec<String> {
        rules.iter().map(|rule| rule.nft_syntax().unwrap()).collect()
    }

    #[test]
    fn ingress_takes_the_application_ports() {
        for (args, expected) in [
            (
                &["--app-ports=8080,8443", "--enable-ipv6=1"][..],
                &["iifname \"lo\" accept", "tcp dport 8080 redirect to :15000", "tcp dport 8443 redirect to :15000"][..],
            ),
            (
                &["--app-ports=8080", "--envoy-ingress-port=8000"],
                &["iifname \"lo\" accept", "meta nfproto ipv6 accept", "tcp dport 8080 redirect to :8000"],
            ),
            (&["--app-ports=", "--enable-ipv6=1"], &["iifname \"lo\" accept"]),
        ] {
            assert_eq!(syntax(&ingress(&capture(args))), expected, "{args:?}");
        }
    }

    #[test]
    fn egress_takes_all_but_the_exempt() {
        for (args, expected) in [
            (
                &[
                    "--egress-ignored-ip=169.254.169.254,10.0.0.0/8,fd00:ec2::254",
                    "--egress-ignored-ports=22,25",
                    "--enable-ipv6=1",
                ][..],
                &[
                    "oifname \"lo\" meta skuid 1337 tcp dport 15001 redirect to :15000",
                    "oifname \"lo\" accept",
                    "meta skuid 1337 accept",
                    "ip daddr 169.254.169.254 accept",
                    "ip daddr 10.0.0.0/8 accept",
                    "ip6 daddr fd00:ec2::254 accept",
                    "tcp dport 22 accept",
                    "tcp dport 25 accept",
                    "meta l4proto tcp redirect to :15001",
                ][..],
            ),
            (
                &["--ignore-uid=70000", "--envoy-egress-port=8001"],
                &[
                    "oifname \"lo\" meta skuid 70000 tcp dport 8001 redirect to :15000",
                    "oifname \"lo\" accept",
                    "meta skuid 70000 accept",
                    "meta nfproto ipv6 accept",
                    "meta l4proto tcp redirect to :8001",
                ],
            ),
        ] {
            assert_eq!(syntax(&egress(&capture(args))), expected, "{args:?}");
        }
    }

    #[test]
    fn both_chains_have_their_hook() {
        let chains = chains(&capture(&[]));
        let hooks: Vec<_> = chains.iter().map(|chain| (chain.name, chain.hook)).collect();
        assert_eq!(hooks, [("prerouting", NatHook::Prerouting), ("output", NatHook::Output)]);
        assert!(chains.iter().all(|chain| chain.chain().is_ok()));
    }

    #[test]
    fn the_summary_tells_what_is_exempt() {
        assert_eq!(
            summary(&capture(&["--app-ports=8080", "--egress-ignored-ip=169.254.169.254"])),
            "IPv4 redirected: in on ports 8080 to 15000, out to 15001 except uid 1337, \
             addresses 169.254.169.254/32, ports none"
        );
    }

    #[test]
    fn a_variable_that_does_not_read_is_named() {
        for (arg, reason) in [
            ("--app-ports=80,x", "\"x\" is not a port"),
            ("--egress-ignored-ip=metadata", "\"metadata\" is not an IP address"),
            ("--envoy-ingress-port=0", "0 is not in 1..=65535"),
            ("--start-enabled=maybe", "invalid value 'maybe'"),
        ] {
            let error = Capture::try_parse_from(["capture", arg]).unwrap_err().to_string();
            assert!(error.contains(reason), "{arg}: {error}");
        }
    }
}
