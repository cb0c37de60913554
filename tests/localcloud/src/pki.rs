//! Certificate authorities and the certificates they sign.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
};

/// An authority and the folder it writes to: `ca.crt`, and `NAME.crt` and `NAME.key` of what it signs.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// Whom a certificate names: common name and organization, which Kubernetes reads as user and group.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Common name, the user.
    pub name: &'a str,
    /// Organization, the group.
    pub organization: &'a str,
}

/// The names `*.amazonaws.com` clients meet. A wildcard covers one label only.
pub fn region_names() -> Vec<String> {
    let region = crate::cloud::REGION;
    let amazon = ["", "dkr.ecr.", "ecr.", "eks.", "elb.", "servicediscovery."]
        .map(|service| format!("*.{service}{region}.amazonaws.com"));
    let elsewhere = format!("*.{}.amazonaws.com", crate::cloud::ELSEWHERE);
    let others = [
        "amazonaws.com",
        "*.amazonaws.com",
        "aws.github.io",
        "docker.io",
        "registry-1.docker.io",
        "auth.docker.io",
        "registry.k8s.io",
    ];
    amazon.into_iter().chain([elsewhere]).chain(others.map(str::to_owned)).collect()
}

impl Authority {
    /// Makes an authority with `folder/ca.crt`. Its key stays in memory.
    pub fn create(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished(Subject { name, organization: "local cloud" });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write(&folder.join("ca.crt"), &certificate)?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate for server and client use. `names` are DNS names and IP addresses.
    pub fn issue(&self, file: &str, subject: Subject<'_>, names: &[String]) -> Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = distinguished(subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("signing {file}"))?;
        write(&self.folder.join(format!("{file}.crt")), &certificate.pem())?;
        write_key(&self.folder.join(format!("{file}.key")), &key.serialize_pem())
    }
}

/// The key pair that signs service account tokens: `sa.key` and `sa.pub`. RSA, as EKS signs with RS256.
pub fn service_account_keys(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    write_key(&folder.join("sa.key"), &key.serialize_pem())?;
    write(&folder.join("sa.pub"), &key.public_key_pem())
}

fn distinguished(subject: Subject<'_>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, subject.organization);
    name.push(DnType::CommonName, subject.name);
    name
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes what only its owner may read.
fn write_key(path: &Path, text: &str) -> Result<()> {
    write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    write(path, text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn an_authority_signs_what_rustls_accepts() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "test").unwrap();
        authority
            .issue(
                "server",
                Subject { name: "server", organization: "x" },
                &["*.amazonaws.com".to_owned(), "10.0.0.2".to_owned()],
            )
            .unwrap();
        let config = crate::tls::server(&folder.path().join("server.crt"), &folder.path().join("server.key"));
        assert!(config.is_ok(), "{:?}", config.err());
        assert!(fs::read_to_string(folder.path().join("ca.crt")).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }

    #[test]
    fn service_account_keys_are_rsa() {
        let folder = tempfile::tempdir().unwrap();
        service_account_keys(folder.path()).unwrap();
        assert!(fs::read_to_string(folder.path().join("sa.pub")).unwrap().starts_with("-----BEGIN PUBLIC KEY"));
        assert_eq!(fs::metadata(folder.path().join("sa.key")).unwrap().permissions().mode() & 0o777, 0o600);
        // 2048 bits take about 1700 characters; a P-256 key takes about 240.
        assert!(fs::read_to_string(folder.path().join("sa.key")).unwrap().len() > 1000);
    }

    #[test]
    fn every_host_of_the_flow_is_named() {
        let names = region_names();
        for host in [
            "*.us-west-2.amazonaws.com",
            "*.dkr.ecr.us-west-2.amazonaws.com",
            "*.eks.us-west-2.amazonaws.com",
            "registry-1.docker.io",
        ] {
            assert!(names.iter().any(|name| name == host), "{host}");
        }
    }
}
