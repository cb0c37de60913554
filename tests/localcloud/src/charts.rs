//! The chart repository `https://aws.github.io/eks-charts`: the files of the state folder's `charts`.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path as Asked, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::gateway::CHARTS_PORT;

/// Serves `folder`, whatever is in it by then.
pub async fn serve(folder: PathBuf) -> Result<()> {
    let router = Router::new().route("/eks-charts/{*file}", get(file)).with_state(folder);
    let listener = TcpListener::bind(("127.0.0.1", CHARTS_PORT)).await.context("listening for the chart repository")?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn file(State(folder): State<PathBuf>, Asked(asked): Asked<String>) -> Result<Vec<u8>, StatusCode> {
    let path = place(&folder, &asked).ok_or(StatusCode::BAD_REQUEST)?;
    tokio::fs::read(path).await.map_err(|_| StatusCode::NOT_FOUND)
}

/// The file meant, if it lies in the folder.
fn place(folder: &Path, asked: &str) -> Option<PathBuf> {
    let plain = Path::new(asked).components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| folder.join(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_folder_is_served() {
        let folder = Path::new("/state/charts");
        assert_eq!(place(folder, "index.yaml"), Some(folder.join("index.yaml")));
        assert_eq!(place(folder, "../operator.json"), None);
        assert_eq!(place(folder, "/etc/shadow"), None);
    }
}
