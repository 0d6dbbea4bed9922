//! Findings as lines for people, or as JSON.

use std::io::{self, Write};

use super::findings::{Finding, Level};

/// A line each, with what mends it indented below, and a sum.
pub(super) fn text(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for finding in findings {
        writeln!(out, "{}  {}", word(finding.level), finding.text)?;
        for line in finding.mend.iter().flat_map(|mend| mend.lines()) {
            writeln!(out, "          {line}")?;
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (ok, slow, fail) = (count(Level::Ok), count(Level::Slow), count(Level::Fail));
    writeln!(out, "\n{ok} ok, {slow} slow, {fail} fail")
}

/// An array of `{check, level, text, mend}`.
pub(super) fn json(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, findings)?;
    writeln!(out)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok  ",
        Level::Slow => "slow",
        Level::Fail => "fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_each_and_what_mends_it_below() {
        let findings = [
            Finding::ok("a", "one"),
            Finding::slow("b", "two").mended_by("do();\nthis();"),
            Finding::fail("c", "three"),
        ];
        let mut out = Vec::new();
        text(&mut out, &findings).expect("memory");
        let expected = "ok    one\nslow  two\n          do();\n          this();\nfail  three\n\n\
                        1 ok, 1 slow, 1 fail\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);

        let mut out = Vec::new();
        json(&mut out, &findings[1..]).expect("memory");
        let read: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        let expected = serde_json::json!([
            {"check": "b", "level": "slow", "text": "two", "mend": "do();\nthis();"},
            {"check": "c", "level": "fail", "text": "three", "mend": null},
        ]);
        assert_eq!(read, expected);
    }
}
