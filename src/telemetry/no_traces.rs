//! What stands for traces where they are not built in (the feature `otel`).

use std::convert::Infallible;

use axum::http::HeaderMap;
use tracing::{Span, warn};
use tracing_subscriber::layer::Identity;

use super::asked_for;

/// There are none that could fail.
pub type TracesError = Infallible;

/// Nothing is traced.
#[derive(Debug)]
#[must_use]
pub struct Traces;

impl Traces {
    pub(super) fn of_environment() -> Result<Self, TracesError> {
        Ok(Self)
    }

    pub(super) fn layer(&self) -> Option<Identity> {
        None
    }

    /// Who asks for them in vain is told so.
    pub(super) fn announce(&self) {
        if let Some(asked) = asked_for() {
            warn!("{asked} is set, but this fhirtail was built without `--features otel`");
        }
    }
}

pub(crate) fn adopt(_: &Span, _: &HeaderMap) {}

pub(crate) fn outlive_current(_: &Span) {}
