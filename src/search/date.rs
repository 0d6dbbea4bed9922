//! Dates: the stretch of time that a value may mean.

use super::{interval::Interval, prefix::Prefix, table::Data};
use crate::fhir::element::{any_of, members, text};

/// A date to look for, and how values are to lie to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    prefix: Prefix,
    interval: Interval,
}

impl Date {
    /// Reads a date with its prefix.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (prefix, text) = Prefix::split(text);
        // A '+' that was not written as %2B arrives as a space, and no date has a space.
        match Interval::parse(&text.replace(' ', "+")) {
            Some(interval) => Ok(Self { prefix, interval }),
            None => Err("is no date. Send yyyy, yyyy-mm, yyyy-mm-dd or yyyy-mm-ddThh:mm:ssZ (or \
                         +hh:mm for Z), with one of eq ne gt lt ge le sa eb ap before it or nothing"
                .into()),
        }
    }
}

/// Whether a value fits one of the dates.
pub(super) fn any_fits(dates: &[Date], data: Data, raw: &str) -> bool {
    let interval = match data {
        Data::DateTime => date(raw),
        Data::Period => period(raw),
        Data::Timing => timing(raw),
        _ => None,
    };
    interval.is_some_and(|value| dates.iter().any(|date| date.interval.fits(date.prefix, value)))
}

fn date(raw: &str) -> Option<Interval> {
    text(raw).and_then(|text| Interval::parse(&text))
}

/// A period; an end that is missing is open. One that can't be read leaves nothing to compare.
fn period(raw: &str) -> Option<Interval> {
    let [start, end] = members(raw, ["start", "end"]);
    let end_of = |raw: Option<&str>| raw.map_or(Some(None), |raw| date(raw).map(Some));
    match (end_of(start)?, end_of(end)?) {
        (None, None) => None,
        (start, end) => Some(Interval::between(start, end)),
    }
}

/// From the first to the last that a timing names: what repeats between them counts as one.
fn timing(raw: &str) -> Option<Interval> {
    let [event, repeat] = members(raw, ["event", "repeat"]);
    let mut whole: Option<Interval> = None;
    let mut add = |found: Option<Interval>| {
        whole = match (whole, found) {
            (Some(one), Some(other)) => Some(one.hull(other)),
            (one, other) => one.or(other),
        };
        false
    };
    any_of(event, |event| add(date(event)));
    let bounds = repeat.and_then(|repeat| members(repeat, ["boundsPeriod"])[0]);
    any_of(bounds, |bounds| add(period(bounds)));
    whole
}
