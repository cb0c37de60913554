//! Reads a kubeconfig as kubectl does.

use super::KubeFlags;
use crate::Error;
use crate::proxy::{Proxies, Proxy};
use anyhow::{Context, Result};
use kube::Config;
use kube::client::AuthError;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig};
use std::env;
use std::path::{Path, PathBuf};

/// What the files that a person keeps say about one context: how to reach the cluster, and through what.
pub(super) async fn load(flags: &KubeFlags) -> Result<(Config, Proxies)> {
    let kubeconfig = read(flags.kubeconfig.as_deref())?;
    let context = choose(&kubeconfig, flags.context.as_deref())?;
    let proxies = match cluster(&kubeconfig, &context).and_then(|cluster| cluster.proxy_url.as_deref()) {
        Some(url) if !url.is_empty() => {
            let proxy = Proxy::parse(url);
            Proxies::one(proxy.map_err(|why| Error::failed(format!("proxy-url of context {context}: {why}")))?)
        }
        _ => Proxies::from_environment()?,
    };
    let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Ok((config.context("use the kubeconfig")?, proxies))
}

/// The file of the flag, else what is there of `KUBECONFIG`'s list, else `~/.kube/config`.
fn read(flag: Option<&Path>) -> Result<Kubeconfig> {
    if let Some(file) = flag {
        return Kubeconfig::read_from(file).with_context(|| format!("read {}", file.display()));
    }
    let files = files(env::var_os("KUBECONFIG").map(|list| env::split_paths(&list).collect()).unwrap_or_default());
    let mut merged: Option<Kubeconfig> = None;
    // As kubectl: the list may name files that are yet to be made.
    for file in files.iter().filter(|file| file.exists()) {
        let more = Kubeconfig::read_from(file).with_context(|| format!("read {}", file.display()))?;
        let all = merged.unwrap_or_default().merge(more);
        merged = Some(all.with_context(|| format!("add {} to the kubeconfigs before it", file.display()))?);
    }
    merged.ok_or_else(|| {
        let named = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
        Error::failed(format!("there is no kubeconfig: {named}")).hint("give --kubeconfig").into()
    })
}

/// Not by the C library's idea of a home: kubectl hears the variable alone.
fn files(listed: Vec<PathBuf>) -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = listed.into_iter().filter(|file| !file.as_os_str().is_empty()).collect();
    if listed.is_empty() {
        return vec![Path::new(&env::var_os("HOME").unwrap_or_default()).join(".kube/config")];
    }
    listed
}

/// The context of the flag, else the current one.
fn choose(kubeconfig: &Kubeconfig, flag: Option<&str>) -> Result<String> {
    let mut names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    names.sort_unstable();
    let there = match names[..] {
        [] => "it has no contexts".to_owned(),
        _ => format!("give --context one of: {}", names.join(", ")),
    };
    let current = kubeconfig.current_context.as_deref().filter(|name| !name.is_empty());
    let Some(name) = flag.or(current) else {
        return Err(Error::failed("the kubeconfig has no current context").hint(there).into());
    };
    if !names.contains(&name) {
        return Err(Error::failed(format!("the kubeconfig has no context {name}")).hint(there).into());
    }
    Ok(name.to_owned())
}

fn cluster<'a>(kubeconfig: &'a Kubeconfig, context: &str) -> Option<&'a Cluster> {
    let context = kubeconfig.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()
}

/// An error of a credential plugin, without its output, which may hold a secret, but with what the kubeconfig says to do.
pub(super) fn explained(error: kube::Error, user: &AuthInfo) -> anyhow::Error {
    let plugin = user.exec.as_ref().and_then(|exec| exec.command.as_deref()).unwrap_or_default();
    let hint =
        user.exec.as_ref().and_then(|exec| exec.install_hint.as_deref()).map(str::trim).filter(|hint| !hint.is_empty());
    match error {
        kube::Error::Auth(AuthError::AuthExecStart(cause)) => {
            let hint = hint.map_or_else(|| format!("install {plugin}, or put it in PATH"), str::to_owned);
            Error::failed(format!("run the kubeconfig's credential plugin {plugin}: {cause}")).hint(hint).into()
        }
        kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            let said = if said.is_empty() { out.status.to_string() } else { said };
            Error::failed(format!("the kubeconfig's credential plugin {plugin} failed: {said}")).into()
        }
        error => anyhow::Error::new(error).context("use the kubeconfig's credentials"),
    }
}
