//! Reads and writes Amazon Resource Names.

use std::fmt;

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arn<'a> {
    /// `aws`, `aws-cn`, `aws-us-gov`, `aws-eusc`, …
    pub partition: &'a str,
    /// Such as `iam`.
    pub service: &'a str,
    /// Empty where a service has no regions.
    pub region: &'a str,
    /// Twelve digits, or `aws` for what is AWS's own.
    pub account: &'a str,
    /// What the service calls it, `cluster/shop`; it may have colons.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// `None` if it is of another shape.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        if next()? != "arn" {
            return None;
        }
        Some(Self { partition: next()?, service: next()?, region: next()?, account: next()?, resource: next()? })
    }

    /// The same with another resource.
    #[must_use]
    pub fn with(self, resource: &'a str) -> Self {
        Self { resource, ..self }
    }

    /// One of IAM, which has no regions.
    pub fn of_iam(partition: &'a str, account: &'a str, resource: &'a str) -> Self {
        Self { partition, service: "iam", region: "", account, resource }
    }
}

impl fmt::Display for Arn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, service, region, account, resource } = self;
        write!(f, "arn:{partition}:{service}:{region}:{account}:{resource}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_is_read_as_it_is_written() {
        let eks = "arn:aws-cn:eks:cn-north-1:123456789012:cluster/shop";
        let arn = Arn::parse(eks).unwrap();
        assert_eq!(
            (arn.partition, arn.region, arn.account, arn.resource),
            ("aws-cn", "cn-north-1", "123456789012", "cluster/shop")
        );
        assert_eq!(arn.to_string(), eks);
        assert_eq!(arn.with("cluster/stock").to_string(), "arn:aws-cn:eks:cn-north-1:123456789012:cluster/stock");
        assert_eq!(Arn::parse("arn:aws:logs:r:1:log-group:a:*").unwrap().resource, "log-group:a:*");
        assert_eq!(Arn::of_iam("aws", "aws", "policy/A").to_string(), "arn:aws:iam::aws:policy/A");
        for other in ["", "arn:aws:iam::1", "urn:aws:iam::1:role/a", "AWSCloudMapFullAccess"] {
            assert_eq!(Arn::parse(other), None, "{other}");
        }
    }
}
