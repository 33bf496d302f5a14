//! HTTP: what is served beside a stream, so that those who run it can watch it.
//!
//! - `GET /metrics`: `metrics.rs`.
//! - `GET /health`: 200 while the process does its work, 503 with the reason once only a new start would help.
//! - `GET /ready`: 200 while messages get through, 503 with the reason while they do not.

use crate::metrics::StreamMetrics;
use crate::{Error, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

/// How OpenMetrics names itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes `address`, and serves a stream's metrics and health there until it is dropped.
pub(crate) async fn watch(address: &str, metrics: Arc<StreamMetrics>) -> Result<impl Future<Output = ()>> {
    let failed = |error: std::io::Error| Error::setting("stream.listen", format!("{address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let place = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics and health at http://{place}/metrics, /health, /ready");
    let routes = Router::new()
        .route("/metrics", get(told))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(metrics);
    Ok(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!("metrics are served no more: {error}");
        }
        std::future::pending().await
    })
}

async fn told(State(metrics): State<Arc<StreamMetrics>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}

async fn health(State(metrics): State<Arc<StreamMetrics>>) -> impl IntoResponse {
    answer(metrics.condition().sick)
}

async fn ready(State(metrics): State<Arc<StreamMetrics>>) -> impl IntoResponse {
    let condition = metrics.condition();
    answer(condition.sick.or(condition.not_ready))
}

fn answer(fault: Option<String>) -> impl IntoResponse {
    match fault {
        None => (StatusCode::OK, "ok\n".to_string()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
