//! Prints the CRDs of the chart: `cargo run -p mesh-api --example crds > charts/appmesh-controller/crds/crds.yaml`

use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    stdout().write_all(serde_saphyr::to_string_multiple(&mesh_api::crds::all())?.as_bytes())?;
    Ok(())
}
