use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a listener takes TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Whether callers must speak TLS.
    pub mode: TlsMode,
    /// The certificate that callers are shown; needed unless the mode is `DISABLED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<ListenerCertificate>,
    /// What callers must show, which makes it mutual TLS; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ListenerValidation>,
}

/// `STRICT`: only TLS is taken; `PERMISSIVE`: plaintext too; `DISABLED`: only plaintext. Callers in the mesh speak TLS to
/// listeners of the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "a description of each would change the schema's shape")]
pub enum TlsMode {
    Disabled,
    Permissive,
    Strict,
}

/// A listener's certificate; exactly one of `file` and `sds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerCertificate {
    /// Not supported: only App Mesh had the keys of AWS Certificate Manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acm: Option<AcmCertificate>,
    /// Files in Envoy's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileCertificate>,
    /// By the secret discovery service, such as SPIRE's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<SdsSecret>,
}

/// A caller's certificate, shown to a listener that asks for one; exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// Files in Envoy's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileCertificate>,
    /// By the secret discovery service, such as SPIRE's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<SdsSecret>,
}

/// A certificate of AWS Certificate Manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcmCertificate {
    /// Its ARN.
    #[serde(rename = "certificateARN")]
    pub certificate_arn: String,
}

/// A certificate and its key as files in Envoy's container, PEM, where the annotation `appmesh.k8s.aws/secretMounts` puts
/// them. Envoy reads them when it gets its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileCertificate {
    /// Path of the certificate, followed by those that signed it.
    #[schemars(length(min = 1, max = 255))]
    pub certificate_chain: String,
    /// Path of its key.
    #[schemars(length(min = 1, max = 255))]
    pub private_key: String,
}

/// A secret of the secret discovery service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SdsSecret {
    /// Its name there, such as a SPIFFE id.
    pub secret_name: String,
}

/// What the certificates of callers must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerValidation {
    /// The names that a caller's certificate may have; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_alternative_names: Option<SubjectAlternativeNames>,
    /// Who must have signed it.
    pub trust: Trust,
}

/// What the certificates of listeners must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// The names that a listener's certificate may have. When absent, what the VirtualNode is found by: its DNS hostname, or
    /// `<service>.<namespace>` of Cloud Map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_alternative_names: Option<SubjectAlternativeNames>,
    /// Who must have signed it.
    pub trust: Trust,
}

/// Who must have signed a certificate; exactly one of `file` and `sds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// Not supported: only App Mesh gave out the authorities of AWS Private CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acm: Option<AcmTrust>,
    /// A file in Envoy's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTrust>,
    /// By the secret discovery service, such as SPIRE's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sds: Option<SdsSecret>,
}

/// Authorities of AWS Private CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AcmTrust {
    /// Their ARNs, 1 to 3.
    #[serde(rename = "certificateAuthorityARNs")]
    #[schemars(length(min = 1, max = 3))]
    pub certificate_authority_arns: Vec<String>,
}

/// Authorities in a file in Envoy's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileTrust {
    /// Path of their certificates, PEM.
    #[schemars(length(min = 1, max = 255))]
    pub certificate_chain: String,
}

/// Names in a certificate, of which one is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAlternativeNames {
    /// How they are compared.
    #[serde(rename = "match")]
    pub match_: SubjectAlternativeNameMatch,
}

/// How names are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectAlternativeNameMatch {
    /// Host names, or URIs such as `spiffe://mesh/front`. A host name is also that of a certificate with a wildcard for it.
    pub exact: Vec<String>,
}
