//! The environment of a command inside the cloud: the operator's, and nothing that points to another AWS.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::account::Keys;
use crate::cloud::{Cloud, REGION, read_json, write_json};

/// Variables that would lead a client away from the region, or through a proxy it can't reach.
const REMOVED: [&str; 16] = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "SSL_CERT_DIR",
    "KUBERNETES_SERVICE_HOST",
];

/// Variables that tell clients whom to trust: OpenSSL and rustls, AWS's SDKs, curl, Python's requests, gRPC.
const TRUST: [&str; 5] =
    ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"];

/// What changes for a command inside. `environment.json` in the state folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    set: Vec<(String, String)>,
    path: String,
}

impl Environment {
    /// The operator's.
    pub fn new(cloud: &Cloud, operator: &Keys) -> Self {
        let bundle = cloud.ca_bundle().display().to_string();
        let kubeconfig = cloud.state.join("kubeconfig").display().to_string();
        let region = [("AWS_REGION", REGION), ("AWS_DEFAULT_REGION", REGION), ("KUBECONFIG", kubeconfig.as_str())];
        let trust = TRUST.map(|name| (name, bundle.as_str()));
        let set = region.into_iter().chain(trust).chain(operator.variables());
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { set, path: cloud.bin.display().to_string() }
    }

    /// Leaves it for `run`.
    pub fn save(&self, state: &Path) -> Result<()> {
        write_json(&state.join("environment.json"), self)
    }

    /// Reads it back.
    pub fn load(state: &Path) -> Result<Self> {
        read_json(&state.join("environment.json"))
    }

    /// Changes the environment of `command`, which is the caller's otherwise.
    pub fn apply(&self, command: &mut std::process::Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        for name in REMOVED {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value))).env("PATH", format!("{}:{path}", self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_come_first_and_other_accounts_are_forgotten() {
        let cloud = Cloud {
            state: "/state".into(),
            bin: "/parts/bin".into(),
            python: "/parts/python".into(),
            images: "/parts/images".into(),
            two_vpcs: false,
        };
        let keys =
            Keys { access_key_id: "AKIA".to_owned(), secret_access_key: "secret".to_owned(), session_token: None };
        let mut command = std::process::Command::new("true");
        Environment::new(&cloud, &keys).apply(&mut command);
        let value = |name: &str| {
            command
                .get_envs()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
        };
        assert!(value("PATH").flatten().is_some_and(|path| path.starts_with("/parts/bin:")));
        assert_eq!(value("AWS_ACCESS_KEY_ID"), Some(Some("AKIA".to_owned())));
        assert_eq!(value("KUBECONFIG"), Some(Some("/state/kubeconfig".to_owned())));
        assert_eq!(value("AWS_PROFILE"), Some(None), "removed, not merely unset");
    }
}
