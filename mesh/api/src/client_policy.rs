use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClientCertificate, ClientValidation};

/// What holds for all backends that have no client policy of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendDefaults {
    /// How they are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_policy: Option<ClientPolicy>,
}

/// How a backend is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientPolicy {
    /// By TLS; when absent, with TLS if the VirtualNode's listener takes it, whatever its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientPolicyTls>,
}

/// How a backend is called by TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientPolicyTls {
    /// The certificate that is shown to listeners that ask for one; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ClientCertificate>,
    /// Whether TLS is spoken even if the VirtualNode's listener takes none, so that calling it fails; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce: Option<bool>,
    /// The VirtualNode's ports that this is about, 1 to 65535; all when absent. Others are called as without a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<i64>>", inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<u16>>,
    /// What the listener's certificate must be.
    pub validation: ClientValidation,
}
