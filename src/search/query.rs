//! A query string becomes a search: conditions that decide, and options for the result. Pure.

use std::fmt::Write;

use axum::http::StatusCode;

use super::{
    conditions::Conditions,
    options::Options,
    split::alternatives,
    table::{self, Entry},
    test::{Refused, Test},
};
use crate::{
    error::ApiError,
    fhir::{ResourceType, outcome::IssueType},
    store::Clue,
};

/// How long a query may be, names and values together, in bytes.
const MOST_BYTES: usize = 64 * 1024;
/// How many alternatives a query may name: each resource is compared with each of them.
const MOST_ALTERNATIVES: usize = 1_000;

/// A search of one type, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// The type.
    pub ty: ResourceType,
    /// How the result is to be given.
    pub options: Options,
    /// Parameters that are not done, under lenient handling, as they stand in the query.
    pub ignored: Vec<String>,
    conditions: Conditions,
}

/// What a query means beside its own words.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'c> {
    /// `Prefer: handling=lenient`: what this server does not know is ignored. What it knows has
    /// to be right.
    pub lenient: bool,
    /// This server's own base URL, which ends in a slash, if it knows it: references that begin
    /// with it are references to what is here.
    pub base: Option<&'c str>,
}

impl Search {
    /// Reads a query's parameters, decoded, in order.
    ///
    /// # Errors
    /// 400 that names the parameter and says what to send instead.
    pub fn parse(
        ty: ResourceType,
        pairs: &[(String, String)],
        context: Context<'_>,
    ) -> Result<Self, ApiError> {
        check_size(pairs)?;
        check_text(pairs)?;
        let conditions = Conditions::default();
        let mut search = Self { ty, options: Options::default(), ignored: Vec::new(), conditions };
        for (name, value) in pairs {
            let taken = search.options.take(name, value);
            if taken.map_err(|why| wrong(name, &format!("{} {why}", shown(value))))? {
                continue;
            }
            match search.add(name, value, context.base) {
                Err(NotTaken::Unknown(_)) if context.lenient => search.ignored.push(name.clone()),
                Err(NotTaken::Unknown(error) | NotTaken::Wrong(error)) => return Err(error),
                Ok(()) => {}
            }
        }
        match search.options.conflict() {
            Some((name, why)) => Err(wrong(name, why)),
            None => Ok(search),
        }
    }

    /// Whether a stored resource of the type, as JSON, is found.
    #[must_use]
    pub fn matches(&self, json: &[u8]) -> bool {
        self.conditions.pass(json)
    }

    /// What all resources have that are found, for a store to leave out others.
    #[must_use]
    pub fn clues(&self) -> &[Clue] {
        self.conditions.clues()
    }

    /// Whether every resource of the type is found.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.conditions.is_empty()
    }

    fn add(&mut self, name: &str, value: &str, base: Option<&str>) -> Result<(), NotTaken> {
        let (code, modifier) = match name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (name, None),
        };
        let parameter = match table::find(self.ty, code) {
            _ if beyond(code) || name.contains('.') => return Err(not_done(name, code)),
            Some(Entry::Served(parameter)) => parameter,
            Some(Entry::Refused(why)) => {
                let text = format!("{code} is not supported: {why}. Leave it out");
                return Err(NotTaken::Unknown(unsupported(name, text)));
            }
            None => return Err(NotTaken::Unknown(unknown(self.ty, name))),
        };
        let (test, wanted) = Test::parse(&parameter, modifier, value, base).map_err(|refused| {
            NotTaken::Wrong(match refused {
                Refused::Modifier(why) => unsupported(name, format!("{} {why}", shown(name))),
                Refused::Value(value, why) => wrong(name, &format!("{} {why}", shown(&value))),
            })
        })?;
        self.conditions.add(&parameter.paths, test, wanted);
        Ok(())
    }
}

/// Why a parameter is no condition.
enum NotTaken {
    /// This server does not know it, or does not do it.
    Unknown(ApiError),
    /// It knows it, and the caller has made a mistake. R4 has an unsupported modifier refused
    /// under lenient handling too, since it can mean the opposite.
    Wrong(ApiError),
}

/// Parameters that read beyond the resource.
fn beyond(code: &str) -> bool {
    ["_has", "_include", "_revinclude", "_list", "_contained", "_containedType"].contains(&code)
}

fn not_done(name: &str, code: &str) -> NotTaken {
    let what = match code {
        code if !beyond(code) => "a chain of parameters",
        "_has" => "a reverse chain",
        "_include" | "_revinclude" => "taking along other resources",
        _ => "searching by other resources",
    };
    let text = format!(
        "{} is not supported: {what}. A search here reads one resource at a time: ask for the \
         other resources by a search of their own",
        shown(name)
    );
    NotTaken::Unknown(unsupported(name, text))
}

fn check_size(pairs: &[(String, String)]) -> Result<(), ApiError> {
    let too_long = |text| ApiError::new(StatusCode::BAD_REQUEST, IssueType::TooLong, text);
    let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MOST_BYTES {
        let text = format!(
            "the query has {bytes} bytes, and {MOST_BYTES} is the most. Ask in several searches."
        );
        return Err(too_long(text));
    }
    let count: usize = pairs.iter().map(|(_, value)| alternatives(value).len()).sum();
    if count > MOST_ALTERNATIVES {
        let text = format!(
            "the query names {count} values, and {MOST_ALTERNATIVES} is the most. Ask in several \
             searches."
        );
        return Err(too_long(text));
    }
    Ok(())
}

/// Characters that no text of FHIR has: an answer that nothing is found would be true and no help.
/// What is no UTF-8 has been decoded to one of them.
fn check_text(pairs: &[(String, String)]) -> Result<(), ApiError> {
    let odd = |text: &str| text.chars().find(|c| is_no_texts(*c));
    let found = pairs.iter().find_map(|(name, value)| Some((name, odd(name).or(odd(value))?)));
    match found {
        None => Ok(()),
        Some((name, char::REPLACEMENT_CHARACTER)) => {
            Err(wrong(name, "is not UTF-8 throughout. Send it so, each byte as %xx"))
        }
        Some((name, odd)) => {
            let odd = u32::from(odd);
            Err(wrong(name, &format!("has the control character %{odd:02X}. Leave it out")))
        }
    }
}

/// Below the space R4's strings have nothing but white space.
fn is_no_texts(character: char) -> bool {
    character == char::REPLACEMENT_CHARACTER || character < ' ' && !"\t\n\r".contains(character)
}

fn unknown(ty: ResourceType, name: &str) -> ApiError {
    let mut text = format!("{} is no search parameter of {ty}. Known: ", shown(name));
    for (at, known) in table::names(ty).enumerate() {
        // Writing into a String can't fail.
        let _ = write!(text, "{}{known}", if at == 0 { "" } else { ", " });
    }
    text.push_str(". With 'Prefer: handling=lenient' it is ignored.");
    unsupported(name, text)
}

fn unsupported(name: &str, text: String) -> ApiError {
    let text = if text.ends_with('.') { text } else { text + "." };
    ApiError::new(StatusCode::BAD_REQUEST, IssueType::NotSupported, text).at(&start(name))
}

fn wrong(name: &str, what: &str) -> ApiError {
    let name = start(name);
    ApiError::invalid(&name, format!("{name}: {what}."))
}

/// A caller's text within ours: cut where it is long.
fn shown(text: &str) -> String {
    let start = start(text);
    let cut = if start.len() < text.len() { "…" } else { "" };
    format!("'{}{cut}'", start.escape_debug())
}

fn start(text: &str) -> String {
    text.chars().take(80).collect()
}
