//! The test of one parameter: its alternatives, of the kind that it is.

use crate::fhir::ResourceType;

use super::{
    date::{self, Date},
    fold::fold,
    number::{self, Number, Quantity},
    reference::{self, Target},
    split,
    table::{Data, Kind, Parameter},
    text::{self, How, Texts},
    token::{self, OfType, Token},
    uri::{self, Uri, Where},
};

/// What a value of a resource is compared with: one of the alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Token(Vec<Token>),
    /// Words beside a code begin with one of these, folded.
    Words(Vec<String>),
    OfType(Vec<OfType>),
    Text(Texts),
    Date(Vec<Date>),
    Number(Vec<Number>),
    Quantity(Vec<Quantity>),
    Uri(Vec<Uri>),
    Reference {
        targets: Vec<Target>,
        base: Option<Box<str>>,
    },
    /// A reference's `identifier`.
    Identifier(Vec<Token>),
    /// Whether there is a value at all.
    Presence,
}

/// What makes a resource pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A value that fits.
    Fit,
    /// No value that fits.
    NoFit,
    /// A value.
    Value,
    /// No value.
    NoValue,
}

/// Why there is no test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The modifier: what of it.
    Modifier(String),
    /// The value at fault, and what of it.
    Value(String, String),
}

impl Test {
    /// Reads a parameter's modifier and value.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn parse(
        parameter: &Parameter,
        modifier: Option<&str>,
        value: &str,
        base: Option<&str>,
    ) -> Result<(Self, Wanted), Refused> {
        let alternatives = split::alternatives(value);
        if alternatives.iter().any(|alternative| alternative.is_empty()) {
            let why = "has an empty alternative. Send a value; for resources without one there \
                       is :missing=true, and '\\,' is a comma that divides nothing";
            return Err(Refused::Value(value.into(), why.into()));
        }
        if modifier == Some("missing") {
            return Self::missing(value);
        }
        let (test, wanted) = match (parameter.kind, modifier) {
            (Kind::Token, None) => (Self::tokens(parameter, &alternatives)?, Wanted::Fit),
            (Kind::Token, Some("not")) => (Self::tokens(parameter, &alternatives)?, Wanted::NoFit),
            (Kind::Token, Some("text")) if parameter.has(token::may_have_text) => {
                (Self::Words(each(&alternatives, words)?), Wanted::Fit)
            }
            (Kind::Token, Some("of-type")) if parameter.has(|data| data == Data::Identifier) => {
                (Self::OfType(each(&alternatives, OfType::parse)?), Wanted::Fit)
            }
            (Kind::String, None) => (Self::texts(&alternatives, How::Begins)?, Wanted::Fit),
            (Kind::String, Some("exact")) => (Self::texts(&alternatives, How::Exact)?, Wanted::Fit),
            (Kind::String, Some("contains")) => {
                (Self::texts(&alternatives, How::Contains)?, Wanted::Fit)
            }
            (Kind::Date, None) => (Self::Date(each(&alternatives, Date::parse)?), Wanted::Fit),
            (Kind::Number, None) => {
                (Self::Number(each(&alternatives, Number::parse)?), Wanted::Fit)
            }
            (Kind::Quantity, None) => {
                (Self::Quantity(each(&alternatives, Quantity::parse)?), Wanted::Fit)
            }
            (Kind::Uri, None) => (Self::uris(&alternatives, Where::At)?, Wanted::Fit),
            (Kind::Uri, Some("above")) => (Self::uris(&alternatives, Where::Above)?, Wanted::Fit),
            (Kind::Uri, Some("below")) => (Self::uris(&alternatives, Where::Below)?, Wanted::Fit),
            (Kind::Reference, None) => {
                (Self::references(parameter, None, &alternatives, base)?, Wanted::Fit)
            }
            (Kind::Reference, Some("identifier")) if parameter.has(is_reference) => {
                (Self::Identifier(each(&alternatives, Token::parse)?), Wanted::Fit)
            }
            (Kind::Reference, Some(modifier)) => {
                let ty = target_type(parameter, modifier)?;
                (Self::references(parameter, Some(ty), &alternatives, base)?, Wanted::Fit)
            }
            (_, Some(modifier)) => return Err(refused_modifier(parameter, modifier)),
        };
        Ok((test, wanted))
    }

    fn missing(value: &str) -> Result<(Self, Wanted), Refused> {
        match value {
            "true" => Ok((Self::Presence, Wanted::NoValue)),
            "false" => Ok((Self::Presence, Wanted::Value)),
            other => {
                let why = "is neither true nor false, as :missing needs. Send one of them";
                Err(Refused::Value(other.into(), why.into()))
            }
        }
    }

    fn tokens(parameter: &Parameter, alternatives: &[&str]) -> Result<Self, Refused> {
        let is_boolean = |data| matches!(data, Data::Boolean | Data::Exists | Data::OrFalse);
        let only_booleans = !parameter.has(|data| !is_boolean(data));
        let parse = |alternative: &str| {
            let token = Token::parse(alternative)?;
            match token.code_alone() {
                Some("true" | "false") | None => Ok(token),
                Some(_) if only_booleans => {
                    Err("is neither true nor false. Send one of them".into())
                }
                Some(_) => Ok(token),
            }
        };
        Ok(Self::Token(each(alternatives, parse)?))
    }

    fn texts(alternatives: &[&str], how: How) -> Result<Self, Refused> {
        let parse = |alternative: &str| text::wanted(how, split::plain(alternative)?);
        Ok(Self::Text(Texts::new(how, each(alternatives, parse)?)))
    }

    fn uris(alternatives: &[&str], at: Where) -> Result<Self, Refused> {
        let parse = |alternative: &str| Uri::new(at, split::plain(alternative)?);
        Ok(Self::Uri(each(alternatives, parse)?))
    }

    fn references(
        parameter: &Parameter,
        ty: Option<ResourceType>,
        alternatives: &[&str],
        base: Option<&str>,
    ) -> Result<Self, Refused> {
        let parse = |alternative: &str| {
            Target::parse(&split::plain(alternative)?, ty, &parameter.targets, base)
        };
        Ok(Self::Reference { targets: each(alternatives, parse)?, base: base.map(Into::into) })
    }

    /// Whether a value fits one of the alternatives.
    pub(super) fn fits(&self, data: Data, raw: &str) -> bool {
        match self {
            Self::Token(tokens) => token::any_fits(tokens, data, raw),
            Self::Words(words) => token::any_words(words, data, raw),
            Self::OfType(identifiers) => identifiers.iter().any(|one| one.fits(raw)),
            Self::Text(texts) => texts.fits(data, raw),
            Self::Date(dates) => date::any_fits(dates, data, raw),
            Self::Number(numbers) => number::any_fits(numbers, data, raw),
            Self::Quantity(quantities) => number::any_amount_fits(quantities, data, raw),
            Self::Uri(uris) => uri::any_fits(uris, data, raw),
            Self::Reference { targets, base } => {
                reference::any_fits(targets, data, raw, base.as_deref())
            }
            Self::Identifier(tokens) => reference::identifier(data, raw)
                .is_some_and(|raw| token::any_fits(tokens, Data::Identifier, raw)),
            Self::Presence => false,
        }
    }
}

impl Wanted {
    /// Whether a resource passes that has a value, and a value that fits.
    pub(super) const fn passes(self, has_value: bool, has_fit: bool) -> bool {
        match self {
            Self::Fit => has_fit,
            Self::NoFit => !has_fit,
            Self::Value => has_value,
            Self::NoValue => !has_value,
        }
    }
}

impl Parameter {
    fn has(&self, is: impl Fn(Data) -> bool) -> bool {
        self.paths.iter().any(|path| is(path.data))
    }

    /// The modifiers that are done here.
    fn modifiers(&self) -> Vec<&'static str> {
        let mut modifiers = vec!["missing"];
        match self.kind {
            Kind::Token => {
                modifiers.push("not");
                if self.has(token::may_have_text) {
                    modifiers.push("text");
                }
                if self.has(|data| data == Data::Identifier) {
                    modifiers.push("of-type");
                }
            }
            Kind::String => modifiers.extend(["exact", "contains"]),
            Kind::Uri => modifiers.extend(["above", "below"]),
            Kind::Reference => {
                if self.has(is_reference) {
                    modifiers.push("identifier");
                }
                modifiers.extend(&self.targets);
            }
            Kind::Date | Kind::Number | Kind::Quantity => {}
        }
        modifiers
    }
}

fn is_reference(data: Data) -> bool {
    matches!(data, Data::Reference(_))
}

fn target_type(parameter: &Parameter, modifier: &str) -> Result<ResourceType, Refused> {
    let is_target =
        |ty: &ResourceType| parameter.targets.is_empty() || parameter.targets.contains(&ty.name());
    let ty = ResourceType::parse(modifier).filter(is_target);
    ty.ok_or_else(|| refused_modifier(parameter, modifier))
}

fn refused_modifier(parameter: &Parameter, modifier: &str) -> Refused {
    let known: Vec<_> = parameter.modifiers().iter().map(|name| format!(":{name}")).collect();
    let kind = parameter.kind.name();
    let why = match modifier {
        "in" | "not-in" | "above" | "below" if parameter.kind == Kind::Token => {
            "needs a terminology service, which this server has not"
        }
        _ => "is not done here",
    };
    Refused::Modifier(format!("{why}. This is a {kind} parameter: it takes {}", known.join(", ")))
}

fn words(alternative: &str) -> Result<String, String> {
    let folded = fold(&split::plain(alternative)?);
    match folded.is_empty() {
        true => Err("holds no text. Send what the text begins with".into()),
        false => Ok(folded),
    }
}

/// Each alternative, read.
fn each<T>(
    alternatives: &[&str],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Refused> {
    let read = |one: &&str| parse(one).map_err(|why| Refused::Value((*one).to_owned(), why));
    alternatives.iter().map(read).collect()
}
