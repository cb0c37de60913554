//! Holds the installation that is wanted, and says what follows from it.

use crate::chart::Chart;
use crate::helm::{Helm, Upgrade};
use crate::mesh::Mesh;
use crate::plan::{self, Change, Have, MANAGER, Target};
use anyhow::{Context, Result};
use common::kube::apply::{self, Manifest};
use common::kube::object::Objects;
use common::plan::Place;

/// The installation, resolved.
pub struct Want {
    pub mesh: Mesh,
    pub target: Target,
    /// Nothing on `--delete`.
    pub chart: Option<Chart>,
    pub manifests: Vec<Manifest>,
    pub adopt: bool,
    /// There is no document, which could name a role and images.
    pub from_nothing: bool,
    pub objects: Objects,
    pub helm: Helm,
}

impl common::plan::Want for Want {
    type Have = Have;
    type Change = Change;

    const PLACE: Place = Place::Cluster;

    fn plan(&self, have: &Have) -> Result<Vec<Change>> {
        let chart = self.chart.as_ref().context("no chart was read")?;
        if self.from_nothing {
            plan::keeps_its_own(&self.target, &self.mesh.values, have)?;
        }
        plan::plan(&self.target, &self.manifests, chart, &self.mesh.values, have, self.adopt)
    }

    fn plan_delete(&self, have: &Have) -> Result<Vec<Change>> {
        plan::plan_delete(&self.target, &self.manifests, have)
    }

    fn remarks(&self, have: &Have) -> Vec<String> {
        let release = have.release.iter().filter(|release| !self.adopt && !release.ours());
        let release = release.map(|it| format!("release {}: {}, used as it is", self.target.release, it.origin()));
        apply::remarks(&self.manifests, &have.objects, MANAGER, self.adopt).into_iter().chain(release).collect()
    }

    fn left_alone(&self, have: &Have) -> Vec<String> {
        plan::left_alone(&self.target, &self.manifests, have)
    }
}

impl Want {
    /// Installs or upgrades the release.
    ///
    /// # Errors
    /// Helm's.
    pub async fn upgrade(&self, force: bool) -> Result<()> {
        let chart = self.chart.as_ref().context("no chart was read")?;
        let (target, values, adopt) = (&self.target, &self.mesh.values, self.adopt);
        self.helm.upgrade(&Upgrade { target, chart, values, adopt, force }).await
    }
}
