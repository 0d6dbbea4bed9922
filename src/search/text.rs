//! Strings: a beginning, a part, or the whole.

use std::borrow::Cow;

use super::{clues::Found, fold::fold, table::Data};
use crate::{
    fhir::element::{any_of, members, text},
    store::Sought,
};

/// The texts of a HumanName, and of an Address.
static NAME: [&str; 5] = ["text", "family", "given", "prefix", "suffix"];
static ADDRESS: [&str; 7] = ["text", "line", "city", "district", "state", "postalCode", "country"];

/// How much of a text is to be alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Its beginning, without case and accents.
    Begins,
    /// A part, without case and accents.
    Contains,
    /// All, as it is written.
    Exact,
}

/// Texts to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    how: How,
    /// Folded, unless all is to be alike.
    wanted: Vec<String>,
}

/// A text as it is compared.
///
/// # Errors
/// There is nothing to look for.
pub(super) fn wanted(how: How, text: String) -> Result<String, String> {
    let wanted = if how == How::Exact { text } else { fold(&text) };
    match wanted.is_empty() {
        true => Err("holds no text. Send what the text begins with".into()),
        false => Ok(wanted),
    }
}

/// The members of a data type that hold its texts.
fn parts(data: Data) -> impl Iterator<Item = &'static [&'static str]> {
    let names: &'static [&'static str] = match data {
        Data::HumanName => &NAME,
        Data::Address => &ADDRESS,
        _ => &[],
    };
    names.chunks(1)
}

impl Texts {
    /// Texts that are [`wanted`].
    pub(super) fn new(how: How, wanted: Vec<String>) -> Self {
        Self { how, wanted }
    }

    /// What a value has that has one of them; `None`: no text tells.
    pub(super) fn clue(&self, data: Data) -> Option<Found> {
        if self.how != How::Exact {
            return None;
        }
        let texts = || self.wanted.iter().cloned().map(Sought::Text);
        Some(match data {
            Data::Text => texts().map(|text| (&[][..], text)).collect(),
            _ => parts(data).flat_map(|part| texts().map(move |text| (part, text))).collect(),
        })
    }

    /// Whether a value has one of them.
    pub(super) fn fits(&self, data: Data, raw: &str) -> bool {
        let fits = |raw: &str| text(raw).is_some_and(|text| self.is_in(&text));
        match data {
            Data::Text => fits(raw),
            Data::HumanName => members(raw, NAME).into_iter().any(|part| any_of(part, fits)),
            Data::Address => members(raw, ADDRESS).into_iter().any(|part| any_of(part, fits)),
            _ => false,
        }
    }

    fn is_in(&self, text: &str) -> bool {
        let text = if self.how == How::Exact { Cow::Borrowed(text) } else { fold(text).into() };
        self.wanted.iter().any(|wanted| match self.how {
            How::Begins => text.starts_with(wanted),
            How::Contains => text.contains(wanted),
            How::Exact => text == *wanted,
        })
    }
}
