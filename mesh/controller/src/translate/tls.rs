//! Translates TLS of listeners and client policies.

use mesh_api::{
    BackendDefaults, ClientCertificate, ClientPolicyTls, ClientValidation, ListenerCertificate, ListenerValidation,
    SubjectAlternativeNames, TlsMode,
};

use super::problems::{Problems, given_is_fine};
use crate::model::{Backend, Certificate, ClientPolicy, ListenerTls, Reason, Trust, Validation};

/// Whether callers speak TLS to a listener.
pub fn is_taken(given: Option<&mesh_api::ListenerTls>) -> bool {
    given.is_some_and(|tls| tls.mode != TlsMode::Disabled)
}

/// TLS as a listener takes it, if it takes any; `None` if it has a problem, and it must take nothing at all then.
pub fn listener(
    given: Option<&mesh_api::ListenerTls>,
    path: &str,
    problems: &mut Problems,
) -> Option<Option<ListenerTls>> {
    let Some(given) = given.filter(|_| is_taken(given)) else { return Some(None) };
    let ListenerCertificate { acm, file, sds } = given.certificate.clone().unwrap_or_default();
    let certificate = match acm {
        Some(_) => unsupported(format!("{path}.certificate.acm"), problems),
        None => certificate(ClientCertificate { file, sds }, &format!("{path}.certificate"), problems),
    };
    let validation = given.validation.clone().map(|ListenerValidation { subject_alternative_names, trust }| {
        validation(trust, subject_alternative_names, &format!("{path}.validation"), problems)
    });
    Some(Some(ListenerTls {
        permissive: given.mode == TlsMode::Permissive,
        certificate: certificate?,
        validation: given_is_fine(validation)?,
    }))
}

/// How a backend is called; `None` if that has a problem.
fn client_policy(given: &ClientPolicyTls, path: &str, problems: &mut Problems) -> Option<ClientPolicy> {
    let ClientPolicyTls { certificate: own, enforce, ports, validation: theirs } = given.clone();
    // Both of them, so that all problems are found.
    let certificate = own.map(|own| certificate(own, &format!("{path}.certificate"), problems));
    let ClientValidation { subject_alternative_names, trust } = theirs;
    let validation = validation(trust, subject_alternative_names, &format!("{path}.validation"), problems);
    Some(ClientPolicy {
        enforce: enforce.unwrap_or(true),
        ports: ports.unwrap_or_default(),
        certificate: given_is_fine(certificate)?,
        validation: validation?,
    })
}

/// The client policy of backends that have none of their own.
pub fn default_policy(defaults: Option<&BackendDefaults>) -> Option<&mesh_api::ClientPolicy> {
    defaults?.client_policy.as_ref()
}

/// Notes what a client policy demands and cannot be done.
pub fn check_policy(given: Option<&mesh_api::ClientPolicy>, path: &str, problems: &mut Problems) {
    if let Some(given) = given.and_then(|given| given.tls.as_ref()) {
        client_policy(given, &format!("{path}.tls"), problems);
    }
}

/// Has a backend called by a client policy. Where that cannot be followed the backend is not called at all.
pub fn call_by(backend: &mut Backend, policy: Option<&mesh_api::ClientPolicy>) {
    let Some(given) = policy.and_then(|policy| policy.tls.as_ref()) else { return };
    let mut problems = Problems::default();
    backend.client_policy = client_policy(given, "clientPolicy.tls", &mut problems);
    if backend.client_policy.is_none() {
        backend.refusal = Some(problems.into_words().join("; "));
    }
}

fn certificate(
    ClientCertificate { file, sds }: ClientCertificate,
    path: &str,
    problems: &mut Problems,
) -> Option<Certificate> {
    match (file, sds) {
        (Some(file), None) => {
            problems.take(format!("{path}.file"), Certificate::file(file.certificate_chain, file.private_key))
        }
        (None, Some(sds)) => problems.take(format!("{path}.sds.secretName"), Certificate::sds(sds.secret_name)),
        _ => {
            problems.invalid(path, "needs one of file and sds");
            None
        }
    }
}

fn validation(
    mesh_api::Trust { acm, file, sds }: mesh_api::Trust,
    names: Option<SubjectAlternativeNames>,
    path: &str,
    problems: &mut Problems,
) -> Option<Validation> {
    let trust_path = format!("{path}.trust");
    let trust = match (acm, file, sds) {
        (Some(_), ..) => unsupported(format!("{trust_path}.acm"), problems),
        (None, Some(file), None) => {
            problems.take(format!("{trust_path}.file.certificateChain"), Trust::file(file.certificate_chain))
        }
        (None, None, Some(sds)) => problems.take(format!("{trust_path}.sds.secretName"), Trust::sds(sds.secret_name)),
        _ => {
            problems.invalid(trust_path, "needs one of file and sds");
            None
        }
    };
    let names = names.map(|names| names.match_.exact).unwrap_or_default();
    let path = format!("{path}.subjectAlternativeNames.match.exact");
    problems.take(path, Validation::new(trust?, names))
}

fn unsupported<T>(path: String, problems: &mut Problems) -> Option<T> {
    let message = "needs AWS Certificate Manager, whose keys and authorities only App Mesh gave to Envoys: \
                   give the certificate by file or sds, for example from cert-manager";
    problems.add(Reason::Unsupported, path, message);
    None
}
