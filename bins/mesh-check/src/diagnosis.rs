//! Joins what is seen of all clusters into one scene, and has it judged.

use crate::checks::{Report, chosen, wanted};
use crate::finding::{Check, Finding};
use crate::scene::{CloudMap, Scene, Side};
use crate::world::{ClusterView, Fault, Lookup, World};
use crate::{aws, controller, identity, network, objects, preflight, sidecars, state};
use anyhow::{Context as _, Result};
use aws_config::SdkConfig;
use common::aws::AwsFlags;
use common::cluster::Cluster;
use common::{Error, Session};
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use mesh_objects::Source;
use std::collections::BTreeSet;

/// Manifests, as far as they tell.
pub fn of_manifests(sides: Vec<Side>) -> Scene {
    Scene { sides, cloud_map: None, apart: None, now: Timestamp::now() }
}

/// Clusters whose meshes were looked at, with what AWS has for them. `by` says how it is asked about one; about what they
/// share it is asked as for the first.
pub async fn of_clusters<'a>(
    session: &Session,
    by: impl Fn(&str) -> &'a AwsFlags,
    only: &[String],
    mut sides: Vec<Side>,
) -> Result<Scene> {
    let Some(flags) = sides.first().map(|first| by(&first.name)) else { return Ok(of_manifests(sides)) };
    let config = &session.aws(flags).await?;
    let (names, two) = (aws::names(&sides), sides.len() > 1);
    let facts: Vec<_> = sides.iter().filter_map(|side| side.facts.clone()).collect();
    let cloud_map = async {
        match facts.first().filter(|_| wanted("05", only)) {
            Some(first) => shared(session, flags, config, &names, &first.account, &facts).await.map(Some),
            None => Ok(None),
        }
    };
    let apart = async {
        match &facts[..] {
            [one, other, ..] if wanted("03", only) => session.apart(config, one, other).await,
            _ => Ok(None),
        }
    };
    let each = try_join_all(sides.iter_mut().map(async |side| {
        let config = &session.aws(by(&side.name)).await?;
        if wanted("02", only) {
            aws::identity(config, side).await;
        }
        if wanted("03", only) && two {
            aws::network(config, side).await;
        }
        anyhow::Ok(())
    }));
    let (cloud_map, apart, each) = tokio::join!(cloud_map, apart, each);
    each?;
    let Some(first) = sides.first_mut() else { return Ok(of_manifests(sides)) };
    let cloud_map = first.seen("Cloud Map", cloud_map).flatten();
    let apart = first.seen("what joins the VPCs", apart).flatten();
    Ok(Scene { sides, cloud_map, apart, now: Timestamp::now() })
}

/// Cloud Map, with the clusters in it that are no more.
async fn shared(
    session: &Session,
    flags: &AwsFlags,
    config: &SdkConfig,
    names: &BTreeSet<String>,
    account: &str,
    facts: &[Cluster],
) -> Result<CloudMap> {
    let mut cloud_map = aws::cloud_map(config, names, account).await?;
    let known = facts.iter().map(|facts| facts.arn.clone()).collect();
    for arn in aws::others(&cloud_map, &known) {
        let Some((_, name)) = arn.rsplit_once('/') else { continue };
        if !session.has_cluster(flags, name).await? {
            cloud_map.gone.insert(arn);
        }
    }
    Ok(cloud_map)
}

/// Adds to a report all that keeps a mesh from being made.
pub fn judge_world(world: &World, only: &[String], report: &mut Report) {
    if wanted("01", only) {
        let asked: BTreeSet<&str> = chosen(only).map(|check| check.code).collect();
        report.checked.extend(preflight::CHECKS.iter().map(|check| check.code).filter(|code| asked.contains(code)));
        let findings = preflight::judge(world).into_iter();
        report.findings.extend(findings.filter(|finding| asked.contains(finding.code.as_str())));
    }
}

/// The mesh of a cluster; where there is none, that is noted.
pub fn standing(view: ClusterView, only: &[String], report: &mut Report) -> Option<Side> {
    let cluster = format!("cluster {}", view.name);
    let seen = match view.lookup {
        Lookup::Active(_, Ok(kubernetes)) => kubernetes.mesh,
        Lookup::Active(_, Err(fault)) | Lookup::Refused(fault) | Lookup::Absent(fault) | Lookup::Inactive(fault) => {
            // Group 01 has a check for it.
            if !wanted("01", only) {
                report.unseen.push(fault.words(&cluster));
            }
            return None;
        }
    };
    match seen {
        Ok(Some(side)) => return Some(side),
        Ok(None) => report.unseen.push(format!("{cluster}: no mesh is installed, so only XM01 is checked")),
        Err(fault) => report.unseen.push(fault.words(&format!("{cluster}: not looked at: its mesh"))),
    }
    None
}

/// What manifests hold, by the clusters that they are for.
pub fn read(files: &[String]) -> Result<Vec<Side>> {
    let mut sides: Vec<Side> = Vec::new();
    for file in files {
        let Ok(source) = file.parse::<Source>();
        if source.is_stdin() {
            return Err(Error::input("--file -: a document is on stdin, no manifests").hint("name a file").into());
        }
        let at = sides.iter().position(|side| side.name == source.cluster()).unwrap_or_else(|| {
            sides.push(Side::new(source.cluster()));
            sides.len() - 1
        });
        let objects = source.objects(b"").with_context(|| format!("check {}", source.name()))?;
        objects.into_iter().for_each(|object| sides[at].add(object));
    }
    Ok(sides)
}

/// A group's checks, whether there was anything for them to look at, and their judge.
type Judge = (&'static [Check], fn(&Scene) -> bool, fn(&Scene) -> Vec<Finding>);

const JUDGES: [Judge; 6] = [
    (identity::CHECKS, |scene| scene.sides.iter().any(|side| side.identity.is_some()), identity::judge),
    (network::CHECKS, |scene| scene.sides.iter().any(|side| side.around.slices.is_some()), network::judge),
    (objects::CHECKS, |scene| !scene.sides.is_empty(), objects::judge),
    (state::CHECKS, |scene| scene.cloud_map.is_some(), state::judge),
    (sidecars::CHECKS, |scene| scene.sides.iter().any(|side| side.pods.is_some()), sidecars::judge),
    (controller::CHECKS, |scene| scene.sides.iter().any(|side| side.deployments.is_some()), controller::judge),
];

/// Adds to a report all that is wrong with a scene, and what of it could not be looked at.
pub fn judge(scene: &Scene, only: &[String], report: &mut Report) {
    let codes: BTreeSet<&str> = chosen(only).map(|check| check.code).collect();
    let live = scene.sides.iter().any(|side| side.facts.is_some());
    for (checks, looked_at, judge) in JUDGES {
        let asked: Vec<&str> = checks.iter().map(|check| check.code).filter(|code| codes.contains(code)).collect();
        if !asked.is_empty() && looked_at(scene) {
            let told = |code: &&str| live || !objects::LIVE.iter().any(|check| check.code == *code);
            report.checked.extend(asked.into_iter().filter(told));
            report.findings.extend(judge(scene).into_iter().filter(|finding| codes.contains(finding.code.as_str())));
        }
    }
    for side in scene.sides.iter().filter(|side| !side.unseen.is_empty()) {
        // What lacks one permission lacks it for many things.
        let words: BTreeSet<String> =
            side.unseen.iter().map(|(what, fault): &(String, Fault)| fault.words(what)).collect();
        let words: Vec<String> = words.into_iter().collect();
        report.unseen.push(format!("{}: not looked at: {}", side.label(), words.join("; ")));
    }
}
