//! Event streams by the WHATWG HTML standard, 9.2.5 "Parsing an event stream" and 9.2.6
//! "Interpreting an event stream", step by step, over a whole stream.

/// What a stream says, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An event that is dispatched.
    Event { event: String, id: String, data: String },
    /// A block that dispatches none and had an `id` field: the last event ID from here on.
    Id(String),
    /// A reconnection time, in milliseconds.
    Retry(u64),
}

/// Reads a stream. `last_event_id` is the one it was asked with.
pub fn read(bytes: &[u8], last_event_id: &str) -> Vec<Said> {
    // "UTF-8 decode": strips one BOM, replaces what is no UTF-8.
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut said = Vec::new();
    let (mut data, mut event) = (String::new(), String::new());
    let (mut id, mut had_id) = (last_event_id.to_owned(), false);
    for line in lines(text) {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                let name = if event.is_empty() { "message" } else { &event };
                let (event, data) = (name.to_owned(), data.clone());
                said.push(Said::Event { event, id: id.clone(), data });
            } else if had_id {
                said.push(Said::Id(id.clone()));
            }
            data.clear();
            event.clear();
            had_id = false;
            continue;
        }
        let (field, value) = match line.find(':') {
            Some(0) => continue,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(' ').unwrap_or(value))
            }
            None => (line.as_str(), ""),
        };
        match field {
            "event" => event = value.to_owned(),
            "data" => {
                data += value;
                data += "\n";
            }
            "id" if !value.contains('\0') => {
                id = value.to_owned();
                had_id = true;
            }
            "retry" if value.chars().all(|c| c.is_ascii_digit()) => {
                said.extend(value.parse().ok().map(Said::Retry));
            }
            _ => {}
        }
    }
    said
}

/// The lines that have ended, by CR LF, LF or CR.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                let _ = chars.next_if_eq(&'\n');
                lines.push(std::mem::take(&mut line));
            }
            '\n' => lines.push(std::mem::take(&mut line)),
            c => line.push(c),
        }
    }
    lines
}
