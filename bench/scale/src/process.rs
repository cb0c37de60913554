//! Runs the controller and reads what the kernel counts of it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::PostParams};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Where the controller listens for Envoys, and where it shows its metrics and its state.
pub const XDS: &str = "127.0.0.1:15010";
const METRICS: &str = "127.0.0.1:18080";
const DEBUG: &str = "127.0.0.1:16060";
/// The Secret with its certificate.
const CERTIFICATE: &str = "scale-certificate";
/// Clock ticks a second, as /proc counts CPU time: Linux shows all user space 100.
const TICKS: f64 = 100.0;
/// How long it may take until the controller listens or has ended.
const PATIENCE: Duration = Duration::from_secs(300);

/// The controller, as it is run.
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Folder of its log.
    pub folder: PathBuf,
}

/// The controller, running.
pub struct Controller {
    child: Child,
    pid: u32,
    /// When it was started.
    pub since: Instant,
}

impl Program {
    /// Makes the Secret of the certificate of the webhook and of xDS; returns its authority.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn certify(secrets: &Api<Secret>) -> anyhow::Result<String> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &authority)?;
        let files = [("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.pem())];
        let secret = Secret {
            metadata: ObjectMeta { name: Some(CERTIFICATE.to_owned()), ..ObjectMeta::default() },
            string_data: Some(files.map(|(name, content)| (name.to_owned(), content)).into()),
            ..Secret::default()
        };
        secrets.create(&PostParams::default(), &secret).await.context("creating the certificate's Secret")?;
        Ok(authority.pem())
    }

    /// Starts it. It is the operator, so it may do all that its ClusterRole says.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self) -> anyhow::Result<Controller> {
        let log = File::options().create(true).append(true).open(self.folder.join("controller.log"))?;
        let child = Command::new(&self.path)
            .args(["--sidecar-image", "envoy", "--init-image", "capture", "--pod-name", "scale"])
            .args(["--namespace", "default", "--cluster-name", "c1"])
            .args(["--webhook-listen", "127.0.0.1:19443", "--xds-listen", XDS])
            .args(["--metrics-listen", METRICS, "--debug-listen", DEBUG])
            .args(["--certificate-secret", CERTIFICATE])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("running {}", self.path.display()))?;
        let pid = child.id().context("the controller ended at once")?;
        Ok(Controller { child, pid, since: Instant::now() })
    }
}

impl Controller {
    /// Waits until it accepts Envoys; returns how long after its start that was.
    ///
    /// # Errors
    /// It ends, or takes too long.
    pub async fn ready(&mut self) -> anyhow::Result<Duration> {
        while TcpStream::connect(XDS).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the controller ended: {status}");
            }
            ensure!(self.since.elapsed() < PATIENCE, "the controller is not ready");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(self.since.elapsed())
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let killed = Command::new("kill").arg(self.pid.to_string()).status().await?;
        ensure!(killed.success(), "the controller cannot be ended: {killed}");
        tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the controller does not end")??;
        Ok(())
    }

    /// CPU time so far, in seconds, to the hundredth.
    ///
    /// # Errors
    /// It is gone.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(self.proc("stat")).context("the controller is gone")?;
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        // The fields 14 and 15: user and system time.
        Ok((ticks(11).context("no user time")? + ticks(12).context("no system time")?) / TICKS)
    }

    /// Resident memory now and at most so far, in megabytes of a million bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let status = fs::read_to_string(self.proc("status")).context("the controller is gone")?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            kibibytes.map(|kibibytes| kibibytes * 1.024e-3).with_context(|| format!("no {name}"))
        };
        Ok((megabytes("VmRSS:")?, megabytes("VmHWM:")?))
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join(file)
    }
}

/// How many Envoys are connected and have acknowledged all that they are to have, as the controller sees it.
///
/// # Errors
/// It does not answer.
pub async fn current_streams() -> anyhow::Result<usize> {
    let streams: Vec<Value> = serde_json::from_str(&get(DEBUG, "/debug/sidecars").await?)?;
    let is_current = |stream: &&Value| {
        let mut kinds = stream["resources"].as_object().into_iter().flatten();
        let has_all = |(_, kind): (&String, &Value)| {
            kind["current"] != "" && kind["current"] == kind["sent"] && kind["current"] == kind["acknowledged"]
        };
        kinds.all(has_all)
    };
    Ok(streams.iter().filter(is_current).count())
}

async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.contains(" 200 "), "{path}: {head}");
    Ok(body.to_owned())
}
