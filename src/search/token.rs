//! Tokens: a code, and the system that it is of.
//!
//! Codes count as they are written; plain strings count in any case. A ContactPoint's system
//! (`phone`) is a system too.

use std::borrow::Cow;

use super::{clues::Found, fold::fold, split, table::Data};
use crate::{
    fhir::element::{any_of, members, text, text_of},
    store::Sought,
};

/// The systems that R4 has named for true and false.
const BOOLEANS: [&str; 2] =
    ["http://hl7.org/fhir/special-values", "http://terminology.hl7.org/CodeSystem/special-values"];

/// `code`, `system|code`, `|code` or `system|`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    system: System,
    /// As written, and in lower case.
    code: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum System {
    Any,
    None,
    Is(String),
}

impl Token {
    /// Reads one alternative.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(alternative: &str) -> Result<Self, String> {
        let parts = split::parts(alternative)?;
        let (system, code) = match parts.as_slice() {
            [code] => (System::Any, code),
            [system, code] if system.is_empty() => (System::None, code),
            [system, code] => (System::Is(system.clone()), code),
            _ => {
                return Err("has more than one '|'. Send code, system|code, |code or system|, \
                            and '\\|' for a bar that divides nothing"
                    .into());
            }
        };
        let code = (!code.is_empty()).then(|| (code.clone(), code.to_lowercase()));
        match (&system, &code) {
            (System::Any | System::None, None) => {
                Err("names no code. Send code, system|code, |code or system|".into())
            }
            _ => Ok(Self { system, code }),
        }
    }

    /// The code, where no system is asked for.
    pub(super) fn code_alone(&self) -> Option<&str> {
        self.code.as_ref().map(|(code, _)| code.as_str())
    }

    /// What a value has that is this; `None`: no text tells.
    pub(super) fn clue(&self, data: Data) -> Option<Found> {
        let pair = |code, system| match (&self.code, &self.system) {
            (Some((text, _)), _) => Some(vec![(code, Sought::Text(text.clone()))]),
            (None, System::Is(text)) => Some(vec![(system, Sought::Text(text.clone()))]),
            (None, _) => None,
        };
        let alone = || self.code.as_ref().map(|(code, _)| code.clone());
        match data {
            Data::Coding => pair(&["code"][..], &["system"][..]),
            Data::CodeableConcept => pair(&["coding", "code"], &["coding", "system"]),
            Data::Identifier | Data::ContactPoint => pair(&["value"], &["system"]),
            Data::Code(_) | Data::Id | Data::Uri => Some(vec![(&[], Sought::Text(alone()?))]),
            Data::Boolean => {
                let code = alone()?;
                let is = [true, false].into_iter().find(|is| is.to_string() == code);
                Some(is.map(|is| (&[][..], Sought::Bool(is))).into_iter().collect())
            }
            _ => None,
        }
    }

    /// The same for a reference whose identifier is this.
    pub(super) fn clue_in_reference(&self) -> Option<Found> {
        let (code, _) = self.code.as_ref()?;
        Some(vec![(&["identifier", "value"][..], Sought::Text(code.clone()))])
    }

    /// Whether a value is this.
    fn is(&self, value: &Value<'_>) -> bool {
        match value {
            Value::Pair(system, code) => {
                let of_system = match &self.system {
                    System::Any => true,
                    System::None => system.is_none(),
                    System::Is(this) => system.as_deref() == Some(this),
                };
                of_system && code.as_deref().map_or(self.code.is_none(), |code| self.is_code(code))
            }
            Value::Code(of, code) => match &self.system {
                System::Any | System::None => self.is_code(code),
                System::Is(system) => *of == Some(system) && self.is_code(code),
            },
            Value::Boolean(text) => match &self.system {
                System::Any | System::None => self.is_code(text),
                System::Is(system) => BOOLEANS.contains(&system.as_str()) && self.is_code(text),
            },
            Value::AnyCase(text) => self.has_no_system() && self.is_code_in_any_case(text),
            Value::Plain(text) => self.has_no_system() && self.is_code(text),
        }
    }

    fn is_code(&self, text: &str) -> bool {
        self.code.as_ref().is_none_or(|(code, _)| code == text)
    }

    fn is_code_in_any_case(&self, text: &str) -> bool {
        self.code.as_ref().is_none_or(|(_, lower)| text.to_lowercase() == *lower)
    }

    fn has_no_system(&self) -> bool {
        !matches!(self.system, System::Is(_))
    }
}

/// A value that a token may be.
enum Value<'v> {
    /// A system and a code, as far as there are any.
    Pair(Option<Cow<'v, str>>, Option<Cow<'v, str>>),
    /// A code, and the system that all of its kind are of.
    Code(Option<&'static str>, Cow<'v, str>),
    Boolean(&'v str),
    AnyCase(Cow<'v, str>),
    Plain(Cow<'v, str>),
}

/// Whether a value is one of the tokens.
pub(super) fn any_fits(tokens: &[Token], data: Data, raw: &str) -> bool {
    let is_one = |value: Value<'_>| tokens.iter().any(|token| token.is(&value));
    match data {
        Data::Coding => is_one(pair(raw, "code")),
        Data::CodeableConcept => {
            any_of(members(raw, ["coding"])[0], |coding| is_one(pair(coding, "code")))
        }
        Data::Identifier | Data::ContactPoint => is_one(pair(raw, "value")),
        Data::Code(of) => text(raw).is_some_and(|code| is_one(Value::Code(of, code))),
        Data::Boolean => is_one(Value::Boolean(raw)),
        Data::Exists => is_one(Value::Boolean("true")),
        Data::OrFalse => is_one(Value::Boolean("false")),
        Data::Text => text(raw).is_some_and(|text| is_one(Value::AnyCase(text))),
        Data::Id | Data::Uri => text(raw).is_some_and(|text| is_one(Value::Plain(text))),
        _ => false,
    }
}

fn pair<'v>(raw: &'v str, code: &str) -> Value<'v> {
    let [system, code] = members(raw, ["system", code]);
    Value::Pair(text_of(system), text_of(code))
}

/// `:text`: whether the words that stand beside a code begin with one of these folded texts.
pub(super) fn any_words(wanted: &[String], data: Data, raw: &str) -> bool {
    let begins = |raw: &str| {
        let words = text(raw).map(|text| fold(&text)).unwrap_or_default();
        wanted.iter().any(|wanted| words.starts_with(wanted))
    };
    match data {
        Data::Coding => {
            let [display] = members(raw, ["display"]);
            any_of(display, begins)
        }
        Data::CodeableConcept => {
            let [text, coding] = members(raw, ["text", "coding"]);
            any_of(text, begins) || any_of(coding, |raw| any_words(wanted, Data::Coding, raw))
        }
        Data::Identifier => {
            let [ty] = members(raw, ["type"]);
            any_of(ty, |ty| any_of(members(ty, ["text"])[0], begins))
        }
        _ => false,
    }
}

/// Whether values of a data type have words beside their code.
pub(super) fn may_have_text(data: Data) -> bool {
    matches!(data, Data::Coding | Data::CodeableConcept | Data::Identifier)
}

/// `:of-type`: an identifier's value, and the type that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfType {
    ty: [Token; 1],
    value: String,
}

impl OfType {
    /// Reads `system|code|value`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(alternative: &str) -> Result<Self, String> {
        match split::parts(alternative)?.as_slice() {
            [system, code, value] if ![system, code, value].iter().any(|part| part.is_empty()) => {
                let code = Some((code.clone(), code.to_lowercase()));
                let ty = Token { system: System::Is(system.clone()), code };
                Ok(Self { ty: [ty], value: value.clone() })
            }
            _ => Err("is not system|code|value, the type's system and code and the identifier's \
                      value. Send all three"
                .into()),
        }
    }

    /// What an identifier has that is this.
    pub(super) fn clue(&self) -> (&'static [&'static str], Sought) {
        (&["value"], Sought::Text(self.value.clone()))
    }

    /// Whether an identifier is this.
    pub(super) fn fits(&self, raw: &str) -> bool {
        let [ty, value] = members(raw, ["type", "value"]);
        text_of(value).as_deref() == Some(&self.value)
            && any_of(ty, |ty| any_fits(&self.ty, Data::CodeableConcept, ty))
    }
}
