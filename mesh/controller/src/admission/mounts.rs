//! Mounts what a pod's annotations and the chart ask for into its Envoy.

use std::path::Path;

use anyhow::ensure;
use serde_json::{Value, json};

use super::annotations::Mount;
use crate::envoy::bootstrap::{AUDIENCE, TOKEN_FOLDER};

const TOKEN_VOLUME: &str = "appmesh-token";
const TMP_VOLUME: &str = "appmesh-envoy-tmp";
const TMP_FOLDER: &str = "/tmp";
/// A log that outgrows it ends. It is no longer, for a volume on the disk would keep autoscalers from removing the node.
const TMP_SIZE: &str = "64Mi";
/// Volume of the program that drains Envoy. In memory: a volume on the node's disk would keep the cluster autoscaler from
/// removing the node.
const TOOL_VOLUME: &str = "appmesh-tool";
/// Folder where it is mounted.
const TOOL_FOLDER: &str = "/var/run/appmesh";
/// The program that drains Envoy.
pub const TOOL: &str = "/var/run/appmesh/capture";
const SDS_VOLUME: &str = "appmesh-sds-socket-volume";
/// Seconds; the kubelet replaces the token when 80 % have passed.
const TOKEN_LIFE: u32 = 3600;
/// Of a secret's files, as the API server fills it in: 0644.
const DEFAULT_MODE: u32 = 420;
/// Characters of a volume's name.
const LONGEST_NAME: usize = 63;

/// The volumes of a pod, and where its Envoy mounts them.
pub struct Mounts {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
}

/// Where the container mounts it that leaves the program there.
pub fn tool_to_fill() -> Value {
    json!({ "name": TOOL_VOLUME, "mountPath": TOOL_FOLDER })
}

impl Mounts {
    /// Adds the volume of the token by which Envoy proves who it is. Only Envoy's container mounts it.
    pub fn new(volumes: Vec<Value>) -> Self {
        let mut mounts = Self { volumes, mounts: Vec::new() };
        let source = json!({ "serviceAccountToken": {
            "audience": AUDIENCE, "expirationSeconds": TOKEN_LIFE, "path": "token"
        }});
        mounts.volumes.push(json!({ "name": TOKEN_VOLUME, "projected": { "sources": [source] } }));
        mounts.push(TOKEN_VOLUME, TOKEN_FOLDER);
        mounts
    }

    /// Mounts the program that drains Envoy.
    pub fn tool(&mut self) {
        let source = json!({ "medium": "Memory" });
        self.volumes.push(json!({ "name": TOOL_VOLUME, "emptyDir": source }));
        self.push(TOOL_VOLUME, TOOL_FOLDER);
    }

    /// Mounts a secret of the pod's namespace.
    ///
    /// # Errors
    /// Something else is mounted there.
    pub fn secret(&mut self, secret: &Mount) -> anyhow::Result<()> {
        let source = json!({ "secretName": secret.name });
        // One of some of its keys, or that not everybody may read, is not what was asked for.
        let whole = |volume: &&Value| {
            let source = &volume["secret"];
            let mode = &source["defaultMode"];
            source["secretName"] == secret.name
                && source["items"].is_null()
                && (mode.is_null() || *mode == DEFAULT_MODE)
        };
        let present = self.volumes.iter().find(whole);
        let volume = match present.and_then(|volume| volume["name"].as_str()) {
            Some(name) => name.to_owned(),
            None => {
                let name = self.free_name(&secret.name);
                self.volumes.push(json!({ "name": name, "secret": source }));
                name
            }
        };
        self.mount(&volume, &secret.path)
    }

    /// Mounts a volume that the pod has, or that another webhook adds.
    ///
    /// # Errors
    /// Something else is mounted there.
    pub fn volume(&mut self, volume: &Mount) -> anyhow::Result<()> {
        self.mount(&volume.name, &volume.path)
    }

    /// Mounts the folder of a socket of the node, and not the socket: that is another file once its owner has started
    /// again. What is mounted there already is taken for it.
    pub fn folder_of(&mut self, socket: &str) {
        let Some(folder) = Path::new(socket).parent().and_then(Path::to_str) else { return };
        if self.mounted(folder) {
            return;
        }
        let present = self.volumes.iter().find(|volume| volume["hostPath"]["path"] == folder);
        let volume = match present.and_then(|volume| volume["name"].as_str()) {
            Some(name) => name.to_owned(),
            None => {
                let path = json!({ "path": folder, "type": "Directory" });
                self.volumes.push(json!({ "name": SDS_VOLUME, "hostPath": path }));
                SDS_VOLUME.to_owned()
            }
        };
        self.push(&volume, folder);
    }

    /// Mounts an empty folder for access logs that go to a file: nothing else is writable in Envoy's container.
    pub fn tmp(&mut self) {
        if !self.mounted(TMP_FOLDER) {
            self.volumes.push(json!({ "name": TMP_VOLUME, "emptyDir": { "medium": "Memory", "sizeLimit": TMP_SIZE } }));
            self.mounts.push(json!({ "name": TMP_VOLUME, "mountPath": TMP_FOLDER }));
        }
    }

    /// Gives the pod its volumes, and returns Envoy's mounts of them.
    pub fn into_parts(self, volumes: &mut Vec<Value>) -> Vec<Value> {
        *volumes = self.volumes;
        self.mounts
    }

    fn mount(&mut self, volume: &str, path: &str) -> anyhow::Result<()> {
        ensure!(!self.mounted(path), "two volumes are to be mounted in Envoy at {path}");
        self.push(volume, path);
        Ok(())
    }

    fn push(&mut self, volume: &str, path: &str) {
        self.mounts.push(json!({ "name": volume, "mountPath": path, "readOnly": true }));
    }

    fn mounted(&self, path: &str) -> bool {
        let same = |at: &str| at.trim_end_matches('/') == path.trim_end_matches('/');
        self.mounts.iter().any(|mount| mount["mountPath"].as_str().is_some_and(same))
    }

    /// A secret's name, if a volume may have it and none does; a secret's may be longer and have dots.
    fn free_name(&self, secret: &str) -> String {
        let is_used = |name: &str| self.volumes.iter().any(|volume| volume["name"] == name);
        if secret.len() <= LONGEST_NAME && !secret.contains('.') && !is_used(secret) {
            return secret.to_owned();
        }
        let numbered = (0..=self.volumes.len()).map(|number| format!("appmesh-secret-{number}"));
        numbered.into_iter().find(|name| !is_used(name)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(name: &str, path: &str) -> Mount {
        Mount { name: name.to_owned(), path: path.to_owned() }
    }

    /// What there is beside the token, as `volume → path`.
    fn added(mounts: Mounts) -> (Vec<Value>, Vec<String>) {
        let mut volumes = Vec::new();
        let mounts = mounts.into_parts(&mut volumes);
        let path = |mount: &Value| {
            assert_eq!(mount["readOnly"], true);
            format!("{} → {}", mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap())
        };
        (
            volumes.into_iter().filter(|volume| volume["name"] != TOKEN_VOLUME).collect(),
            mounts[1..].iter().map(path).collect(),
        )
    }

    #[test]
    fn secrets_are_volumes_of_their_own_once() {
        let mut mounts = Mounts::new(vec![json!({ "name": "tls", "emptyDir": {} })]);
        for (secret, path) in [("ca", "/ca"), ("ca", "/again"), ("tls", "/tls"), ("a.b", "/dots")] {
            mounts.secret(&mount(secret, path)).unwrap();
        }
        let (volumes, mounts) = added(mounts);
        assert_eq!(
            json!(volumes),
            json!([
                { "name": "tls", "emptyDir": {} },
                { "name": "ca", "secret": { "secretName": "ca" } },
                { "name": "appmesh-secret-0", "secret": { "secretName": "tls" } },
                { "name": "appmesh-secret-1", "secret": { "secretName": "a.b" } },
            ])
        );
        assert_eq!(mounts, ["ca → /ca", "ca → /again", "appmesh-secret-0 → /tls", "appmesh-secret-1 → /dots"]);
    }

    #[test]
    fn part_of_a_secret_does_not_stand_for_it() {
        for (own, is_used) in [
            (json!({ "secretName": "ca", "defaultMode": 420 }), true),
            (json!({ "secretName": "ca", "defaultMode": 256 }), false),
            (json!({ "secretName": "ca", "items": [{ "key": "ca.crt", "path": "ca.pem" }] }), false),
        ] {
            let mut mounts = Mounts::new(vec![json!({ "name": "own", "secret": own })]);
            mounts.secret(&mount("ca", "/ca")).unwrap();
            let expected = if is_used { "own → /ca" } else { "ca → /ca" };
            assert_eq!(added(mounts).1, [expected], "{own}");
        }
    }

    #[test]
    fn one_path_takes_one_volume() {
        let mut mounts = Mounts::new(Vec::new());
        mounts.volume(&mount("data", "/certs")).unwrap();
        let error = mounts.secret(&mount("ca", "/certs/")).unwrap_err().to_string();
        assert_eq!(error, "two volumes are to be mounted in Envoy at /certs/");
        let error = mounts.volume(&mount("ca", TOKEN_FOLDER)).unwrap_err().to_string();
        assert_eq!(error, "two volumes are to be mounted in Envoy at /var/run/secrets/appmesh.k8s.aws");
    }

    #[test]
    fn a_socket_is_found_in_its_folder() {
        let socket = "/run/spire/sockets/agent.sock";
        let own = json!({ "name": SDS_VOLUME, "hostPath": { "path": "/run/spire/sockets", "type": "Directory" } });
        let pods = json!({ "name": "spire", "hostPath": { "path": "/run/spire/sockets" } });
        for (volumes, mounted, expected_volumes, expected) in [
            (vec![], None, vec![own.clone()], "appmesh-sds-socket-volume → /run/spire/sockets"),
            (vec![pods.clone()], None, vec![pods.clone()], "spire → /run/spire/sockets"),
            (vec![], Some(mount("csi", "/run/spire/sockets")), vec![], "csi → /run/spire/sockets"),
        ] {
            let mut mounts = Mounts::new(volumes);
            if let Some(mount) = mounted {
                mounts.volume(&mount).unwrap();
            }
            mounts.folder_of(socket);
            assert_eq!(added(mounts), (expected_volumes, vec![expected.to_owned()]));
        }
    }
}
