//! Says what to change about an identity provider. Pure.

use anyhow::Result;
use common::plan::Effect;
use std::fmt;

/// The provider the cluster needs.
#[derive(Debug, Clone)]
pub struct Want {
    /// `arn:PARTITION:iam::ACCOUNT:oidc-provider/ISSUER`, the issuer without its scheme.
    pub arn: String,
    /// Audiences that must be allowed.
    pub audiences: Vec<String>,
    /// `https://…`
    pub url: String,
    /// Take over a provider that others made.
    pub adopt: bool,
}

/// The provider IAM has.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Audiences that are allowed.
    pub audiences: Vec<String>,
    /// Whose it is, if not ours.
    pub foreign: Option<String>,
    /// The roles that trust it; looked up for `--delete` only.
    pub trusting: Vec<String>,
}

impl Provider {
    /// Why `--delete` leaves it.
    fn why_left(&self) -> Option<String> {
        let used = || format!("roles trust it: {}", self.trusting.join(", "));
        self.foreign.clone().or_else(|| (!self.trusting.is_empty()).then(used))
    }
}

/// One step.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Register the issuer.
    Create { url: String, audiences: Vec<String> },
    /// Make it ours.
    Adopt { arn: String },
    /// Allow one more audience.
    AddAudience { arn: String, audience: String },
    /// Remove the provider.
    Delete { arn: String },
}

impl common::plan::Change for Change {
    fn effect(&self) -> Effect {
        match self {
            Change::Create { .. } => Effect::Add,
            Change::Adopt { .. } | Change::AddAudience { .. } => Effect::Change,
            Change::Delete { .. } => Effect::Remove,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Create { url, audiences } => write!(f, "create provider {url} for {}", audiences.join(", ")),
            Change::Adopt { arn } => write!(f, "take over provider {arn}"),
            Change::AddAudience { arn, audience } => write!(f, "add audience {audience} to {arn}"),
            Change::Delete { arn } => write!(f, "delete provider {arn}"),
        }
    }
}

impl common::plan::Want for Want {
    type Have = Option<Provider>;
    type Change = Change;

    /// A provider somebody else made is used: only a missing audience is added, which takes nothing from them.
    fn plan(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let Some(have) = have else {
            return Ok(vec![Change::Create { url: self.url.clone(), audiences: self.audiences.clone() }]);
        };
        let adopt = have.foreign.iter().filter(|_| self.adopt).map(|_| Change::Adopt { arn: self.arn.clone() });
        let missing = self.audiences.iter().filter(|audience| !have.audiences.contains(audience));
        let add = missing.map(|audience| Change::AddAudience { arn: self.arn.clone(), audience: audience.clone() });
        Ok(adopt.chain(add).collect())
    }

    /// Only what carries our tag is deleted, and what no role needs any more.
    fn plan_delete(&self, have: &Self::Have) -> Result<Vec<Self::Change>> {
        let unused = have.as_ref().filter(|have| have.why_left().is_none());
        Ok(unused.map(|_| Change::Delete { arn: self.arn.clone() }).into_iter().collect())
    }

    /// That the provider is somebody else's, and so is what is added to it.
    fn remarks(&self, have: &Self::Have) -> Vec<String> {
        let foreign = have.as_ref().and_then(|have| have.foreign.as_ref()).filter(|_| !self.adopt);
        let used = |whose| format!("provider {} is used, {whose}: --adopt takes it over", self.arn);
        foreign.map(used).into_iter().collect()
    }

    /// Why `--delete` leaves the provider.
    fn left_alone(&self, have: &Self::Have) -> Vec<String> {
        let why = have.as_ref().and_then(Provider::why_left);
        why.map(|why| format!("provider {}: {why}", self.arn)).into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use common::plan::Want as _;

    type Words = &'static [&'static str];
    /// What is there → what is made, remarked, made when adopting, deleted, left.
    type Case = (&'static str, Option<Provider>, Words, Words, Words, Words, Words);

    fn words(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    fn provider(foreign: Option<&str>, audiences: &[&str]) -> Option<Provider> {
        let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        Some(Provider { audiences, foreign: foreign.map(str::to_owned), trusting: Vec::new() })
    }

    #[test]
    fn only_what_is_missing_is_made_and_only_ours_is_deleted() {
        const CREATE: &str = "create provider https://i for sts, x";
        const TAKE: &str = "take over provider arn:i";
        const STS: &str = "add audience sts to arn:i";
        const X: &str = "add audience x to arn:i";
        const DELETE: &str = "delete provider arn:i";
        const USED: &str = "provider arn:i is used, managed by bob: --adopt takes it over";
        const LEFT: &str = "provider arn:i: managed by bob";
        let bob = Some("managed by bob");
        let trusted =
            || provider(None, &["sts", "x"]).map(|it| Provider { trusting: vec!["a".into(), "b".into()], ..it });
        const TRUSTED: &str = "provider arn:i: roles trust it: a, b";
        let cases: [Case; 7] = [
            ("ours, trusted", trusted(), &[], &[], &[], &[], &[TRUSTED]),
            ("none", None, &[CREATE], &[], &[CREATE], &[], &[]),
            ("ours", provider(None, &["sts", "x"]), &[], &[], &[], &[DELETE], &[]),
            ("ours, with more", provider(None, &["x", "other", "sts"]), &[], &[], &[], &[DELETE], &[]),
            ("ours, audiences removed", provider(None, &[]), &[STS, X], &[], &[STS, X], &[DELETE], &[]),
            ("of others", provider(bob, &["x", "sts", "other"]), &[], &[USED], &[TAKE], &[], &[LEFT]),
            ("of others, audience missing", provider(bob, &["sts"]), &[X], &[USED], &[TAKE, X], &[], &[LEFT]),
        ];
        let want = |adopt| Want {
            arn: "arn:i".into(),
            audiences: vec!["sts".into(), "x".into()],
            url: "https://i".into(),
            adopt,
        };
        for (case, have, make, remark, adopt, delete, left) in cases {
            assert_eq!(words(want(false).plan(&have).unwrap()), make, "{case}");
            assert_eq!(want(false).remarks(&have), remark, "{case}");
            assert_eq!(words(want(true).plan(&have).unwrap()), adopt, "{case}");
            assert_eq!(want(true).remarks(&have), [""; 0], "{case}");
            assert_eq!(words(want(false).plan_delete(&have).unwrap()), delete, "{case}");
            assert_eq!(want(false).left_alone(&have), left, "{case}");
        }
    }
}
