//! Looks at the profile that the AWS CLI would use, for what the SDK leaves unsaid or cannot do.

use crate::Error;
use anyhow::Result;
use aws_config::profile::{ProfileSet, load};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_types::os_shim_internal::{Env, Fs};

/// Variables that name a profile. The SDK hears the first alone.
const NAMES: [&str; 2] = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"];

/// The profile in use.
pub(super) struct Profile {
    /// What the SDK must be told, for it would not find it.
    pub(super) name: Option<String>,
    /// Whom it asks for.
    pub(super) code: Option<MfaCodeNeeded>,
}

impl Profile {
    /// Reads that of the flag, or of the environment, from the files of the AWS CLI.
    ///
    /// # Errors
    /// The flag or a variable names one that does not exist.
    pub(super) async fn load(flag: Option<String>) -> Result<Self> {
        let variables = NAMES.map(|name| std::env::var(name).ok());
        let name = flag.or_else(|| variables.iter().flatten().find(|name| !name.is_empty()).cloned());
        // A variable that is empty is one that is not set, but for the SDK.
        let is_empty = variables.iter().flatten().any(String::is_empty);
        let told = name.clone().or_else(|| is_empty.then(|| "default".to_owned()));
        // Files that cannot be read are named by the SDK, if it needs them.
        let named = name.clone().map(Into::into);
        let Ok(profiles) = load(&Fs::real(), &Env::real(), &Default::default(), named).await else {
            return Ok(Self { name: told, code: None });
        };
        match &name {
            Some(name) if profiles.get_profile(name).is_none() => {
                let none = Error::failed(format!("there is no AWS profile {name}"));
                Err(none.hint("aws configure list-profiles").into())
            }
            _ => Ok(Self { name: told, code: MfaCodeNeeded::by(&profiles) }),
        }
    }
}

/// A role that is only given for a code of somebody's device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("profile {profile} asks for a code of the MFA device {device}, which the AWS CLI reads")]
pub(super) struct MfaCodeNeeded {
    profile: String,
    device: String,
}

impl MfaCodeNeeded {
    /// The first such role on the way from the selected profile to its source.
    fn by(profiles: &ProfileSet) -> Option<Self> {
        let mut name = profiles.selected_profile();
        // A chain as long as all profiles turns in a circle.
        for _ in profiles.profiles() {
            let profile = profiles.get_profile(name)?;
            if let (Some(_), Some(device)) = (profile.get("role_arn"), profile.get("mfa_serial")) {
                return Some(Self { profile: name.to_owned(), device: device.to_owned() });
            }
            name = profile.get("source_profile")?;
        }
        None
    }

    /// What to do.
    pub(super) fn hint(&self) -> String {
        format!("eval \"$(aws configure export-credentials --profile {} --format env)\"", self.profile)
    }
}

/// Credentials that may fail for want of a code.
#[derive(Debug)]
pub(super) struct WithMfa {
    pub(super) inner: SharedCredentialsProvider,
    pub(super) code: MfaCodeNeeded,
}

impl ProvideCredentials for WithMfa {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let provided = self.inner.provide_credentials().await;
            provided.map_err(|_| CredentialsError::provider_error(self.code.clone()))
        })
    }
}
