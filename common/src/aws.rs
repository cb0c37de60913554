//! AWS: one configuration a run, and errors that say which call failed on which thing.

use crate::{Error, Kind, Session};
use anyhow::Result;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use std::error::Error as StdError;
use std::fmt::{self, Debug, Display};
use std::time::Duration;

/// The tag that says a thing is ours, and its value.
pub const MANAGED_BY: (&str, &str) = ("managed-by", "crossmesh");

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
}

impl Session {
    /// The SDK configuration: region from flag, document or environment; credentials as the SDKs find them; adaptive
    /// retries.
    ///
    /// # Errors
    /// No region is given anywhere, or the document's is no string.
    pub async fn aws(&self, flags: &AwsFlags) -> Result<&SdkConfig> {
        if let Some(config) = self.aws.get() {
            return Ok(config);
        }
        let region = match &flags.region {
            Some(region) => Some(region.clone()),
            None => self.doc.read(&["cluster", "region"])?,
        };
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::adaptive().with_max_attempts(6))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build());
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Ok(name) = AppName::new("crossmesh") {
            loader = loader.app_name(name);
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(Error::input("no AWS region")
                .hint("give --region, cluster.region in the document, or AWS_REGION")
                .into());
        }
        Ok(self.aws.get_or_init(|| config))
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

impl<T, E, R> Call<T> for Result<T, SdkError<E, R>>
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    R: Debug + Send + Sync + 'static,
{
    fn call(self, action: &'static str, thing: impl Display) -> Result<T> {
        self.map_err(|error| {
            let (kind, hint) = judge(&error, action);
            let cause = Answer(answer(&error));
            CallError { action, thing: thing.to_string(), kind, hint, cause }.into()
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
/// codes of the SDK's own classifier.
const LATER: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestLimitExceededException",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "PriorRequestNotComplete",
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

/// Error codes that mean AWS does not know the caller.
const STRANGER: &[&str] = &[
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AuthFailure",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidSignatureException",
];

fn judge<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>, action: &str) -> (Kind, Option<String>) {
    match error {
        SdkError::ServiceError(service) => match service.err().code() {
            Some(code) if LATER.contains(&code) => {
                (Kind::Retry, Some("AWS asks to come back later: run it again".to_owned()))
            }
            Some(code) if DENIED.contains(&code) => {
                (Kind::Failed, Some(format!("the caller needs the permission {action}")))
            }
            Some(code) if STRANGER.contains(&code) => {
                (Kind::Failed, Some("check the credentials with: aws sts get-caller-identity".to_owned()))
            }
            _ => (Kind::Failed, None),
        },
        SdkError::DispatchFailure(failure) if !(failure.is_io() || failure.is_timeout()) => {
            (Kind::Failed, Some("check the credentials and the region: aws sts get-caller-identity".to_owned()))
        }
        SdkError::ConstructionFailure(_) => (Kind::Failed, None),
        _ => (Kind::Retry, Some("AWS could not be reached: run it again".to_owned())),
    }
}

/// `Code: message` of a service error, the chain of causes of any other.
fn answer<E: StdError + ProvideErrorMetadata + 'static, R: Debug + 'static>(error: &SdkError<E, R>) -> String {
    if let Some(service) = error.as_service_error() {
        let code = service.code().unwrap_or("unknown error");
        return service.message().map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
