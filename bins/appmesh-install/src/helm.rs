//! The helm binary, one function each.

use crate::chart::{self, Chart, Files};
use crate::folder;
use crate::plan::Target;
use crate::release::{OWNER, description};
use anyhow::{Context, Result};
use common::helm::{self, ASK_VERSION, OLDEST, version as parse};
use common::kube::Access;
use common::{Error, Session};
use serde_json::{Map, Value};
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The first Helm with `--take-ownership`.
const TAKES_OWNERSHIP: (u32, u32) = (3, 17);
/// The first Helm that applies server-side.
const APPLIES_SERVER_SIDE: (u32, u32) = (4, 0);
/// Of Helm's own variables, those that say where charts, logins and plugins are. The others would lead it to another cluster,
/// namespace or kind of release than the document's.
const HEARD: [&str; 7] = [
    "HELM_CACHE_HOME",
    "HELM_CONFIG_HOME",
    "HELM_DATA_HOME",
    "HELM_PLUGINS",
    "HELM_REGISTRY_CONFIG",
    "HELM_REPOSITORY_CACHE",
    "HELM_REPOSITORY_CONFIG",
];
/// What is left to end in order when Helm has given up waiting.
const GRACE: Duration = Duration::from_secs(2);

/// Where a chart comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// A packaged chart.
    Tarball(PathBuf),
    /// `oci://…`, with the version unless the reference has a tag.
    Registry { reference: String, version: Option<String> },
    /// A chart repository.
    Repository { url: String, name: String, version: String },
}

/// What `helm upgrade --install` is to do.
pub struct Upgrade<'a> {
    /// The release and its namespace.
    pub target: &'a Target,
    /// The chart.
    pub chart: &'a Chart,
    /// All values but the chart's defaults.
    pub values: &'a Map<String, Value>,
    /// Take over objects that exist and belong to no release, or to another.
    pub adopt: bool,
    /// Set fields that other managers hold.
    pub force: bool,
}

/// Helm, pointed at one cluster. What it needs in files is in a folder that goes away with it.
pub struct Helm {
    cluster: Vec<OsString>,
    folder: TempDir,
    until: Instant,
    version: OnceCell<(u32, u32)>,
}

impl Helm {
    /// Points Helm at the cluster: at the user's kubeconfig, or at one of its own that holds a token of 15 minutes and that
    /// nobody else can read.
    ///
    /// # Errors
    /// The cluster's token cannot be made.
    pub fn new(session: &Session, access: &Access) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("appmesh-install-").tempdir().context("make a temporary folder")?;
        let mut cluster: Vec<OsString> = Vec::new();
        match access {
            Access::Kubeconfig(flags) => {
                if let Some(file) = &flags.kubeconfig {
                    cluster.extend(["--kubeconfig".into(), file.into()]);
                }
                if let Some(context) = &flags.context {
                    cluster.extend(["--kube-context".into(), context.into()]);
                }
            }
            Access::Eks(eks) => {
                let file = folder.path().join("kubeconfig");
                write(&file, eks.kubeconfig()?.to_string().as_bytes())?;
                cluster.extend(["--kubeconfig".into(), file.into()]);
            }
        }
        let until = Instant::now() + session.remaining();
        Ok(Self { cluster, folder, until, version: OnceCell::new() })
    }

    /// Major and minor of this Helm, which is asked once.
    ///
    /// # Errors
    /// It is too old, or does not say.
    pub async fn version(&self) -> Result<(u32, u32)> {
        let ask = async || {
            let version = self.run("version", ASK_VERSION, &[]).await?;
            let found = parse(&version).filter(|found| *found >= OLDEST);
            let too_old = || Error::failed(format!("helm {} is too old", version.trim())).hint(hint());
            found.ok_or_else(|| too_old().into())
        };
        self.version.get_or_try_init(ask).await.copied()
    }

    /// The chart. Helm is needed for what lies elsewhere.
    ///
    /// # Errors
    /// There is no such chart, or it is not one; Helm is not in PATH, or too old.
    pub async fn fetch(&self, source: &Source) -> Result<Chart> {
        let (chart, files) = match source {
            Source::Folder(path) => (path.clone(), folder::read(path)?),
            Source::Tarball(file) => (file.clone(), unpacked(file)?),
            Source::Registry { reference, version } => {
                let version = version.as_deref().map(|version| ["--version", version]);
                let file = self.pull(version.as_slice().as_flattened(), reference).await?;
                (reference.into(), unpacked(&file)?)
            }
            Source::Repository { url, name, version } => {
                let file = self.pull(&["--repo", url, "--version", version], name).await?;
                (name.into(), unpacked(&file)?)
            }
        };
        Chart::read(files).with_context(|| format!("read the chart {}", chart.display()))
    }

    /// The archive that `helm pull` leaves.
    async fn pull(&self, flags: &[&str], chart: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join("chart");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let flags = ["pull"].iter().chain(flags).map(OsStr::new).chain(["-d".as_ref(), folder.as_os_str()]);
        let pulled = self.run("pull", flags, &[chart.as_ref()]).await;
        if pulled.is_err() {
            // One that is too old may fail in any way.
            self.version().await?;
        }
        pulled?;
        only_file(&folder)
    }

    /// `helm upgrade --install` with exactly these values. It waits for hooks only: whether the controller answers is
    /// asked of the controller.
    ///
    /// # Errors
    /// Helm's own words; [`Kind::Conflict`](common::Kind::Conflict) for what it refuses to take over.
    pub async fn upgrade(&self, upgrade: &Upgrade<'_>) -> Result<()> {
        let Upgrade { target: Target { release, namespace, .. }, chart, values, adopt, force } = upgrade;
        let file = self.folder.path().join("values.json");
        write(&file, &serde_json::to_vec(values)?)?;
        let archive = self.folder.path().join("chart.tgz");
        write(&archive, &chart.pack()?)?;
        let labels = format!("{}={}", OWNER.0, OWNER.1);
        let description = description(chart);
        let (timeout, version) = (self.timeout(), self.version().await?);
        let mut flags =
            vec!["--install", "--skip-crds", "--reset-values", "--namespace", namespace, "--labels", &labels];
        flags.extend(["--description", &description, "--timeout", &timeout]);
        flags.extend((*adopt && version >= TAKES_OWNERSHIP).then_some("--take-ownership"));
        // Helm would fetch the API server's whole schema, only to find what applying server-side finds as well.
        flags.extend((version >= APPLIES_SERVER_SIDE).then_some("--disable-openapi-validation"));
        if *force && version >= APPLIES_SERVER_SIDE {
            flags.extend(["--server-side=true", "--force-conflicts"]);
        }
        let flags = ["upgrade"].into_iter().chain(flags).chain(["--values"]).map(OsStr::new);
        let flags = flags.chain([file.as_os_str()]).chain(self.cluster());
        match self.run(&format!("upgrade {release}"), flags, &[release.as_ref(), archive.as_ref()]).await {
            // Whether the other run does what this one would, the next look tells.
            Err(error) if is_at_work(&error) => Ok(()),
            done => done.map(drop),
        }
    }

    /// `helm uninstall`; succeeds when there is no such release.
    ///
    /// # Errors
    /// Helm's own words.
    pub async fn uninstall(&self, release: &str, namespace: &str) -> Result<()> {
        let timeout = self.timeout();
        let flags = ["uninstall", "--ignore-not-found", "--cascade", "foreground", "--namespace", namespace];
        let flags = flags.into_iter().chain(["--timeout", &timeout]).map(OsStr::new);
        self.run(&format!("uninstall {release}"), flags.chain(self.cluster()), &[release.as_ref()]).await.map(drop)
    }

    /// How long Helm may wait, so that it gives up in order before it is ended.
    fn timeout(&self) -> String {
        let left = self.until.saturating_duration_since(Instant::now()).saturating_sub(GRACE);
        format!("{}s", left.as_secs().max(1))
    }

    /// The flags that point at the cluster.
    fn cluster(&self) -> impl Iterator<Item = &OsStr> {
        self.cluster.iter().map(OsString::as_os_str)
    }

    /// `named` are names from the document, which must not become flags.
    async fn run<A: AsRef<OsStr>>(
        &self,
        what: &str,
        flags: impl IntoIterator<Item = A>,
        named: &[&OsStr],
    ) -> Result<String> {
        let mut command = helm::command();
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HELM_") && !HEARD.contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        command.args(flags).arg("--").args(named);
        let late = || Error::retry("not done in time").hint("run it again, or give it more time with --timeout");
        let output = tokio::time::timeout_at(self.until.into(), command.output()).await;
        let output = output.map_err(|_| late()).with_context(|| format!("helm {what}"))?;
        let output = output.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::failed("helm is not in PATH").hint(hint()),
            _ => Error::failed(format!("run helm: {error}")),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = said(&String::from_utf8_lossy(&output.stderr));
        let error = match output.status.signal() {
            Some(signal) => {
                Error::retry(format!("helm was ended by signal {signal}")).hint("run it again: it recovers")
            }
            None => classified(said),
        };
        Err(error).with_context(|| format!("helm {what}"))
    }
}

/// Whether another run of Helm is at work on the release.
fn is_at_work(error: &anyhow::Error) -> bool {
    let signs = [
        "another operation (install/upgrade/rollback) is in progress",
        "release: already exists",
        "name that is still in use",
    ];
    error.chain().any(|cause| signs.iter().any(|sign| cause.to_string().contains(sign)))
}

/// Helm's words with what a caller can do about them.
fn classified(said: String) -> Error {
    let says = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    if says(&["cannot be imported into the current release", "conflict occurred while applying"]) {
        let (major, minor) = TAKES_OWNERSHIP;
        return Error::conflict(said).hint(format!("--adopt takes them over, with Helm {major}.{minor} or newer"));
    }
    let later = ["connection refused", "i/o timeout", "deadline exceeded", "TLS handshake timeout", "no such host"];
    if says(&later) || says(&["timed out", "another operation"]) { Error::retry(said) } else { Error::failed(said) }
}

fn hint() -> String {
    format!("install Helm {}.{} or newer, or 4: https://helm.sh/docs/intro/install", OLDEST.0, OLDEST.1)
}

/// Helm's error, from its `Error:` on, without the warnings before it.
fn said(stderr: &str) -> String {
    let text = stderr.rsplit_once("Error: ").map_or(stderr, |(_, error)| error);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it failed without a word".to_owned() } else { lines.join("; ") }
}

/// A new file that only its owner can read.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(content));
    written.with_context(|| format!("write {}", path.display()))
}

fn unpacked(archive: &Path) -> Result<Files> {
    let described = || format!("read {}", archive.display());
    chart::unpack(std::fs::File::open(archive).with_context(described)?).with_context(described)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let mut files = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let file = files.next().context("helm left no chart")?.context("read what helm left")?;
    Ok(file.path())
}

/// The Helm to compare with. `None` where there is none, which it tells.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
pub fn of_tests() -> Option<OsString> {
    let named = std::env::var_os("HELM");
    let helm = named.clone().unwrap_or_else(|| "helm".into());
    match std::process::Command::new(&helm).arg("version").output() {
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
            let untested = "not tested: there is no helm in PATH, and HELM names none, as `make test` does";
            writeln!(std::io::stderr(), "{untested}").unwrap();
            return None;
        }
        said => drop(said.unwrap()),
    }
    Some(helm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Kind;

    #[test]
    fn what_helm_refuses_is_a_conflict_and_what_may_pass_is_not_a_failure() {
        for (said, expected) in [
            (
                "ClusterRole \"a\" in namespace \"\" exists and cannot be imported into the current release: …",
                Kind::Conflict,
            ),
            ("conflict occurred while applying object a/b apps/v1, Kind=Deployment: …", Kind::Conflict),
            ("failed pre-install: 1 error occurred: timed out waiting for the condition", Kind::Retry),
            ("another operation (install/upgrade/rollback) is in progress", Kind::Retry),
            ("Kubernetes cluster unreachable: dial tcp: connection refused", Kind::Retry),
            ("image.repository is missing: push the image and name it", Kind::Failed),
        ] {
            assert_eq!(classified(said.to_owned()).kind, expected, "{said}");
        }
    }

    #[test]
    fn what_helm_said_is_quoted_without_its_warnings() {
        let stderr = "level=WARN msg=\"group-readable\"\nError: UPGRADE FAILED: a\n  * b\n";
        assert_eq!(said(stderr), "UPGRADE FAILED: a; * b");
        assert_eq!(said("boom\n"), "boom");
        assert_eq!(said(""), "it failed without a word");
    }
}
