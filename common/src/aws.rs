//! AWS: one configuration for each identity, and errors that say which call failed on which thing.

#[cfg(feature = "network")]
pub mod ec2;
mod http;
#[cfg(feature = "network")]
pub mod network;
mod profile;

use crate::connect::{Obstacle, PROXY};
use crate::{Error, Kind, Session};
use anyhow::{Chain, Result};
use aws_config::meta::ProviderChainError;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use profile::{MfaCodeNeeded, Profile, WithMfa};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::time::Duration;

/// One attempt of one call. AWS answers control-plane calls within seconds; what takes longer hangs.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The flags of a tool that asks AWS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AwsFlags {
    /// Name of the EKS cluster; default: cluster.name of the document
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// AWS region; default: cluster.region of the document, then what the AWS SDKs read (AWS_REGION, profile)
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// AWS profile; default: what the AWS SDKs read (AWS_PROFILE)
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
}

/// The flags of a tool that looks at several clusters, beside [`AwsFlags`].
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OtherClusters {
    /// Another cluster; repeatable
    #[arg(long, value_name = "NAME")]
    pub and_cluster: Vec<String>,
    /// AWS profile for the clusters of --and-cluster; default: that of --profile
    #[arg(long, value_name = "NAME")]
    pub and_profile: Option<String>,
}

impl OtherClusters {
    /// How AWS is asked about them.
    pub fn aws(&self, first: &AwsFlags) -> AwsFlags {
        AwsFlags { profile: self.and_profile.clone().or(first.profile.clone()), ..first.clone() }
    }
}

/// The configurations made so far, by profile and region of the flags.
pub(crate) type Configurations = RefCell<BTreeMap<[Option<String>; 2], SdkConfig>>;

impl Session {
    /// The SDK configuration: region from flag, document or environment; credentials of the flag's profile, or as
    /// the SDKs find them; up to six tries of each call, ever later. Not the SDK's adaptive retries: they take half a
    /// minute over two throttled answers.
    ///
    /// # Errors
    /// No region is given anywhere, what is given is none, or there is no profile of the given name.
    pub async fn aws(&self, flags: &AwsFlags) -> Result<SdkConfig> {
        let asked = [flags.profile.clone(), flags.region.clone()];
        if let Some(config) = self.aws.borrow().get(&asked) {
            return Ok(config.clone());
        }
        let (place, region) = match &flags.region {
            Some(region) => ("--region", Some(region.clone())),
            None => ("cluster.region", self.doc.read::<String>(&["cluster", "region"])?),
        };
        // It becomes a part of host names: those who are sent credentials.
        let of_a_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(region) = region.as_ref().filter(|region| region.is_empty() || !region.chars().all(of_a_label)) {
            return Err(Error::input(format!("{place}: {region:?} is not an AWS region")).into());
        }
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT.min(self.flags.timeout))
            .operation_timeout(self.flags.timeout)
            .build();
        let http_client = http::http_client()?;
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(6))
            .timeout_config(timeouts);
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        let profile = Profile::load(flags.profile.clone()).await?;
        if let Some(name) = profile.name {
            loader = loader.profile_name(name);
        }
        // CloudTrail then says which tool it was.
        if let Ok(name) = AppName::new(format!("crossmesh-{}", self.stderr.tool)) {
            loader = loader.app_name(name);
        }
        let mut config = loader.load().await;
        // A flag beats the keys of the environment, as it does for the AWS CLI: the SDK would hear those first.
        if let Some(name) = &flags.profile {
            let place =
                ProviderConfig::without_region().with_http_client(http_client).with_region(config.region().cloned());
            let provider = ProfileFileCredentialsProvider::builder().profile_name(name).configure(&place).build();
            config = config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build();
        }
        if let (Some(code), Some(inner)) = (profile.code, config.credentials_provider()) {
            let coded = SharedCredentialsProvider::new(WithMfa { inner, code });
            config = config.into_builder().credentials_provider(coded).build();
        }
        if config.region().is_none() {
            return Err(Error::input("no AWS region")
                .hint("give --region, cluster.region in the document, or AWS_REGION")
                .into());
        }
        self.aws.borrow_mut().insert(asked, config.clone());
        Ok(config)
    }

    /// Says in which region AWS could not be reached, which the SDK does not tell: a mistyped region has no address.
    pub(crate) fn located(&self, error: anyhow::Error) -> anyhow::Error {
        let unreachable =
            |link: &(dyn StdError + 'static)| link.downcast_ref().is_some_and(|call: &CallError| call.unreachable);
        match self.aws.borrow().values().find_map(SdkConfig::region) {
            Some(region) if error.chain().any(unreachable) => {
                let context = Error::retry(format!("cannot reach AWS in region {region}"));
                error.context(context.hint("check that there is such a region, and that this machine is online"))
            }
            _ => error,
        }
    }
}

/// An AWS call that failed: `iam:CreateRole mesh`, caused by what AWS answered.
#[derive(Debug)]
pub struct CallError {
    action: &'static str,
    thing: String,
    kind: Kind,
    hint: Option<String>,
    cause: Answer,
    unreachable: bool,
}

impl CallError {
    /// What a caller can do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.thing)
    }
}

impl StdError for CallError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.cause)
    }
}

/// What AWS, or the way to it, said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Answer(String);

/// Gives a failed call its name, its thing and its kind.
pub trait Call<T> {
    /// `action` as IAM spells it (`iam:CreateRole`), `thing` as the user knows it.
    ///
    /// # Errors
    /// A [`CallError`].
    fn call(self, action: &'static str, thing: impl Display) -> Result<T>;
}

impl<T, E> Call<T> for Result<T, SdkError<E, HttpResponse>>
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    fn call(self, action: &'static str, thing: impl Display) -> Result<T> {
        self.map_err(|error| {
            let thing = thing.to_string();
            let verdict = if let SdkError::ServiceError(answer) = &error {
                let status = answer.raw().status().as_u16();
                refused(status, answer.err().code(), answer.err().message().unwrap_or_default(), action)
            } else if let Some(none) = Chain::new(&error).find_map(|link| link.downcast_ref()) {
                no_credentials(none)
            } else {
                unanswered(&error)
            };
            let unreachable = Obstacle::of(&error).is_none()
                && Chain::new(&error).any(|link| CONNECTING.contains(&link.to_string().as_str()));
            let Error { kind, message, hint } = verdict;
            CallError { action, thing, kind, hint, cause: Answer(message), unreachable }.into()
        })
    }
}

/// `None` for the service error that means "there is no such thing".
pub trait OrAbsent<T, E, R> {
    /// `absent` recognises that error.
    ///
    /// # Errors
    /// Every other error.
    fn or_absent(self, absent: impl FnOnce(&E) -> bool) -> Result<Option<T>, SdkError<E, R>>;
}

impl<T, E, R> OrAbsent<T, E, R> for Result<T, SdkError<E, R>> {
    fn or_absent(self, absent: impl FnOnce(&E) -> bool) -> Result<Option<T>, SdkError<E, R>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.as_service_error().is_some_and(absent) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Error codes that ask to come back later. The SDK has retried them already. Source: the throttling and transient
/// codes of the SDK's own classifier, but for `LimitExceededException`, which here is a quota's; and IAM's API reference.
const LATER: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestLimitExceededException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    // Of IAM: another change of the same thing is under way.
    "ConcurrentModification",
    "RequestTimeout",
    "RequestTimeoutException",
    "InternalError",
    "InternalFailure",
    "InternalServiceError",
    "ServerException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ServiceFailure",
    "ServiceFailureException",
];

/// Error codes that mean the caller may not do this.
const DENIED: &[&str] = &["AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"];

/// Error codes of a session that is over.
const EXPIRED: &[&str] = &["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

/// Error codes that mean AWS does not know the caller. A region that an account has not enabled knows nobody, either.
const STRANGER: &[&str] = &["InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"];

/// Error codes of a signature that is wrong. A clock that is off is not it: the SDK signs again by AWS's own.
const FORGED: &[&str] = &["SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"];

/// Links of the chain of causes that mean there was no connection at all. Source: hyper-util.
const CONNECTING: &[&str] = &["client error (Connect)"];

const LOG_IN: &str = "log in (aws sso login or aws login), name a profile (AWS_PROFILE), or set AWS_ACCESS_KEY_ID and \
                      AWS_SECRET_ACCESS_KEY";

/// The action that AWS says the caller lacks, of a message like `… is not authorized to perform: iam:TagRole on …`. It
/// need not be the one that was called.
pub fn lacking(message: &str) -> Option<&str> {
    let (_, action) = message.split_once("not authorized to perform: ")?;
    action.split([' ', '"']).next()
}

/// What to do about an action that the caller may not do.
pub fn permit(message: &str, action: &str) -> String {
    let action = lacking(message).unwrap_or(action);
    if message.contains("explicit deny") {
        return format!("a policy forbids the caller {action}");
    }
    format!("the caller needs the permission {action}")
}

/// What AWS said, or what stands before it, which has no codes.
fn refused(status: u16, code: Option<&str>, message: &str, action: &str) -> Error {
    let said = code.map_or_else(|| format!("HTTP status {status}"), str::to_owned);
    let text = if message.is_empty() { said } else { format!("{said}: {message}") };
    let code = code.unwrap_or_default();
    match code {
        _ if LATER.contains(&code) || status >= 500 => {
            Error::retry(text).hint("AWS asks to come back later: run it again")
        }
        // LimitExceeded of IAM, LimitExceededException of ECR, RulesPerSecurityGroupLimitExceeded of EC2, …
        _ if code.contains("LimitExceeded") => Error::failed(text)
            .hint("a quota of the account is used up: ask for more (aws service-quotas), or remove what nobody needs"),
        _ if DENIED.contains(&code) => Error::failed(text).hint(permit(message, action)),
        _ if EXPIRED.contains(&code) => Error::failed(text).hint(format!("the session is over: {LOG_IN}")),
        _ if STRANGER.contains(&code) => Error::failed(text)
            .hint("AWS does not know these credentials, or the account has not enabled the region: aws configure list"),
        _ if FORGED.contains(&code) => {
            Error::failed(text).hint("the secret access key does not fit the access key: aws configure list")
        }
        _ => Error::failed(text),
    }
}

/// Why there are no credentials, without the list of all the places that have none.
pub(crate) fn no_credentials(error: &CredentialsError) -> Error {
    let none = "no AWS credentials";
    if let Some(code) = Chain::new(error).find_map(|link| link.downcast_ref::<MfaCodeNeeded>()) {
        return Error::failed(format!("{none}: {code}")).hint(code.hint());
    }
    let CredentialsError::CredentialsNotLoaded(_) = error else {
        return Error::failed(format!("{none}: {}", told(error))).hint(LOG_IN);
    };
    let chain = error.source().and_then(|source| source.downcast_ref::<ProviderChainError<CredentialsError>>());
    let attempts = chain.map(ProviderChainError::attempts).unwrap_or_default();
    let profile =
        attempts.iter().find(|attempt| attempt.name() == "Profile").and_then(|attempt| attempt.error().source());
    Error::failed(profile.map_or_else(|| none.to_owned(), |reason| format!("{none}: {reason}"))).hint(LOG_IN)
}

/// What the way to AWS, or its answer, was like.
fn unanswered<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> Error {
    let text = told(error);
    match Obstacle::of(error) {
        Some(Obstacle::Certificate(distrust)) => return Error::failed(text).hint(distrust.hint()),
        Some(Obstacle::Proxy) => return Error::retry(text).hint(PROXY),
        None => {}
    }
    match error {
        SdkError::ConstructionFailure(_) => Error::failed(text).hint("check the region: aws configure list"),
        SdkError::ResponseError(_) => Error::retry(text).hint("the answer was cut short, or not AWS's: run it again"),
        SdkError::TimeoutError(_) => Error::retry(text).hint("AWS did not answer in time: check region and network"),
        _ => Error::retry(text).hint("AWS could not be reached: run it again"),
    }
}

/// The causes in one line, without those that only say that there is another.
fn told(error: &(dyn StdError + 'static)) -> String {
    const EMPTY: &[&str] = &[
        "dispatch failure",
        "other",
        "io error",
        "timeout",
        "request has timed out",
        "response error",
        "failed to construct request",
        "client error (Connect)",
        "client error (SendRequest)",
    ];
    let mut causes: Vec<String> =
        Chain::new(error).map(ToString::to_string).filter(|text| !EMPTY.contains(&text.as_str())).collect();
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let denied =
            "User: arn:aws:iam::1:user/a is not authorized to perform: iam:TagRole on resource: role/r because";
        for (status, code, message, kind, hint) in [
            (403, "AccessDenied", denied, Kind::Failed, "the caller needs the permission iam:TagRole"),
            (403, "AccessDenied", "Access denied", Kind::Failed, "the caller needs the permission iam:CreateRole"),
            (
                403,
                "UnauthorizedOperation",
                "an explicit deny",
                Kind::Failed,
                "a policy forbids the caller iam:CreateRole",
            ),
            (403, "ExpiredToken", "", Kind::Failed, "the session is over: log in"),
            (401, "AuthFailure", "", Kind::Failed, "AWS does not know these credentials"),
            (403, "SignatureDoesNotMatch", "", Kind::Failed, "the secret access key does not fit"),
            (400, "ThrottlingException", "", Kind::Retry, "AWS asks to come back later"),
            (503, "Unheard", "", Kind::Retry, "AWS asks to come back later"),
            (503, "RequestLimitExceeded", "", Kind::Retry, "AWS asks to come back later"),
            (409, "LimitExceeded", "", Kind::Failed, "a quota of the account is used up"),
            (400, "LimitExceededException", "", Kind::Failed, "a quota of the account is used up"),
            (400, "RulesPerSecurityGroupLimitExceeded", "", Kind::Failed, "a quota of the account is used up"),
        ] {
            let error = refused(status, Some(code), message, "iam:CreateRole");
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.hint.as_ref().is_some_and(|said| said.starts_with(hint)), "{code}: {:?}", error.hint);
            assert!(error.message.starts_with(code), "{}", error.message);
        }
        assert_eq!(refused(404, Some("NoSuchEntity"), "no role r", "iam:GetRole").hint, None);
        assert_eq!(refused(418, None, "", "iam:GetRole").message, "HTTP status 418");
    }

    #[test]
    fn causes_that_say_nothing_are_left_out() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Link(&'static str, #[source] Option<Box<Link>>);
        let chain = |links: &[&'static str]| {
            links.iter().rev().fold(None, |inner, text| Some(Box::new(Link(text, inner)))).map(|link| told(&*link))
        };
        let refused = chain(&["dispatch failure", "io error", "client error (Connect)", "dns error", "no such name"]);
        assert_eq!(refused.as_deref(), Some("dns error: no such name"));
        assert_eq!(chain(&["dispatch failure", "other"]).as_deref(), Some("dispatch failure"));
    }
}
