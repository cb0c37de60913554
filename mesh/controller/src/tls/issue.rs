//! Issues the server's certificate, and makes the authority that signs it.

use anyhow::{Context as _, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::certificate::{Certificate, Content, ends};

/// Sidecars trust the authority for as long as their pods live, so it outlives them.
const AUTHORITY: Duration = Duration::days(3650);
/// As long as cert-manager's by default.
const CERTIFICATE: Duration = Duration::days(90);
/// How long before its end a certificate is renewed.
const RENEWAL: Duration = Duration::days(30);
/// What is issued counts from then on, for clocks are not all the same.
const BACKDATED: Duration = Duration::hours(1);

/// What the Secret is to hold: what it holds, as long as that is of all `names` and not about to end.
///
/// The authority stays where only the certificate must be renewed.
///
/// # Errors
/// Nothing could be issued.
pub(super) fn wanted(found: Option<&Content>, names: &[String], now: OffsetDateTime) -> anyhow::Result<Content> {
    let soon = (now + RENEWAL).unix_timestamp();
    let Some(found) = found else { return issue(new_authority(now)?, names, now) };
    match Certificate::try_from(found) {
        Ok(certificate) => {
            let is_of_all = names.iter().all(|name| certificate.names.contains(name));
            if is_of_all && certificate.validity.1 > soon {
                return Ok(found.clone());
            }
        }
        Err(error) => tracing::warn!("the certificate does not serve, issuing another: {error:#}"),
    }
    match kept_authority(found, now) {
        Ok(authority) => issue(authority, names, now),
        Err(error) => {
            tracing::warn!(
                "a new authority: restart the pods of the mesh, for their Envoys trust the old one: {error:#}"
            );
            issue(new_authority(now)?, names, now)
        }
    }
}

/// When [`wanted`] wants something else.
pub(super) fn renewal(certificate: &Certificate) -> OffsetDateTime {
    let end = OffsetDateTime::from_unix_timestamp(certificate.validity.1);
    end.unwrap_or(OffsetDateTime::UNIX_EPOCH) - RENEWAL
}

/// An authority: its certificate and key as PEM.
struct Authority {
    certificate: String,
    key: String,
}

fn new_authority(now: OffsetDateTime) -> anyhow::Result<Authority> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, "appmesh-controller-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - BACKDATED, now + AUTHORITY);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("making an authority")?;
    Ok(Authority { certificate: authority.pem(), key: authority.key().serialize_pem() })
}

/// # Errors
/// Its key is not there, or it ends before what it would sign.
fn kept_authority(found: &Content, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let key = found.authority_key.clone().context("the Secret has no ca.key")?;
    KeyPair::from_pem(&key).context("reading ca.key")?;
    let end = ends(&found.authority).context("reading ca.crt")?;
    ensure!(end > (now + CERTIFICATE).unix_timestamp(), "the authority of ca.crt ends");
    Ok(Authority { certificate: found.authority.clone(), key })
}

fn issue(authority: Authority, names: &[String], now: OffsetDateTime) -> anyhow::Result<Content> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?);
    let issuer = issuer.context("reading the authority")?;
    let mut params = CertificateParams::new(names)?;
    // Not that of the authority, or the certificate looks signed by itself.
    params.distinguished_name.push(DnType::CommonName, "appmesh-controller");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (now - BACKDATED, now + CERTIFICATE);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer).context("signing the certificate")?;
    let Authority { certificate: ca, key: ca_key } = authority;
    Ok(Content { authority: ca, authority_key: Some(ca_key), chain: certificate.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["xds.mesh.svc".to_owned(), "webhook.mesh.svc".to_owned()]
    }

    fn after(days: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + Duration::days(days)
    }

    fn wants(found: &Content, names: &[String], days: i64) -> Content {
        wanted(Some(found), names, after(days)).ok().unwrap()
    }

    #[test]
    fn it_is_issued_once_and_renewed_in_time_by_the_same_authority() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let first = wanted(None, &names(), after(0)).ok().unwrap();
        let certificate = Certificate::try_from(&first).unwrap();
        assert_eq!(certificate.names, names());
        assert_eq!(certificate.validity, ((after(0) - BACKDATED).unix_timestamp(), after(90).unix_timestamp()));
        assert_eq!(renewal(&certificate), after(60));
        assert_eq!(ends(&first.authority).unwrap(), after(3650).unix_timestamp());

        assert!(wants(&first, &names(), 59) == first);
        assert!(wants(&first, &names()[..1], 0) == first, "it is of more names than it must be");
        let renewed = wants(&first, &names(), 60);
        assert!(renewed.authority == first.authority && renewed.authority_key == first.authority_key);
        assert_eq!(Certificate::try_from(&renewed).unwrap().validity.1, after(150).unix_timestamp());
        let others = vec!["other.mesh.svc".to_owned()];
        let of_others = wants(&first, &others, 0);
        assert!(of_others.authority == first.authority);
        assert_eq!(Certificate::try_from(&of_others).unwrap().names, others);
        let last = wants(&first, &names(), 3600);
        assert!(last.authority != first.authority, "no certificate outlives its authority");
    }

    #[test]
    fn what_does_not_serve_is_issued_anew() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let [good, other] = [(); 2].map(|()| wanted(None, &names(), after(0)).ok().unwrap());
        let text = || "no PEM".to_owned();
        for (broken, same_authority) in [
            (Content { key: other.key.clone(), ..good.clone() }, true),
            (Content { key: text(), ..good.clone() }, true),
            (Content { chain: text(), ..good.clone() }, true),
            (Content { chain: String::new(), ..good.clone() }, true),
            (Content { authority: text(), ..good.clone() }, false),
            (Content { authority_key: None, chain: text(), ..good.clone() }, false),
            (Content { authority_key: Some(text()), chain: text(), ..good.clone() }, false),
        ] {
            let mended = wants(&broken, &names(), 0);
            assert_eq!(mended.authority == good.authority, same_authority);
            assert!(wants(&mended, &names(), 0) == mended);
        }
        // Somebody else's authority, which renews by itself: its certificate is served while it lasts.
        let foreign = Content { authority_key: None, ..good };
        assert!(wants(&foreign, &names(), 0) == foreign);
    }
}
