//! HTTP/2, in the clear and over TLS: many streams on one connection, and clients who misbehave
//! on one of theirs, or on all.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected fails")]

mod curl;
mod frames;
mod limits;
mod stalls;
mod streams;
mod tls;

use std::{sync::Arc, time::Duration};

use fhirtail::store::Store;
use serde_json::Value;
use support::{
    App,
    certificate::Issued,
    http2::Http2,
    stream::PATIENCE,
    writes::{commit, patient, put},
};

/// Patients alone, as events.
const PATIENTS: &str = "/fhir/$export?_type=Patient";

/// So many patients of about so many bytes.
async fn populate(store: &Arc<dyn Store>, patients: usize, bytes: usize) {
    for n in 0..patients {
        let text = format!("{n} {}", "x".repeat(bytes));
        commit(store.as_ref(), vec![put(&patient(n, &text))]).await;
    }
}

/// Waits until so many streams are open, as `/streams` tells.
async fn until_open(app: &App, streams: u64) {
    let (client, _) = Http2::connect(app.address).await;
    until_told(client, streams).await;
}

async fn until_open_of(app: &App, issued: &Issued, streams: u64) {
    let (client, _) = Http2::encrypted(app.address, issued).await;
    until_told(client, streams).await;
}

async fn until_told(client: Http2, streams: u64) {
    let asking = async {
        loop {
            let (_, text) = client.text("/streams.json").await;
            let view: Value = serde_json::from_str(&text).expect("JSON");
            if view["totals"]["streams"] == streams {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let so = tokio::time::timeout(PATIENCE, asking).await;
    so.unwrap_or_else(|_| panic!("never {streams} streams"));
}
