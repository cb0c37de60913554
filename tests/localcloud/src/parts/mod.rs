//! The real programs a local cloud is made of: pinned, got once, and kept in a cache.
//!
//! A machine needs only the toolchains (Rust, Python 3, Go or a Python that can install it) and Debian's packages, which are
//! installed when this runs as root. Kubernetes is downloaded as it is released; where that cannot be had it is built, as the
//! other programs are. Every part lies in a folder named after a hash of its pins, so a bumped version rebuilds that part
//! alone, and what is there is found without looking inside. Registries, mirrors and proxies are whatever `go`, `pip`,
//! `apt-get` and the environment are configured for.

mod cache;
mod command;
mod debian;
mod golang;
mod image;
mod pins;
mod python;
mod released;

use std::path::{Path, PathBuf};
use std::{fs, ptr};

use anyhow::{Context, Result};

use cache::Cache;

/// Where the parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// etcd, the kube-* programs, kubelet, kubectl, helm, coredns, aws-iam-authenticator, ecr-credential-provider, containerd
    /// with its shim and ctr, pause and envoy.
    pub bin: PathBuf,
    /// `bin` folder of the Python environment of the AWS side.
    pub python: PathBuf,
    /// `pause.tar` and `envoy.tar`, each an OCI layout and a docker archive at once.
    pub images: PathBuf,
}

/// Gets what is missing below `cache` and says where everything is; `tell` hears a line about each step that takes time.
///
/// Safe to run twice at once: the second waits for the first. An error quotes the end of the failing tool's output and
/// names its log.
pub async fn ensure(cache: &Path, tell: &dyn Fn(&str)) -> Result<Parts> {
    debian::ensure(tell)?;
    let cache = Cache::open(&cache.join("parts"))?;
    let plan = Plan::new(&cache);
    if !plan.is_done() {
        let _lock = cache.lock(tell)?;
        plan.run(&cache, tell).await?;
    }
    Ok(plan.parts())
}

/// Every part's place, in the order in which they are made: each needs only those before it.
struct Plan {
    python: PathBuf,
    programs: Vec<(&'static pins::Program, PathBuf)>,
    bin: PathBuf,
    images: PathBuf,
}

impl Plan {
    fn new(cache: &Cache) -> Self {
        let python = cache.place("python", &[pins::REQUIREMENTS]);
        let programs: Vec<_> =
            pins::PROGRAMS.iter().map(|program| (program, cache.place(program.name, &program.identity()))).collect();
        let places = programs.iter().map(|(_, place)| place).chain([&python]);
        let places: Vec<String> = places.map(|place| place.display().to_string()).collect();
        let bin = cache.place("bin", &places.iter().map(String::as_str).collect::<Vec<_>>());
        let images = cache.place("images", &[pins::REQUIREMENTS, &pins::PAUSE.identity().concat(), image::FORMAT]);
        Self { python, programs, bin, images }
    }

    /// `bin` and `images` are made last, of all the others.
    fn is_done(&self) -> bool {
        self.images.exists() && self.bin.exists() && python::is_done(&self.python)
    }

    async fn run(&self, cache: &Cache, tell: &dyn Fn(&str)) -> Result<()> {
        if !python::is_done(&self.python) {
            tell("installing the Python environment of the AWS side");
            python::install(cache, &self.python, tell)?;
        }
        self.download(cache, tell).await;
        let missing = self.missing();
        if !missing.is_empty() {
            let go = golang::find(cache, &self.python, tell)?;
            for (number, (program, place)) in missing.iter().enumerate() {
                let version = program.version().map(|version| format!(" {version}")).unwrap_or_default();
                tell(&format!("building {}{version} ({} of {})", program.name, number + 1, missing.len()));
                golang::build(cache, &go, program, place)?;
            }
        }
        cache.publish(&self.bin, |folder| self.gather(folder))?;
        if !self.images.exists() {
            tell("packing the images pause and envoy");
        }
        cache.publish(&self.images, |folder| image::pack_all(&self.bin, &self.python, folder))
    }

    fn missing(&self) -> Vec<(&'static pins::Program, &PathBuf)> {
        let programs = self.programs.iter().map(|(program, place)| (*program, place));
        programs.filter(|(_, place)| !place.exists()).collect()
    }

    /// Gets what is released for this machine. What cannot be had is told, and built later.
    async fn download(&self, cache: &Cache, tell: &dyn Fn(&str)) {
        let missing = self.missing();
        for programs in missing.chunk_by(|(one, _), (other, _)| ptr::eq(one.module, other.module)) {
            let Some((first, archive)) =
                programs.first().and_then(|(first, _)| Some((first, first.module.released_here()?)))
            else {
                continue;
            };
            if let Err(error) = released::get(cache, archive, programs, tell).await {
                let version = first.version().unwrap_or_default();
                let why = error.root_cause();
                tell(&format!("{} {version} cannot be downloaded, so it is built: {why}", first.of));
            }
        }
    }

    /// One folder with every program, as hard links: kubelet looks for its credential provider in a folder.
    fn gather(&self, folder: &Path) -> Result<()> {
        let programs = self.programs.iter().map(|(program, place)| (program.name, place.join(program.name)));
        for (name, from) in programs.chain([("envoy", python::envoy(&self.python)?)]) {
            let to = folder.join(name);
            fs::hard_link(&from, &to)
                .or_else(|_| fs::copy(&from, &to).map(drop))
                .with_context(|| format!("linking {}", from.display()))?;
        }
        Ok(())
    }

    fn parts(&self) -> Parts {
        Parts { bin: self.bin.clone(), python: self.python.join("bin"), images: self.images.clone() }
    }
}
