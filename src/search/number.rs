//! Numbers and quantities: each value is a point or a range.
//!
//! `eq` and `ne` go by the precision of what is asked for, `ap` by a tenth of it, all others by
//! its exact value. A quantity's comparator makes it a range: `< 5` is all below 5.

use std::borrow::Cow;

use super::{
    decimal::{Decimal, Given},
    prefix::Prefix,
    split,
    table::Data,
};
use crate::fhir::element::{members, text_of};

/// A number to look for, and how values are to lie to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Number {
    prefix: Prefix,
    exact: Decimal,
    /// From here.
    low: Decimal,
    /// To here: inclusive for `ap` alone.
    high: Decimal,
}

/// A number, and what it is a number of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quantity {
    number: Number,
    unit: Unit,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    Any,
    /// A code, or a unit for people.
    Named(String),
    /// A code of a system.
    Of(String, String),
}

/// The numbers that a value may be. An end is left out where it is open; `true`: the end itself
/// is not one of them.
struct Span {
    low: Option<(Decimal, bool)>,
    high: Option<(Decimal, bool)>,
}

impl Number {
    /// Reads a number with its prefix.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (prefix, text) = Prefix::split(text);
        let Some(given) = Given::parse(text) else {
            return Err("is no number. Send a decimal of at most 30 digits as 5.40 or 1e-3, with \
                        one of eq ne gt lt ge le sa eb ap before it or nothing"
                .into());
        };
        let (low, high) = if prefix == Prefix::Ap { given.about() } else { given.precision() };
        Ok(Self { prefix, exact: given.exact(), low, high })
    }

    fn takes(&self, span: &Span) -> bool {
        let at = &self.exact;
        match self.prefix {
            Prefix::Eq => self.holds(span),
            Prefix::Ne => !self.holds(span),
            Prefix::Gt => span.high.as_ref().is_none_or(|(high, _)| high > at),
            Prefix::Lt => span.low.as_ref().is_none_or(|(low, _)| low < at),
            Prefix::Ge => span.reaches_up_to(at),
            Prefix::Le => span.reaches_down_to(at),
            Prefix::Sa => {
                span.low.as_ref().is_some_and(|(low, open)| low > at || *open && low == at)
            }
            Prefix::Eb => {
                span.high.as_ref().is_some_and(|(high, open)| high < at || *open && high == at)
            }
            Prefix::Ap => span.reaches_up_to(&self.low) && span.reaches_down_to(&self.high),
        }
    }

    /// Whether all of the span is within the precision.
    fn holds(&self, span: &Span) -> bool {
        let from = span.low.as_ref().is_some_and(|(low, _)| *low >= self.low);
        let high = span.high.as_ref();
        from && high.is_some_and(|(high, open)| *high < self.high || *open && *high == self.high)
    }
}

impl Span {
    fn at(number: Decimal) -> Self {
        Self { low: Some((number.clone(), false)), high: Some((number, false)) }
    }

    /// Whether it has a number that is not less.
    fn reaches_up_to(&self, at: &Decimal) -> bool {
        self.high.as_ref().is_none_or(|(high, open)| high > at || !*open && high == at)
    }

    /// Whether it has a number that is not more.
    fn reaches_down_to(&self, at: &Decimal) -> bool {
        self.low.as_ref().is_none_or(|(low, open)| low < at || !*open && low == at)
    }
}

impl Quantity {
    /// Reads `number`, `number|system|code` or `number||code`, with a prefix or without.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(alternative: &str) -> Result<Self, String> {
        let parts = split::parts(alternative)?;
        let unit = match parts.as_slice() {
            [_] => Unit::Any,
            [_, system, code] if system.is_empty() && !code.is_empty() => Unit::Named(code.clone()),
            [_, system, code] if !code.is_empty() => Unit::Of(system.clone(), code.clone()),
            _ => {
                return Err("is not number, number|system|code or number||code. Send one of \
                            those, as 5.4|http://unitsofmeasure.org|mg or 5.4||mg"
                    .into());
            }
        };
        Ok(Self { number: Number::parse(&parts[0])?, unit })
    }
}

/// Whether a decimal or a range fits one of the numbers.
pub(super) fn any_fits(numbers: &[Number], data: Data, raw: &str) -> bool {
    let span = match data {
        Data::Decimal => Decimal::parse(raw).map(Span::at),
        Data::Range => range(raw).map(|amount| amount.span),
        _ => None,
    };
    span.is_some_and(|span| numbers.iter().any(|number| number.takes(&span)))
}

/// Whether a quantity, an amount of money or a range fits one of the quantities.
pub(super) fn any_amount_fits(quantities: &[Quantity], data: Data, raw: &str) -> bool {
    let amount = match data {
        Data::Quantity => quantity(raw),
        Data::Money => money(raw),
        Data::Range => range(raw),
        _ => None,
    };
    let fits = |amount: &Amount<'_>, quantity: &Quantity| {
        amount.units.iter().all(|unit| quantity.unit.is(unit))
            && quantity.number.takes(&amount.span)
    };
    amount.is_some_and(|amount| quantities.iter().any(|quantity| fits(&amount, quantity)))
}

/// What a value may be, and what each of its ends is counted in.
struct Amount<'v> {
    span: Span,
    units: Vec<Counted<'v>>,
}

/// What a number is a number of.
struct Counted<'v> {
    system: Option<Cow<'v, str>>,
    code: Option<Cow<'v, str>>,
    unit: Option<Cow<'v, str>>,
}

impl Unit {
    fn is(&self, counted: &Counted<'_>) -> bool {
        let Counted { system, code, unit } = counted;
        let is = |text: &Option<Cow<'_, str>>, wanted: &str| text.as_deref() == Some(wanted);
        match self {
            Self::Any => true,
            Self::Named(name) => is(code, name) || is(unit, name),
            Self::Of(of, name) => is(system, of) && is(code, name),
        }
    }
}

fn quantity(raw: &str) -> Option<Amount<'_>> {
    let [value, comparator] = members(raw, ["value", "comparator"]);
    let at = Decimal::parse(value?)?;
    let span = match text_of(comparator).as_deref() {
        Some("<") => Span { low: None, high: Some((at, true)) },
        Some("<=") => Span { low: None, high: Some((at, false)) },
        Some(">") => Span { low: Some((at, true)), high: None },
        Some(">=") => Span { low: Some((at, false)), high: None },
        _ => Span::at(at),
    };
    let [system, code, unit] = members(raw, ["system", "code", "unit"]).map(text_of);
    Some(Amount { span, units: vec![Counted { system, code, unit }] })
}

fn money(raw: &str) -> Option<Amount<'_>> {
    const CURRENCIES: &str = "urn:iso:std:iso:4217";
    let [value, currency] = members(raw, ["value", "currency"]);
    let system = Some(Cow::Borrowed(CURRENCIES));
    let units = vec![Counted { system, code: text_of(currency), unit: None }];
    Some(Amount { span: Span::at(Decimal::parse(value?)?), units })
}

/// A range; one end may be open. An end without a number leaves nothing to compare.
fn range(raw: &str) -> Option<Amount<'_>> {
    let ends = members(raw, ["low", "high"]);
    let mut units = Vec::new();
    let [low, high] = ends.map(|end| {
        let Some(Amount { span, units: mut unit }) =
            end.map_or(Some(None), |raw| quantity(raw).map(Some))?
        else {
            return Some(None);
        };
        units.append(&mut unit);
        Some(span.low)
    });
    let span = Span { low: low?, high: high? };
    (!units.is_empty()).then_some(Amount { span, units })
}
