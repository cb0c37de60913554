//! The IAM calls, one function each.

use crate::plan::{Role, Want};
use anyhow::{Context, Result};
use aws_config::SdkConfig;
use aws_sdk_iam::Client;
use aws_sdk_iam::error::ErrorMetadata;
use aws_sdk_iam::operation::delete_role::DeleteRoleError;
use aws_sdk_iam::types::{PolicyScopeType, Tag};
use common::arn::Arn;
use common::aws::{Call, OrAbsent};
use common::{Error, Found, Session};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a server of IAM may not know of what another has made.
pub const SETTLING: Duration = Duration::from_secs(60);

/// How long what was taken off a role may still keep it from being deleted. What others put on it meanwhile does so for good.
const CONFLICTING: Duration = Duration::from_secs(15);

pub struct Iam(Client);

impl Iam {
    pub fn new(config: &SdkConfig) -> Self {
        Self(Client::new(config))
    }

    /// The role with everything on it; the instance profiles stay empty.
    pub async fn role(&self, name: &str) -> Result<Option<Role>> {
        let answer = self.0.get_role().role_name(name).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_entity_exception()).call("iam:GetRole", name)?;
        let Some(role) = answer.and_then(|answer| answer.role) else { return Ok(None) };
        let mut inline = BTreeMap::new();
        for policy in self.inline_policies(name).await? {
            let document = self.inline_policy(name, &policy).await?;
            inline.insert(policy, document);
        }
        Ok(Some(Role {
            attached: self.attached_policies(name).await?,
            inline,
            instance_profiles: Vec::new(),
            lent: Vec::new(),
            boundary: role.permissions_boundary().and_then(|b| b.permissions_boundary_arn()).map(str::to_owned),
            tags: role.tags().iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
            trust: role.assume_role_policy_document().map_or(Value::Null, decode),
            path: role.path,
            arn: role.arn,
        }))
    }

    async fn attached_policies(&self, role: &str) -> Result<Vec<String>> {
        let pages = self.0.list_attached_role_policies().role_name(role).into_paginator().items();
        let listed = pages.send().collect::<Result<Vec<_>, _>>().await;
        let listed = listed.or_absent(|error| error.is_no_such_entity_exception());
        let policies = listed.call("iam:ListAttachedRolePolicies", role)?.unwrap_or_default();
        Ok(policies.into_iter().filter_map(|policy| policy.policy_arn).collect())
    }

    async fn inline_policies(&self, role: &str) -> Result<Vec<String>> {
        let pages = self.0.list_role_policies().role_name(role).into_paginator().items();
        let listed = pages.send().collect::<Result<Vec<_>, _>>().await;
        let listed = listed.or_absent(|error| error.is_no_such_entity_exception());
        Ok(listed.call("iam:ListRolePolicies", role)?.unwrap_or_default())
    }

    async fn inline_policy(&self, role: &str, name: &str) -> Result<Value> {
        let answer = self.0.get_role_policy().role_name(role).policy_name(name).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_entity_exception()).call("iam:GetRolePolicy", name)?;
        Ok(answer.map_or(Value::Null, |policy| decode(&policy.policy_document)))
    }

    pub async fn instance_profiles(&self, role: &str) -> Result<Vec<String>> {
        let pages = self.0.list_instance_profiles_for_role().role_name(role).into_paginator().items();
        let listed = pages.send().collect::<Result<Vec<_>, _>>().await;
        let listed = listed.or_absent(|error| error.is_no_such_entity_exception());
        let profiles = listed.call("iam:ListInstanceProfilesForRole", role)?.unwrap_or_default();
        Ok(profiles.into_iter().map(|profile| profile.instance_profile_name).collect())
    }

    /// ARN of the managed policy of that name. Most of AWS's have no path and are found with one call.
    pub async fn resolve(&self, partition: &str, name: &str) -> Result<String> {
        let plain = managed(partition, name);
        if self.policy_exists(&plain).await? {
            return Ok(plain);
        }
        for scope in [PolicyScopeType::Aws, PolicyScopeType::Local] {
            if let Some(arn) = self.policy_named(name, scope).await? {
                return Ok(arn);
            }
        }
        let none = Error::failed(format!("no managed policy is named {name}"));
        Err(none.hint("give its ARN, or look for it with: aws iam list-policies").into())
    }

    async fn policy_exists(&self, arn: &str) -> Result<bool> {
        let answer = self.0.get_policy().policy_arn(arn).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_entity_exception()).call("iam:GetPolicy", arn)?;
        Ok(answer.is_some())
    }

    /// ARN of the first policy of that name, whatever its path.
    async fn policy_named(&self, name: &str, scope: PolicyScopeType) -> Result<Option<String>> {
        let mut pages = self.0.list_policies().scope(scope).into_paginator().send();
        while let Some(page) = pages.next().await {
            let policies = page.call("iam:ListPolicies", name)?.policies.unwrap_or_default();
            let found = policies.into_iter().find(|policy| policy.policy_name() == Some(name));
            if let Some(arn) = found.and_then(|policy| policy.arn) {
                return Ok(Some(arn));
            }
        }
        Ok(None)
    }

    pub async fn create(&self, want: &Want, tags: BTreeMap<String, String>) -> Result<()> {
        let call = self.0.create_role().role_name(&want.name).assume_role_policy_document(want.trust.to_string());
        let call = call.set_path(want.path.clone()).set_permissions_boundary(want.boundary.clone());
        let call = call.description(format!("for service accounts of {}", want.cluster));
        let answer = call.set_tags(Some(pairs(tags)?)).send().await;
        let answer = answer.or_absent(|error| error.is_entity_already_exists_exception());
        answer.call("iam:CreateRole", &want.name).map(drop)
    }

    pub async fn set_trust(&self, role: &str, document: &Value) -> Result<()> {
        let call = self.0.update_assume_role_policy().role_name(role).policy_document(document.to_string());
        call.send().await.call("iam:UpdateAssumeRolePolicy", role).map(drop)
    }

    pub async fn set_boundary(&self, role: &str, boundary: &str) -> Result<()> {
        let call = self.0.put_role_permissions_boundary().role_name(role).permissions_boundary(boundary);
        call.send().await.call("iam:PutRolePermissionsBoundary", role).map(drop)
    }

    pub async fn tag(&self, role: &str, tags: BTreeMap<String, String>) -> Result<()> {
        let call = self.0.tag_role().role_name(role).set_tags(Some(pairs(tags)?));
        call.send().await.call("iam:TagRole", role).map(drop)
    }

    pub async fn untag(&self, role: &str, keys: Vec<String>) -> Result<()> {
        let call = self.0.untag_role().role_name(role).set_tag_keys(Some(keys));
        call.send().await.call("iam:UntagRole", role).map(drop)
    }

    /// `record` is the tag that remembers it. It is there already and put there again: a run with another wish that came
    /// between has taken off what remembered nothing yet.
    pub async fn attach(&self, session: &Session, role: &str, policy: String, record: Option<String>) -> Result<()> {
        let attach = async || {
            let call = self.0.attach_role_policy().role_name(role).policy_arn(&policy);
            let answer = call.send().await.or_absent(|error| is_role_unknown(error.meta()));
            Ok(answer.call("iam:AttachRolePolicy", &policy)?.is_some())
        };
        settled(session, role, attach).await?;
        match record {
            Some(record) => self.tag(role, [(record, policy)].into()).await,
            None => Ok(()),
        }
    }

    pub async fn detach(&self, role: &str, policy: &str) -> Result<()> {
        let answer = self.0.detach_role_policy().role_name(role).policy_arn(policy).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_entity_exception());
        answer.call("iam:DetachRolePolicy", policy).map(drop)
    }

    /// `record` as in [`Iam::attach`].
    pub async fn put_inline(
        &self,
        session: &Session,
        role: &str,
        name: &str,
        document: &Value,
        record: String,
    ) -> Result<()> {
        let put = async || {
            let call = self.0.put_role_policy().role_name(role).policy_name(name).policy_document(document.to_string());
            let answer = call.send().await.or_absent(|error| is_role_unknown(error.meta()));
            Ok(answer.call("iam:PutRolePolicy", name)?.is_some())
        };
        settled(session, role, put).await?;
        self.tag(role, [(record, String::new())].into()).await
    }

    pub async fn delete_inline(&self, role: &str, name: &str) -> Result<()> {
        let answer = self.0.delete_role_policy().role_name(role).policy_name(name).send().await;
        let answer = answer.or_absent(|error| error.is_no_such_entity_exception());
        answer.call("iam:DeleteRolePolicy", name).map(drop)
    }

    /// A server of IAM may not know yet that nothing is on the role any more.
    pub async fn delete(&self, session: &Session, role: &str) -> Result<()> {
        let started = Instant::now();
        let delete = async || {
            let answer = self.0.delete_role().role_name(role).send().await;
            let held = answer.as_ref().err().and_then(|error| error.as_service_error());
            if held.is_some_and(DeleteRoleError::is_delete_conflict_exception) && started.elapsed() < CONFLICTING {
                return Ok(Found::NotYet("IAM still sees something on it".to_owned()));
            }
            let answer = answer.or_absent(|error| error.is_no_such_entity_exception());
            answer.call("iam:DeleteRole", role).map(|_| Found::Ready(()))
        };
        session.wait(format_args!("the end of role {role}"), delete).await
    }
}

/// ARN of one of AWS's policies without a path.
fn managed(partition: &str, name: &str) -> String {
    Arn::of_iam(partition, "aws", &format!("policy/{name}")).to_string()
}

/// `NoSuchEntity` of the role and not of the policy, which only the words tell: `The role with name mesh cannot be found.`
fn is_role_unknown(error: &ErrorMetadata) -> bool {
    error.code() == Some("NoSuchEntity") && error.message().is_some_and(|words| words.starts_with("The role with name"))
}

/// Makes a change for which IAM must know a role that was made a moment ago: its servers learn of it one after another.
async fn settled(session: &Session, role: &str, change: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    let look = async || match change().await? {
        true => Ok(Found::Ready(())),
        false if started.elapsed() < SETTLING => Ok(Found::NotYet("IAM does not know it yet".to_owned())),
        false => Err(Error::retry(format!("role {role} is gone")).hint("run it again: it makes the role anew").into()),
    };
    session.wait(format_args!("role {role}"), look).await
}

/// IAM gives documents back URL-encoded. One that is no JSON is like none.
fn decode(document: &str) -> Value {
    serde_json::from_str(&percent_decode_str(document).decode_utf8_lossy()).unwrap_or(Value::Null)
}

fn pairs(tags: BTreeMap<String, String>) -> Result<Vec<Tag>> {
    let tag = |(key, value)| Tag::builder().key(key).value(value).build();
    tags.into_iter().map(tag).collect::<Result<_, _>>().context("make tags")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::same;
    use ::tests::hostile::spoiled_text;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn policies_of_aws_are_those_of_the_partition() {
        for (partition, arn) in [
            ("aws", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
            ("aws-cn", "arn:aws-cn:iam::aws:policy/ReadOnlyAccess"),
            ("aws-us-gov", "arn:aws-us-gov:iam::aws:policy/ReadOnlyAccess"),
        ] {
            assert_eq!(managed(partition, "ReadOnlyAccess"), arn);
        }
    }

    #[test]
    fn documents_come_url_encoded() {
        assert_eq!(decode("%7B%22a%22%3A%20%22b+c%22%7D"), json!({"a": "b+c"}));
        assert_eq!(decode("%7B"), Value::Null);
    }

    ::tests::property! {
        #[test]
        fn spoiled_trust_policies_are_read_or_like_none(text in spoiled_text([
            "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C%22Principal%22%3A%7B%7D%7D%5D%7D",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["a:B","a:C"],"Condition":{"StringEquals":{"x":["y"]}}}]}"#,
        ])) {
            let document = decode(&text);
            prop_assert!(same(&document, &document) && same(&document, &json!([document])));
        }
    }
}
