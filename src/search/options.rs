//! How the result of a search is to be given: what R4 calls search result parameters.

use std::sync::Arc;

use super::subset::Names;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `_count`: at most so many.
    pub count: Option<u64>,
    /// `_elements`: these members, and those that a resource must have.
    pub elements: Option<Names>,
    /// `_summary`.
    pub summary: Option<Summary>,
    /// `_sort`: nothing is "in any order".
    pub sort: Vec<SortKey>,
    /// `_format`, as written.
    pub format: Option<String>,
}

/// A part of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// What its definition calls its summary.
    True,
    /// The narrative, and what it must have.
    Text,
    /// All but the narrative.
    Data,
    /// Nothing: only how many there are.
    Count,
    /// All.
    False,
}

/// By what to sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    /// Its value.
    pub by: SortBy,
    /// From the last to the first.
    pub descending: bool,
}

/// What there is an order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// `_id`
    Id,
    /// `_lastUpdated`
    LastUpdated,
}

impl Options {
    /// Takes a parameter, if its name is one of these.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "_count" => once(&mut self.count, count(value)?)?,
            "_elements" => once(&mut self.elements, elements(value)?)?,
            "_summary" => once(&mut self.summary, Summary::parse(value)?)?,
            "_format" => once(&mut self.format, value.to_owned())?,
            "_sort" if !self.sort.is_empty() => return Err(TWICE.into()),
            "_sort" => {
                self.sort = value.split(',').map(SortKey::parse).collect::<Result<_, _>>()?;
                let names_twice = |(n, key): (usize, &SortKey)| {
                    self.sort.iter().take(n).any(|other| other.by == key.by)
                };
                if self.sort.iter().enumerate().any(names_twice) {
                    return Err("sorts twice by the same. Name each once".into());
                }
            }
            // How JSON is spaced: it is sent as it is stored.
            "_pretty" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What two of them contradict each other in.
    pub(super) fn conflict(&self) -> Option<(&'static str, &'static str)> {
        match (&self.elements, self.summary) {
            (Some(_), Some(Summary::True | Summary::Text | Summary::Data | Summary::Count)) => {
                Some(("_elements", "stands beside _summary. Send one of them"))
            }
            _ => None,
        }
    }
}

const TWICE: &str = "stands twice. Give it once";

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(TWICE.into()),
    }
}

fn count(value: &str) -> Result<u64, String> {
    let is_number = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let count = if is_number { value.parse().ok() } else { None };
    count.ok_or_else(|| "is no count. Send a whole number, the most resources to give".into())
}

fn elements(value: &str) -> Result<Names, String> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    let names = value.split(',').map(str::trim).map(|name| match is_name(name) {
        true => Ok(name.to_owned()),
        false => Err("is no list of elements. Send names of a resource's own elements, as \
                      identifier,name"
            .to_owned()),
    });
    names.collect::<Result<_, _>>().map(Arc::new)
}

impl Summary {
    fn parse(value: &str) -> Result<Self, String> {
        Ok(match value {
            "true" => Self::True,
            "text" => Self::Text,
            "data" => Self::Data,
            "count" => Self::Count,
            "false" => Self::False,
            _ => return Err("is no summary. Send true, text, data, count or false".into()),
        })
    }
}

impl SortKey {
    fn parse(text: &str) -> Result<Self, String> {
        let (descending, name) = match text.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, text),
        };
        let by = match name {
            "_id" => SortBy::Id,
            "_lastUpdated" => SortBy::LastUpdated,
            _ => {
                return Err(
                    "sorts by what nothing is sorted by here. Send _lastUpdated or _id".into()
                );
            }
        };
        Ok(Self { by, descending })
    }
}
