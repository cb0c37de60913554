//! Reads a kubeconfig as kubectl does.

use super::KubeFlags;
use crate::Error;
use crate::proxy::{Proxies, Proxy};
use anyhow::{Context as _, Result};
use kube::Config;
use kube::client::AuthError;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig};
use std::env;
use std::path::{Path, PathBuf};

/// One context of a kubeconfig: how to reach its cluster, and through what.
pub(super) struct Context {
    pub(super) name: String,
    pub(super) config: Config,
    pub(super) proxies: Proxies,
}

/// Reads the context of the flag, else the one that leads to the API server at `endpoint`, else the current one.
pub(super) async fn load(flags: &KubeFlags, endpoint: Option<&str>) -> Result<Context> {
    let kubeconfig = read(flags.kubeconfig.as_deref())?;
    let name = choose(&kubeconfig, flags.context.as_deref(), endpoint)?;
    let proxies = match cluster(&kubeconfig, &name).and_then(|cluster| cluster.proxy_url.as_deref()) {
        Some(url) if !url.is_empty() => {
            let proxy = Proxy::parse(url);
            Proxies::one(proxy.map_err(|why| Error::failed(format!("proxy-url of context {name}: {why}")))?)
        }
        _ => Proxies::from_environment()?,
    };
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.context("use the kubeconfig")?;
    Ok(Context { name, config, proxies })
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

/// The context of the flag, else the one that leads to the API server at `endpoint`, else the current one.
fn choose(kubeconfig: &Kubeconfig, flag: Option<&str>, endpoint: Option<&str>) -> Result<String> {
    let mut names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    names.sort_unstable();
    let there = match names[..] {
        [] => "it has no contexts".to_owned(),
        _ => format!("give --context one of: {}", names.join(", ")),
    };
    let current = kubeconfig.current_context.as_deref().filter(|name| !name.is_empty());
    let name = match (flag, endpoint) {
        (Some(name), _) => name,
        (None, Some(endpoint)) => {
            let leads_there = |name: &&str| {
                let server = cluster(kubeconfig, name).and_then(|cluster| cluster.server.as_deref());
                server.is_some_and(|server| server.trim_end_matches('/').eq_ignore_ascii_case(endpoint))
            };
            current.into_iter().chain(names.iter().copied()).find(leads_there).ok_or_else(|| {
                let none = Error::failed(format!("no context of the kubeconfig leads to {endpoint}"));
                none.hint(format!("aws eks update-kubeconfig adds one; or {there}"))
            })?
        }
        (None, None) => current.ok_or_else(|| Error::failed("the kubeconfig has no current context").hint(&there))?,
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_context_is_chosen_by_flag_then_cluster_then_current() {
        let context = |name: &str, cluster: &str| json!({"name": name, "context": {"cluster": cluster, "user": "me"}});
        let cluster = |name: &str, server: &str| json!({"name": name, "cluster": {"server": server}});
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "contexts": [context("admin", "shop"), context("home", "kind"), context("me", "shop")],
            "clusters": [cluster("shop", "https://ABC.eks.amazonaws.com"), cluster("kind", "https://127.0.0.1:6443/")],
            "current-context": "me",
        }))
        .unwrap();
        let others = "give --context one of: admin, home, me";
        for (flag, endpoint, chosen) in [
            (None, None, Ok("me")),
            (Some("home"), Some("https://ABC.eks.amazonaws.com"), Ok("home")),
            (None, Some("https://127.0.0.1:6443"), Ok("home")),
            // Two lead there: the current one goes first.
            (None, Some("https://abc.eks.amazonaws.com"), Ok("me")),
            (Some("work"), None, Err(("the kubeconfig has no context work", others.to_owned()))),
            (
                None,
                Some("https://DEF.eks.amazonaws.com"),
                Err((
                    "no context of the kubeconfig leads to https://DEF.eks.amazonaws.com",
                    format!("aws eks update-kubeconfig adds one; or {others}"),
                )),
            ),
        ] {
            let found = choose(&kubeconfig, flag, endpoint);
            let found = found
                .as_deref()
                .map_err(|error| (error.to_string(), crate::classify(error).1.unwrap_or_default().to_owned()));
            assert_eq!(found, chosen.map_err(|(message, hint)| (message.to_owned(), hint)), "{flag:?} {endpoint:?}");
        }
    }
}
