//! The page: what there is to see, as HTML that needs no script. Every text is escaped here.

use std::fmt::{self, Write};

use super::{
    view::{Behind, Log, Row, Totals, View},
    wanted::{By, Wanted},
};
use crate::words::{bytes, count, span};

/// A text within markup or within a quoted attribute.
struct Text<'t>(&'t str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

/// The columns: by what each orders, what it is called, how it is aligned.
const COLUMNS: [(Option<By>, &str, &str); 8] = [
    (Some(By::Number), "Open for", ""),
    (Some(By::Peer), "From", ""),
    (Some(By::Query), "Query", "query"),
    (Some(By::Phase), "Phase", ""),
    (Some(By::Behind), "Behind", "count"),
    (None, "Position", ""),
    (Some(By::Events), "Events", "count"),
    (Some(By::Bytes), "Bytes", "count"),
];

/// The whole page.
pub(super) fn page(view: &View, wanted: &Wanted) -> String {
    let mut out = String::with_capacity(8 << 10);
    // Writing to a String can't fail.
    let _ = write_page(&mut out, view, wanted);
    out
}

fn write_page(out: &mut String, view: &View, wanted: &Wanted) -> fmt::Result {
    let (date, rest) = view.at.split_once('T').unwrap_or_default();
    let time = rest.get(..8).unwrap_or_default();
    write!(
        out,
        r#"<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{} streams · fhirtail</title>
  <link rel="icon" href="dashboard/icon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="dashboard/base.css">
  <link rel="stylesheet" href="dashboard/streams.css">
  <script type="module" src="dashboard/streams.js"></script>
</head>
<body>
<header>
  <h1>Open streams <span class="minor">fhirtail</span></h1>
  <p id="as-of" class="minor">as of <time datetime="{}">{date} {time} UTC</time></p>
  <p id="trouble" role="status"></p>
  <button id="pause" type="button" aria-pressed="false" hidden>Pause</button>
</header>
<main id="view">
"#,
        count(view.totals.streams as u64),
        Text(&view.at),
    )?;
    write_totals(out, &view.totals, wanted)?;
    write_log(out, &view.log)?;
    write_search(out, wanted)?;
    write_table(out, &view.streams, wanted)?;
    write_pages(out, view, wanted)?;
    out.write_str("</main>\n</body>\n</html>\n")
}

fn write_totals(out: &mut String, totals: &Totals, wanted: &Wanted) -> fmt::Result {
    let all = Wanted { phase: None, offset: 0, ..wanted.clone() };
    out.write_str("<dl id=\"totals\">\n")?;
    let (open, most) = (count(totals.streams as u64), count(totals.most as u64));
    let href = href(&all);
    writeln!(out, "<div><dt><a href=\"{href}\">open</a>, of {most}</dt><dd>{open}</dd></div>")?;
    for phase in crate::session::Phase::ALL {
        let name = phase.name();
        let number = totals.phases.get(name).copied().unwrap_or_default();
        let only = Wanted { phase: Some(phase), ..all.clone() };
        let current = if wanted.phase == Some(phase) { " aria-current=\"true\"" } else { "" };
        writeln!(
            out,
            "<div class=\"{name}\"><dt><a href=\"{}\"{current}>{name}</a></dt><dd>{}</dd></div>",
            self::href(&only),
            count(number as u64)
        )?;
    }
    writeln!(out, "<div><dt>events sent</dt><dd>{}</dd></div>", count(totals.events))?;
    writeln!(out, "<div><dt>bytes sent</dt><dd>{}</dd></div>", bytes(totals.bytes))?;
    out.write_str("</dl>\n")
}

fn write_log(out: &mut String, log: &Log) -> fmt::Result {
    out.write_str("<dl id=\"log\">\n")?;
    let mut line = |name: &str, value: fmt::Arguments<'_>| {
        writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>")
    };
    match (&log.begins, log.position_works_for_seconds) {
        (Some(begins), Some(seconds)) => line(
            "A position still works after",
            format_args!("{}: the log begins at {}", span(seconds), Text(begins)),
        )?,
        _ => line(
            "A position still works after",
            format_args!("a time that the store does not tell"),
        )?,
    }
    line(
        "At no cost to the store after",
        format_args!("{}: the ring begins at {}", span(log.ring_seconds), Text(&log.ring_begins)),
    )?;
    match log.silent_seconds {
        Some(seconds) => line(
            "The tail has read to",
            format_args!("<code>{}</code>, heard {} ago", Text(&log.end), span(seconds)),
        )?,
        None => line("The tail has read to", format_args!("nothing yet"))?,
    }
    out.write_str("</dl>\n")
}

fn write_search(out: &mut String, wanted: &Wanted) -> fmt::Result {
    out.write_str("<form action=\"streams\" method=\"get\" role=\"search\">\n")?;
    // What else is asked for stays.
    let kept = Wanted { text: String::new(), offset: 0, ..wanted.clone() }.query();
    for (name, value) in kept.split('&').filter_map(|pair| pair.split_once('=')) {
        writeln!(out, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", Text(value))?;
    }
    writeln!(
        out,
        "<label for=\"q\">From, or query</label>\n<input id=\"q\" name=\"q\" type=\"search\" \
         value=\"{}\" autocomplete=\"off\" spellcheck=\"false\">\n<button type=\"submit\">Find</button>\n</form>",
        Text(&wanted.text)
    )
}

fn write_table(out: &mut String, rows: &[Row], wanted: &Wanted) -> fmt::Result {
    out.write_str(
        "<div class=\"table\" role=\"region\" aria-label=\"Open streams\" tabindex=\"0\">\n\
         <table>\n<thead>\n<tr>\n",
    )?;
    for (by, name, class) in COLUMNS {
        let is_by = by == Some(wanted.by);
        let sort = match (is_by, wanted.descending) {
            (false, _) => "",
            (true, true) => " aria-sort=\"descending\"",
            (true, false) => " aria-sort=\"ascending\"",
        };
        write!(out, "<th scope=\"col\" class=\"{class}\"{sort}>")?;
        match by {
            None => out.write_str(name)?,
            Some(by) => {
                // Numbers first from above, texts from below.
                let first = class == "count";
                let descending = if is_by { !wanted.descending } else { first };
                let next = Wanted { by, descending, offset: 0, ..wanted.clone() };
                write!(out, "<a href=\"{}\">{name}</a>", href(&next))?;
            }
        }
        out.write_str("</th>\n")?;
    }
    out.write_str("</tr>\n</thead>\n<tbody>\n")?;
    rows.iter().try_for_each(|row| write_row(out, row))?;
    out.write_str("</tbody>\n</table>\n")?;
    if rows.is_empty() {
        out.write_str("<p class=\"empty\">No open stream fits.</p>\n")?;
    }
    out.write_str("</div>\n")
}

fn write_row(out: &mut String, row: &Row) -> fmt::Result {
    let open_for = span(row.seconds);
    write!(
        out,
        "<tr><td><time datetime=\"{0}\" title=\"{0}\">{open_for}</time></td>",
        Text(&row.since)
    )?;
    write!(out, "<td>{}", Text(row.peer.as_deref().unwrap_or("–")))?;
    if let Some(whom) = &row.forwarded {
        write!(out, " <span class=\"minor\">for {}</span>", Text(whom))?;
    }
    write!(out, "</td><td class=\"query\"><code>{}</code>", Text(&row.query))?;
    if row.format != "sse" {
        write!(out, " <span class=\"minor\">{}</span>", row.format)?;
    }
    write!(out, "</td><td class=\"{0}\">{0}", row.phase)?;
    if let Some(reading) = row.reading {
        write!(out, " <span class=\"minor\">{reading}</span>")?;
    }
    let behind = match row.behind {
        None => "–".to_owned(),
        Some(Behind::Changes(0) | Behind::Seconds(0)) => "0".to_owned(),
        Some(Behind::Changes(1)) => "1 change".to_owned(),
        Some(Behind::Changes(changes)) => format!("{} changes", count(changes)),
        Some(Behind::Seconds(seconds)) => span(seconds as f64),
    };
    write!(out, "</td><td class=\"count\">{behind}</td>")?;
    write!(out, "<td><code>{}</code></td>", Text(row.position.as_deref().unwrap_or("–")))?;
    writeln!(
        out,
        "<td class=\"count\">{}</td><td class=\"count\">{}</td></tr>",
        count(row.events),
        bytes(row.bytes)
    )
}

fn write_pages(out: &mut String, view: &View, wanted: &Wanted) -> fmt::Result {
    let (first, last) = (view.offset + 1, view.offset + view.streams.len());
    out.write_str("<nav aria-label=\"Pages\">\n")?;
    let shown = if view.streams.is_empty() {
        "0".to_owned()
    } else {
        format!("{}–{}", count(first as u64), count(last as u64))
    };
    writeln!(out, "<p>{shown} of {}</p>", count(view.found as u64))?;
    if view.offset > 0 {
        let offset = view.offset.min(view.found).saturating_sub(view.limit);
        let before = Wanted { offset, ..wanted.clone() };
        writeln!(out, "<a rel=\"prev\" href=\"{}\">Before</a>", href(&before))?;
    }
    if last < view.found && !view.streams.is_empty() {
        let after = Wanted { offset: last, ..wanted.clone() };
        writeln!(out, "<a rel=\"next\" href=\"{}\">Next</a>", href(&after))?;
    }
    writeln!(out, "<a href=\"streams.json?{}\">as JSON</a>\n</nav>", Text(&wanted.query()))
}

/// A link to this page.
fn href(wanted: &Wanted) -> String {
    match wanted.query() {
        none if none.is_empty() => "streams".to_owned(),
        query => format!("streams?{}", Text(&query)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_no_markup() {
        let hostile = r#"<script>alert("it's")</script>&"#;
        let escaped = "&lt;script&gt;alert(&quot;it&#39;s&quot;)&lt;/script&gt;&amp;";
        assert_eq!(Text(hostile).to_string(), escaped);
        let row = Row {
            number: 1,
            since: "2026-01-01T00:00:00Z".into(),
            seconds: 1.0,
            peer: None,
            forwarded: Some(hostile.into()),
            format: "sse",
            query: hostile.into(),
            phase: "live",
            reading: None,
            position: None,
            behind: Some(Behind::Changes(1)),
            events: 0,
            bytes: 0,
        };
        let mut out = String::new();
        write_row(&mut out, &row).unwrap();
        assert_eq!(out.matches(escaped).count(), 2);
        assert!(!out.contains("<script"), "{out}");
    }
}
