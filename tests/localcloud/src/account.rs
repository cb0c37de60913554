//! The AWS account as the AWS side lays it down: `account.json` in the state folder, there once its APIs answer.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cloud;

/// Keys and clusters of the account.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The IAM user who may do everything.
    pub operator: Keys,
    /// The role of the nodes.
    pub node: Keys,
    /// The EKS clusters.
    pub clusters: Vec<Eks>,
}

/// What signs requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`, of a role only.
    pub session_token: Option<String>,
}

/// One EKS cluster, as `eks:DescribeCluster` tells of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Eks {
    /// Its name.
    pub name: String,
    /// Who issues its service account tokens, an URL.
    pub issuer: String,
    /// Its one EC2 instance.
    pub node: Instance,
}

/// An EC2 instance.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// `aws:///ZONE/INSTANCE`.
    pub provider_id: String,
}

impl Account {
    /// Reads it; an error until the AWS side is ready.
    pub fn load(state: &Path) -> Result<Self> {
        cloud::read_json(&state.join("account.json"))
    }

    /// One of its clusters.
    pub fn cluster(&self, name: &str) -> Result<&Eks> {
        self.clusters
            .iter()
            .find(|cluster| cluster.name == name)
            .with_context(|| format!("the account has no cluster {name}"))
    }
}

impl Keys {
    /// As environment variables.
    pub fn variables(&self) -> Vec<(&'static str, &str)> {
        let always = [
            ("AWS_ACCESS_KEY_ID", self.access_key_id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.as_str()),
        ];
        always.into_iter().chain(self.session_token.as_deref().map(|token| ("AWS_SESSION_TOKEN", token))).collect()
    }
}
