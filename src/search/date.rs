//! Dates: the stretch of time that a value may mean.

use super::{interval::Interval, prefix::Prefix, table::Data};
use crate::{
    fhir::element::{any_of, members, text},
    store::Sought,
};

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

/// Between which instants the values are that fit one of the dates; `None`: anywhere.
pub(super) fn hull(dates: &[Date]) -> Option<Sought> {
    let ends: Vec<_> = dates.iter().map(Date::reach).collect();
    let least = ends.iter().map(|(from, _)| *from).min().flatten();
    // No end is the farthest.
    let most = ends.iter().map(|(_, to)| to.ok_or(())).collect::<Result<Vec<_>, ()>>();
    let most = most.ok().and_then(|ends| ends.into_iter().max());
    (least.is_some() || most.is_some()).then_some(Sought::Instant(least, most))
}

impl Date {
    /// The first and the last instant that can fit, in ms since 1970 and rather a little wider.
    fn reach(&self) -> (Option<i64>, Option<i64>) {
        const MS: i128 = 1_000_000;
        let ms = |at: i128, wider: i64| i64::try_from(at.div_euclid(MS)).ok().map(|ms| ms + wider);
        let (from, to) = (ms(self.interval.start, -2), ms(self.interval.end, 2));
        match self.prefix {
            Prefix::Eq | Prefix::Ap => (from, to),
            Prefix::Ne => (None, None),
            Prefix::Ge => (from, None),
            Prefix::Gt | Prefix::Sa => (ms(self.interval.end, -2), None),
            Prefix::Le => (None, to),
            Prefix::Lt | Prefix::Eb => (None, ms(self.interval.start, 2)),
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
