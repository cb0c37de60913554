//! The chart ships the CRDs that the types generate.

#[test]
fn the_charts_crds_are_generated() {
    let committed = include_str!("../../../charts/appmesh-controller/crds/crds.yaml");
    assert!(
        committed == serde_saphyr::to_string_multiple(&mesh_api::crds::all()).unwrap(),
        "run: cargo run -p mesh-api --example crds > charts/appmesh-controller/crds/crds.yaml"
    );
}
