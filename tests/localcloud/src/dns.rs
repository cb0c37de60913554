//! DNS of the region, and of each cluster, as CoreDNS configurations.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::cloud::{ELSEWHERE, REGION as HERE};
use crate::network::{REGION, ROUTER, SERVICES};

/// Names of the internet that have a stand-in here, besides `amazonaws.com`.
const HOSTS: [&str; 5] = ["aws.github.io", "docker.io", "registry-1.docker.io", "auth.docker.io", "registry.k8s.io"];

/// Port of the server that knows no name.
const NOTHING: u16 = 5353;

/// The region's resolver: every AWS name without a region, or with one that there is, is the gateway's address, load
/// balancers are in `hosts`, instances say their address in their name, and nothing else exists. Separate servers because CoreDNS asks `template` before `hosts`, and
/// one that knows nothing, as a name that `hosts` lacks would be a failure otherwise and not a name that does not exist.
pub fn region(hosts: &Path) -> String {
    let public = HOSTS.map(|name| {
        let exactly = name.replace('.', "[.]");
        format!(
            r#"  template IN A {name} {{
    match "^{exactly}[.]$"
    answer "{{{{ .Name }}}} 60 IN A {REGION}"
    fallthrough
  }}
"#
        )
    });
    format!(
        r#"elb.amazonaws.com:53 {{
  bind {REGION}
  hosts {hosts} {{
    reload 1s
    ttl 5
    fallthrough
  }}
  forward . {REGION}:{NOTHING}
}}
.:{NOTHING} {{
  bind {REGION}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
compute.internal:53 {{
  bind {REGION}
  template IN A compute.internal {{
    match "^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)-(?P<c>[0-9]+)-(?P<d>[0-9]+)[.]"
    answer "{{{{ .Name }}}} 60 IN A {{{{ .Group.a }}}}.{{{{ .Group.b }}}}.{{{{ .Group.c }}}}.{{{{ .Group.d }}}}"
  }}
  template ANY ANY {{
    rcode NOERROR
  }}
}}
amazonaws.com:53 {{
  bind {REGION}
  template IN A amazonaws.com {{
    match "{aws}"
    answer "{{{{ .Name }}}} 60 IN A {REGION}"
    fallthrough
  }}
  template ANY ANY {{
    match "{aws}"
    rcode NOERROR
    fallthrough
  }}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
.:53 {{
  bind {REGION}
{public}  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"#,
        hosts = hosts.display(),
        aws = format_args!("^([^.]+|.+[.]({HERE}|{ELSEWHERE}))[.]amazonaws[.]com[.]$"),
        public = public.concat(),
    )
}

/// A cluster's resolver, on its node: Services and pods, and the region for everything else. It caches nothing of the
/// region, where a load balancer's name appears late.
pub fn cluster(node: Ipv4Addr, kubeconfig: &Path) -> String {
    let reverse = SERVICES.split('/').next().unwrap_or_default();
    format!(
        r#".:53 {{
  bind {node}
  kubernetes cluster.local {reverse}/16 {{
    kubeconfig {kubeconfig}
    pods insecure
  }}
  forward . {REGION}
}}
"#,
        kubeconfig = kubeconfig.display(),
    )
}

/// `/etc/resolv.conf` of the region and of the nodes.
pub fn resolv_conf() -> String {
    debug_assert_ne!(REGION, ROUTER, "the resolver is the network's address plus two");
    format!("nameserver {REGION}\noptions timeout:2 attempts:3\n")
}

/// One line of the load balancers' hosts file.
pub fn host(address: Ipv4Addr, name: &str) -> String {
    format!("{address} {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_balancers_have_a_server_of_their_own() {
        let corefile = region(Path::new("/state/hosts"));
        assert!(corefile.contains("elb.amazonaws.com:53 {\n  bind 10.0.0.2\n  hosts /state/hosts {"), "{corefile}");
        let server = corefile.split(".:5353 {").next().unwrap_or_default();
        assert!(!server.contains("template"), "an answer of a template would hide the hosts file: {server}");
    }

    #[test]
    fn a_region_that_there_is_not_has_no_names() {
        let corefile = region(Path::new("/state/hosts"));
        let (_, aws) = corefile.split_once("amazonaws.com:53 {\n  bind 10.0.0.2\n  template IN A").unwrap_or_default();
        let names = r#"match "^([^.]+|.+[.](us-west-2|eu-west-1))[.]amazonaws[.]com[.]$""#;
        assert_eq!(aws.matches(names).count(), 2, "{aws}");
        assert!(aws.split("\n}").next().is_some_and(|aws| aws.ends_with("rcode NXDOMAIN\n  }")), "{aws}");
    }

    #[test]
    fn aws_names_are_the_gateway_and_unknown_names_do_not_exist() {
        let corefile = region(Path::new("/state/hosts"));
        assert!(corefile.contains(r#"answer "{{ .Name }} 60 IN A 10.0.0.2""#), "{corefile}");
        assert!(corefile.contains(r#"match "^registry-1[.]docker[.]io[.]$""#), "{corefile}");
        assert!(corefile.trim_end().ends_with("rcode NXDOMAIN\n  }\n}"), "{corefile}");
    }

    #[test]
    fn a_cluster_asks_the_region_for_what_it_does_not_know() {
        let corefile = cluster(Ipv4Addr::new(10, 0, 1, 4), Path::new("/state/c1/coredns.kubeconfig"));
        assert!(corefile.contains("kubeconfig /state/c1/coredns.kubeconfig\n"), "{corefile}");
        assert!(corefile.contains("forward . 10.0.0.2"), "{corefile}");
    }
}
