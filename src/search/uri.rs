//! URIs: exactly as they are written, or what lies above or below in a URL's path.

use super::{clues::Found, table::Data};
use crate::{fhir::element::text, store::Sought};

/// Where a value may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    At,
    /// The value begins the URL asked for.
    Above,
    /// The URL asked for begins the value.
    Below,
}

/// A URI to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri {
    at: Where,
    wanted: String,
}

impl Uri {
    /// A URI.
    ///
    /// # Errors
    /// It is empty, or has no path to look above or below in.
    pub(super) fn new(at: Where, wanted: String) -> Result<Self, String> {
        if wanted.is_empty() {
            return Err("is empty. Send a URI".into());
        }
        if at != Where::At && wanted.starts_with("urn:") {
            return Err(
                "is a URN, which nothing lies above or below. Send it without a modifier, \
                        or send a URL"
                    .into(),
            );
        }
        Ok(Self { at, wanted })
    }

    /// What a value is that lies there; `None`: no text tells.
    pub(super) fn clue(&self, data: Data) -> Option<Found> {
        match self.at {
            Where::At => Some(same(data, &self.wanted)),
            Where::Below => Some(vec![(&[], Sought::Begins(self.wanted.clone()))]),
            Where::Above => None,
        }
    }

    fn takes(&self, data: Data, value: &str) -> bool {
        match self.at {
            Where::At => is_same(data, value, &self.wanted),
            Where::Above => begins(unversioned(data, value), &self.wanted),
            Where::Below => begins(&self.wanted, unversioned(data, value)),
        }
    }
}

/// Whether a value is one of the URIs, or lies where it may.
pub(super) fn any_fits(uris: &[Uri], data: Data, raw: &str) -> bool {
    text(raw).is_some_and(|value| uris.iter().any(|uri| uri.takes(data, &value)))
}

/// Whether a value is the URI asked for. A canonical without a version is any version.
pub(super) fn is_same(data: Data, value: &str, wanted: &str) -> bool {
    value == wanted || !wanted.contains('|') && unversioned(data, value) == wanted
}

/// The texts that are the URI asked for.
pub(super) fn same(data: Data, wanted: &str) -> Found {
    let mut texts = vec![(&[][..], Sought::Text(wanted.to_owned()))];
    if data == Data::Canonical && !wanted.contains('|') {
        texts.push((&[], Sought::Begins(format!("{wanted}|"))));
    }
    texts
}

fn unversioned(data: Data, value: &str) -> &str {
    match data {
        Data::Canonical => value.split('|').next().unwrap_or(value),
        _ => value,
    }
}

/// Whether a URL is the other, or stands above it by whole segments.
fn begins(above: &str, below: &str) -> bool {
    below
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above.ends_with('/'))
}
