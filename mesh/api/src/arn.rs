//! App Mesh's resource names. No API stands behind them any more; they are what one cluster calls another's
//! VirtualService by.

use std::{fmt, str::FromStr};

/// `arn:<partition>:appmesh:<region>:<account>:mesh/<mesh>[/<kind>/<name>]`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arn {
    /// `aws`, `aws-cn`, `aws-us-gov`
    pub partition: String,
    /// Such as `us-west-2`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// The mesh's name in AWS's terms.
    pub mesh: String,
    /// What it names in the mesh.
    pub resource: MeshResource,
}

/// What an [`Arn`] names in its mesh. The names are those of AWS (`awsName`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeshResource {
    /// The mesh itself.
    Mesh,
    /// `virtualNode/<name>`
    VirtualNode(String),
    /// `virtualService/<name>`
    VirtualService(String),
    /// `virtualRouter/<name>`
    VirtualRouter(String),
    /// `virtualRouter/<router>/route/<name>`
    Route(String, String),
    /// `virtualGateway/<name>`
    VirtualGateway(String),
    /// `virtualGateway/<gateway>/gatewayRoute/<name>`
    GatewayRoute(String, String),
}

/// A text is not an ARN of App Mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an App Mesh ARN: expected arn:PARTITION:appmesh:REGION:ACCOUNT:mesh/MESH[/KIND/NAME]")]
pub struct ParseArnError(String);

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, region, account, mesh, resource } = self;
        write!(f, "arn:{partition}:appmesh:{region}:{account}:mesh/{mesh}")?;
        match resource {
            MeshResource::Mesh => Ok(()),
            MeshResource::VirtualNode(name) => write!(f, "/virtualNode/{name}"),
            MeshResource::VirtualService(name) => write!(f, "/virtualService/{name}"),
            MeshResource::VirtualRouter(name) => write!(f, "/virtualRouter/{name}"),
            MeshResource::Route(router, name) => write!(f, "/virtualRouter/{router}/route/{name}"),
            MeshResource::VirtualGateway(name) => write!(f, "/virtualGateway/{name}"),
            MeshResource::GatewayRoute(gateway, name) => write!(f, "/virtualGateway/{gateway}/gatewayRoute/{name}"),
        }
    }
}

impl FromStr for Arn {
    type Err = ParseArnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseArnError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Arn> {
    let [partition, "appmesh", region, account, path] = text.strip_prefix("arn:")?.split(':').collect::<Vec<_>>()[..]
    else {
        return None;
    };
    let ["mesh", mesh, rest @ ..] = &path.split('/').collect::<Vec<_>>()[..] else { return None };
    let resource = match *rest {
        [] => MeshResource::Mesh,
        ["virtualNode", name] => MeshResource::VirtualNode(name.to_owned()),
        ["virtualService", name] => MeshResource::VirtualService(name.to_owned()),
        ["virtualRouter", name] => MeshResource::VirtualRouter(name.to_owned()),
        ["virtualRouter", router, "route", name] => MeshResource::Route(router.to_owned(), name.to_owned()),
        ["virtualGateway", name] => MeshResource::VirtualGateway(name.to_owned()),
        ["virtualGateway", gateway, "gatewayRoute", name] => {
            MeshResource::GatewayRoute(gateway.to_owned(), name.to_owned())
        }
        _ => return None,
    };
    let whole = [partition, region, account].into_iter().chain(path.split('/')).all(|part| !part.is_empty());
    whole.then(|| Arn {
        partition: partition.to_owned(),
        region: region.to_owned(),
        account: account.to_owned(),
        mesh: (*mesh).to_owned(),
        resource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tests::hostile::spoiled_text;
    use proptest::prelude::*;

    #[test]
    fn an_arn_parses_and_prints_alike() {
        for (text, resource) in [
            ("arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi", MeshResource::Mesh),
            (
                "arn:aws-cn:appmesh:cn-north-1:123456789012:mesh/k8multi/virtualNode/front_k8multi",
                MeshResource::VirtualNode("front_k8multi".to_owned()),
            ),
            (
                "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualService/colorapp.k8multi",
                MeshResource::VirtualService("colorapp.k8multi".to_owned()),
            ),
            (
                "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualRouter/r_k8multi",
                MeshResource::VirtualRouter("r_k8multi".to_owned()),
            ),
            (
                "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualRouter/r_k8multi/route/color",
                MeshResource::Route("r_k8multi".to_owned(), "color".to_owned()),
            ),
            (
                "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualGateway/g_k8multi",
                MeshResource::VirtualGateway("g_k8multi".to_owned()),
            ),
            (
                "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualGateway/g_k8multi/gatewayRoute/color",
                MeshResource::GatewayRoute("g_k8multi".to_owned(), "color".to_owned()),
            ),
        ] {
            let arn: Arn = text.parse().unwrap();
            assert_eq!(arn.resource, resource);
            assert_eq!(arn.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "colorapp-service-ARN",
            "arn:aws:iam::123456789012:role/mesh",
            "arn:aws:appmesh:us-west-2:123456789012:mesh/",
            "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualService/",
            "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi/virtualGateway/g/route/a",
            "arn:aws:appmesh::123456789012:mesh/k8multi",
        ] {
            assert!(text.parse::<Arn>().is_err(), "{text}");
        }
    }

    ::tests::property! {
        #[test]
        fn spoiled_arns_are_refused_or_told_as_they_were(text in spoiled_text([
            "arn:aws:appmesh:us-west-2:123456789012:mesh/k8multi",
            "arn:aws-cn:appmesh:cn-north-1:123456789012:mesh/k8multi/virtualRouter/r_k8multi/route/color",
        ])) {
            if let Ok(arn) = text.parse::<Arn>() {
                prop_assert_eq!(arn.to_string(), text);
            }
        }
    }
}
