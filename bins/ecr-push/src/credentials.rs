//! Finds the login of a registry where docker keeps it.
//!
//! Reads `config.json` in `DOCKER_CONFIG` or `~/.docker`; where there is none, podman's `REGISTRY_AUTH_FILE` and
//! `$XDG_RUNTIME_DIR/containers/auth.json`. A login stands there (`auths`), or a program has it (`credHelpers`,
//! `credsStore`).

use anyhow::{Context, Result};
use common::Error;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;
use std::env::var_os;
use std::path::{Path, PathBuf};

/// The names that Docker Hub goes by: docker's own first.
const DOCKER_HUB: [&str; 3] = ["https://index.docker.io/v1/", "index.docker.io", "docker.io"];

/// The user that goes with a token in place of a login. Source: Azure Container Registry's documentation of `az acr
/// login --expose-token`.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";

/// The login of a registry, named as in a reference. `None` when there is none. Runs the program that has it, if so.
///
/// # Errors
/// The file cannot be read, or the program fails.
pub fn find(registry: &str) -> Result<Option<RegistryAuth>> {
    let Some(file) = files().find(|file| file.is_file()) else { return Ok(None) };
    let config = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
    let names = if registry == "docker.io" { &DOCKER_HUB[..] } else { &[registry] };
    for name in names {
        let login = login(&config, name).with_context(|| format!("{}: the login of {name}", file.display()))?;
        if login.is_some() {
            return Ok(login);
        }
    }
    Ok(None)
}

/// Where a login may stand; the first file that is there counts, as it does for docker.
fn files() -> impl Iterator<Item = PathBuf> {
    let within = |folder, file| var_os(folder).map(|folder| Path::new(&folder).join(file));
    let docker = within("DOCKER_CONFIG", "config.json").or_else(|| within("HOME", ".docker/config.json"));
    let podman = var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    let podman = podman.or_else(|| within("XDG_RUNTIME_DIR", "containers/auth.json"));
    docker.into_iter().chain(podman)
}

fn login(config: &[u8], name: &str) -> Result<Option<RegistryAuth>> {
    use CredentialRetrievalError::{HelperCommunicationError, HelperFailure, NoCredentialConfigured};
    match get_credential_from_reader(config, name) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(Some(RegistryAuth::Basic(user, password))),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(RegistryAuth::Basic(TOKEN_USER.to_owned(), token))),
        Err(NoCredentialConfigured) => Ok(None),
        // The words of docker's own helpers for "no login".
        Err(HelperFailure { stdout, .. }) if stdout.starts_with("credentials not found") => Ok(None),
        Err(HelperFailure { helper, stdout, stderr }) => {
            let said = [stdout, stderr].concat();
            Err(Error::failed(format!("{helper} failed: {}", said.lines().next().unwrap_or_default())).into())
        }
        Err(error @ HelperCommunicationError) => {
            let hint = "is the program that credHelpers or credsStore names, docker-credential-…, on PATH?";
            Err(anyhow::Error::new(error).context(Error::failed("the login is kept by a program").hint(hint)))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_by_the_names_that_docker_writes() {
        // `user:secret` and `user:se:cret`, in base64.
        let (auth, other) = ("dXNlcjpzZWNyZXQ=", "dXNlcjpzZTpjcmV0");
        let basic = |password: &str| Some(RegistryAuth::Basic("user".into(), password.into()));
        for (config, registry, expected) in [
            ("{}".to_owned(), "quay.io", None),
            (format!(r#"{{"auths":{{"quay.io":{{"auth":"{auth}"}}}}}}"#), "quay.io", basic("secret")),
            (format!(r#"{{"auths":{{"https://quay.io/v2/":{{"auth":"{auth}"}}}}}}"#), "quay.io", basic("secret")),
            (format!(r#"{{"auths":{{"quay.io":{{"auth":"{other}"}}}}}}"#), "quay.io", basic("se:cret")),
            (format!(r#"{{"auths":{{"quay.io":{{"auth":"{auth}"}}}}}}"#), "ghcr.io", None),
            (r#"{"auths":{"r:5000":{"username":"user","password":"secret"}}}"#.to_owned(), "r:5000", basic("secret")),
            (
                r#"{"auths":{"a.azurecr.io":{"auth":"MDA6","identitytoken":"t"}}}"#.to_owned(),
                "a.azurecr.io",
                Some(RegistryAuth::Basic(TOKEN_USER.into(), "t".into())),
            ),
        ] {
            assert!(login(config.as_bytes(), registry).unwrap() == expected, "{config}");
        }
        for name in DOCKER_HUB {
            let config = format!(r#"{{"auths":{{"{name}":{{"auth":"{auth}"}}}}}}"#);
            let found = DOCKER_HUB.iter().find_map(|name| login(config.as_bytes(), name).unwrap());
            assert!(found == basic("secret"), "{config}");
        }
    }

    #[test]
    fn a_login_that_cannot_be_had_is_an_error() {
        for (config, message) in [
            ("red", "Unable to read config"),
            (r#"{"auths":{"quay.io":{"auth":"?"}}}"#, "Unable to decode credential"),
            (r#"{"credHelpers":{"quay.io":"of-nobody"}}"#, "the login is kept by a program"),
            (r#"{"credsStore":"of-nobody"}"#, "the login is kept by a program"),
        ] {
            assert_eq!(login(config.as_bytes(), "quay.io").unwrap_err().to_string(), message, "{config}");
        }
    }
}
