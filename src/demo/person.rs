//! The facts about one synthetic person, drawn from the seed and the person's number alone.

use jiff::{
    ToSpan,
    civil::{Date, date},
};

use super::rng::Rng;

/// The day on which the population is as it is. Ages and past dates count from here, so that a
/// seed gives the same bytes on any day.
pub(super) const TODAY: Date = date(2026, 1, 1);

/// A quality measure of the population.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Measure {
    /// Diabetes: HbA1c poor control (over 9 %).
    Cms122,
    /// Breast cancer screening.
    Cms125,
    /// Colorectal cancer screening.
    Cms130,
    /// Controlling high blood pressure.
    Cms165,
}

impl Measure {
    pub(super) const ALL: [Self; 4] = [Self::Cms122, Self::Cms125, Self::Cms130, Self::Cms165];

    /// In ids.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Cms122 => "cms122",
            Self::Cms125 => "cms125",
            Self::Cms130 => "cms130",
            Self::Cms165 => "cms165",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Cms122 => "Diabetes: Glycemic Status Assessment Greater Than 9%",
            Self::Cms125 => "Breast Cancer Screening",
            Self::Cms130 => "Colorectal Cancer Screening",
            Self::Cms165 => "Controlling High Blood Pressure",
        }
    }

    /// Whether a high score is a good one.
    pub(super) fn is_better_high(self) -> bool {
        self != Self::Cms122
    }
}

/// A care gap, as the Da Vinci DEQM guide tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    Open,
    Closed,
    /// Open, and not due before the period ends.
    Prospective,
}

/// A blood test.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hba1c {
    pub(super) days_ago: i64,
    /// Percent, in hundredths.
    pub(super) hundredths: i64,
}

/// A blood pressure in mm[Hg].
#[derive(Debug, Clone, Copy)]
pub(super) struct Pressure {
    pub(super) days_ago: i64,
    pub(super) systolic: i64,
    pub(super) diastolic: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Person {
    /// From 1.
    pub(super) number: usize,
    pub(super) given: &'static str,
    pub(super) family: &'static str,
    pub(super) is_female: bool,
    pub(super) birth: Date,
    pub(super) is_diabetic: bool,
    pub(super) is_hypertensive: bool,
    /// The latest first.
    pub(super) hba1cs: Vec<Hba1c>,
    /// The latest first.
    pub(super) pressures: Vec<Pressure>,
    is_screened: [bool; 2],
    is_due_later: bool,
}

impl Person {
    pub(super) fn new(seed: u64, number: usize) -> Self {
        let mut rng = Rng::new(seed, 1, number as u64);
        let is_female = rng.percent(51);
        let given = rng.one_of(if is_female { &FEMALE } else { &MALE });
        let family = rng.one_of(&FAMILY);
        let birth = TODAY.saturating_sub(rng.within(20 * 365, 88 * 365).days());
        let (is_diabetic, is_hypertensive) = (rng.percent(35), rng.percent(45));
        Self {
            number,
            given,
            family,
            is_female,
            birth,
            is_diabetic,
            is_hypertensive,
            hba1cs: if is_diabetic { past(&mut rng, 4, hba1c) } else { Vec::new() },
            pressures: past(&mut rng, 3, |rng, days| pressure(rng, days, is_hypertensive)),
            is_screened: [rng.percent(65), rng.percent(60)],
            is_due_later: rng.percent(15),
        }
    }

    fn age(&self) -> i16 {
        let had_birthday = (TODAY.month(), TODAY.day()) >= (self.birth.month(), self.birth.day());
        TODAY.year() - self.birth.year() - i16::from(!had_birthday)
    }

    /// Whether the measure is about this person.
    pub(super) fn is_in(&self, measure: Measure) -> bool {
        let age = self.age();
        match measure {
            Measure::Cms122 => self.is_diabetic && (18..=75).contains(&age),
            Measure::Cms125 => self.is_female && (52..=74).contains(&age),
            Measure::Cms130 => (46..=75).contains(&age),
            Measure::Cms165 => self.is_hypertensive && (18..=85).contains(&age),
        }
    }

    pub(super) fn measures(&self) -> impl Iterator<Item = Measure> {
        Measure::ALL.into_iter().filter(|measure| self.is_in(*measure))
    }

    /// How the person stands with a measure that is about them.
    pub(super) fn gap(&self, measure: Measure) -> Gap {
        let is_met = match measure {
            Measure::Cms122 => self.hba1cs.first().is_some_and(|test| test.hundredths <= 900),
            Measure::Cms125 => self.is_screened[0],
            Measure::Cms130 => self.is_screened[1],
            Measure::Cms165 => {
                let is_low = |p: &Pressure| p.systolic < 140 && p.diastolic < 90;
                self.pressures.first().is_some_and(is_low)
            }
        };
        match (is_met, self.is_due_later) {
            (true, _) => Gap::Closed,
            (false, true) => Gap::Prospective,
            (false, false) => Gap::Open,
        }
    }
}

/// Up to `most` things of the past, some months apart, the latest first.
fn past<T>(rng: &mut Rng, most: i64, mut one: impl FnMut(&mut Rng, i64) -> T) -> Vec<T> {
    let mut days_ago = 0;
    (0..rng.within(1, most))
        .map(|_| {
            days_ago += rng.within(5, 160);
            one(rng, days_ago)
        })
        .collect()
}

/// Steps of 0.1 %, as laboratories report: so every hundredth is a trailing zero.
pub(super) fn hba1c(rng: &mut Rng, days_ago: i64) -> Hba1c {
    let high = if rng.percent(30) { 118 } else { 88 };
    Hba1c { days_ago, hundredths: rng.within(56, high) * 10 }
}

pub(super) fn pressure(rng: &mut Rng, days_ago: i64, is_hypertensive: bool) -> Pressure {
    let systolic = if is_hypertensive { rng.within(118, 168) } else { rng.within(102, 134) };
    Pressure { days_ago, systolic, diastolic: systolic * 6 / 10 + rng.within(-6, 6) }
}

#[rustfmt::skip]
const FEMALE: [&str; 24] = [
    "Ada", "Beatriz", "Chloé", "Dolores", "Esther", "Fatima", "Grace", "Hana", "Ingrid", "Jada",
    "Katarzyna", "Leila", "Mei", "Nora", "Olga", "Priya", "Rosa", "Søs", "Tamika", "Ute", "Vera",
    "Wangari", "Yuki", "Zoë",
];
#[rustfmt::skip]
const MALE: [&str; 24] = [
    "Ahmed", "Björn", "Carlos", "Dmitri", "Elijah", "Félix", "Gustav", "Hiroshi", "Ivan", "Jamal",
    "Kofi", "Liam", "Mateo", "Nikhil", "Omar", "Pavel", "Quentin", "Rafael", "Sven", "Tomás",
    "Umar", "Viktor", "Wei", "Yusuf",
];
/// Nobody is called so.
#[rustfmt::skip]
const FAMILY: [&str; 24] = [
    "Testwell", "Sampleton", "Mockford", "Examplová", "Fakenham", "Placeholder", "Synthova",
    "Dummer-Test", "Trialski", "Specimen", "Modelo", "Prüfmann", "Essai", "Provini", "Proefstra",
    "Demosthene", "Fixture", "Pseudonymou", "Beispiel", "Voorbeeld", "Ejemplar", "Simulacre",
    "Protótipo", "Esempio",
];
