//! What is printed: a line per figure, beside it what it is compared with and what it must reach.
//! And the faults, which no speed makes good.

use std::fmt::{self, Write as _};

use crate::crowd::Report;

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// It is told, no more.
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn told(self, reached: f64) -> String {
        let (sign, bound, met) = match self {
            Self::None => return String::new(),
            Self::AtMost(bound) => ("<=", bound, reached <= bound),
            Self::AtLeast(bound) => (">=", bound, reached >= bound),
        };
        format!("{sign} {bound}  {}", if met { "met" } else { "MISSED" })
    }
}

/// One figure.
struct Row {
    figure: String,
    ours: String,
    beside: String,
    ratio: String,
    target: String,
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Table {
    sections: Vec<(String, Vec<Row>)>,
    pub(crate) faults: Vec<String>,
}

impl Table {
    pub(crate) fn section(&mut self, title: impl Into<String>) {
        self.sections.push((title.into(), Vec::new()));
    }

    /// A figure by itself.
    pub(crate) fn figure(&mut self, figure: &str, value: f64, unit: &str, target: Target) {
        self.row(figure, shown(value, unit), String::new(), String::new(), target.told(value));
    }

    /// A figure beside another; their ratio must reach the target.
    pub(crate) fn ratio(
        &mut self,
        figure: &str,
        (ours, unit): (f64, &str),
        (other, beside): (f64, &str),
        target: Target,
    ) {
        let ratio = ours / other;
        let beside = format!("{beside} {}", shown(other, unit));
        self.row(figure, shown(ours, unit), beside, format!("{ratio:.2} x"), target.told(ratio));
    }

    /// A figure beside another; their difference must reach the target.
    pub(crate) fn beyond(
        &mut self,
        figure: &str,
        (ours, unit): (f64, &str),
        (other, beside): (f64, &str),
        target: Target,
    ) {
        let difference = ours - other;
        let beside = format!("{beside} {}", shown(other, unit));
        let told = target.told(difference);
        self.row(figure, shown(ours, unit), beside, format!("{difference:+.1}"), told);
    }

    /// A word instead of a figure.
    pub(crate) fn note(&mut self, figure: &str, text: impl Into<String>) {
        self.row(figure, text.into(), String::new(), String::new(), String::new());
    }

    fn row(&mut self, figure: &str, ours: String, beside: String, ratio: String, target: String) {
        if self.sections.is_empty() {
            self.section("");
        }
        if let Some((_, rows)) = self.sections.last_mut() {
            rows.push(Row { figure: figure.to_owned(), ours, beside, ratio, target });
        }
    }

    pub(crate) fn fault(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("FAULT: {what}");
        self.faults.push(what);
    }

    /// Whether every stream is open and was sent each change that is for it once.
    pub(crate) fn check(&mut self, who: &str, report: &Report) {
        let Report { missing, repeated, strange, resets, outcomes, .. } = report;
        let whole =
            report.open == report.streams && missing + repeated + strange + resets + outcomes == 0;
        if !whole || report.late {
            self.fault(format!("{who}: {report:?}"));
        }
    }

    /// Also, whether the changes came in their order.
    pub(crate) fn check_order(&mut self, who: &str, report: &Report) {
        self.check(who, report);
        if report.disordered > 0 {
            self.fault(format!("{who}: {} changes came out of order", report.disordered));
        }
    }
}

/// A number with as many digits as say something.
fn shown(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if index > 0 && left.is_multiple_of(3) && digit.is_ascii_digit() && !grouped.ends_with('-')
        {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped}{rest} {unit}").trim_end().to_owned()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        line(&mut text, ["", "fhirtail", "beside it", "ratio", "bound"])?;
        for (title, rows) in &self.sections {
            writeln!(text, "\n{title}")?;
            for row in rows {
                let figure = format!("  {}", row.figure);
                line(&mut text, [&figure, &row.ours, &row.beside, &row.ratio, &row.target])?;
            }
        }
        f.write_str(&text)
    }
}

fn line(out: &mut String, [figure, ours, beside, ratio, target]: [&str; 5]) -> fmt::Result {
    let mut line = String::new();
    write!(line, "{figure:<46} {ours:>18}   {beside:<26} {ratio:>8}   {target}")?;
    writeln!(out, "{}", line.trim_end())
}
