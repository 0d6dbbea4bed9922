//! References: to a resource here, or anywhere by URL.

use crate::fhir::{ResourceType, resource::is_id};

use super::{clues::Found, table::Data, uri};
use crate::{
    fhir::element::{members, text, text_of},
    store::Sought,
};

/// A resource to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// As written, without the base of this server.
    text: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// A resource here, of one of these types; none: any.
    Id(Vec<&'static str>),
    /// `Type/id`, or with a version.
    Local,
    /// Any other URI.
    Uri,
}

impl Target {
    /// Reads one alternative, without its escapes. `ty` is what a modifier says; `targets` are
    /// the types that the parameter can refer to, none: any; `base` ends in a slash.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(
        value: &str,
        ty: Option<ResourceType>,
        targets: &[&'static str],
        base: Option<&str>,
    ) -> Result<Self, String> {
        let text = local(value, base);
        if is_id(text) {
            return Ok(match ty {
                Some(ty) => Self { text: format!("{ty}/{text}"), form: Form::Local },
                None => Self { text: text.to_owned(), form: Form::Id(targets.to_vec()) },
            });
        }
        if let Some(parts) = Parts::of(text) {
            if ty.is_some_and(|ty| ty.name() != parts.ty) {
                return Err("names another type than its modifier. Name one".into());
            }
            if !targets.is_empty() && !targets.contains(&parts.ty) {
                let targets = targets.join(", ");
                return Err(format!(
                    "names a type that this never refers to. It refers to {targets}"
                ));
            }
            return Ok(Self { text: text.to_owned(), form: Form::Local });
        }
        match ty {
            None if has_scheme(text) => Ok(Self { text: text.to_owned(), form: Form::Uri }),
            None => Err("is no reference. Send an id, Type/id, or a whole URL".into()),
            Some(_) => {
                Err("is no id, and a type is named. Send an id, or leave the type out".into())
            }
        }
    }

    /// What a value has that refers to this; `None`: too much to say.
    pub(super) fn clue(&self, data: Data, base: Option<&str>) -> Option<Found> {
        /// Of how many types a bare id may be.
        const MOST_TYPES: usize = 8;
        let Data::Reference(only) = data else { return Some(uri::same(data, &self.text)) };
        let of = |types: &[&str]| types.iter().map(|ty| format!("{ty}/{}", self.text)).collect();
        let texts: Vec<String> = match (&self.form, only) {
            (Form::Local | Form::Uri, _) => vec![self.text.clone()],
            (Form::Id(_), Some(ty)) => of(&[ty]),
            (Form::Id(types), None) if (1..=MOST_TYPES).contains(&types.len()) => of(types),
            (Form::Id(_), None) => return None,
        };
        let bases = [Some(""), base].into_iter().flatten();
        let whole = bases.flat_map(|base| texts.iter().map(move |text| format!("{base}{text}")));
        let values = whole
            .flat_map(|text| [Sought::Begins(format!("{text}/_history/")), Sought::Text(text)]);
        Some(values.map(|sought| (&["reference"][..], sought)).collect())
    }

    fn is_named_by(&self, reference: &str) -> bool {
        match &self.form {
            Form::Id(types) => Parts::of(reference).is_some_and(|parts| {
                parts.id == self.text && (types.is_empty() || types.contains(&parts.ty))
            }),
            Form::Local | Form::Uri => {
                let of_any_version = || reference.split_once("/_history/").map(|(whole, _)| whole);
                reference == self.text || of_any_version() == Some(&self.text)
            }
        }
    }
}

/// Whether a value refers to one of the targets.
pub(super) fn any_fits(targets: &[Target], data: Data, raw: &str, base: Option<&str>) -> bool {
    match data {
        Data::Reference(_) => text_of(members(raw, ["reference"])[0]).is_some_and(|text| {
            let text = local(&text, base);
            targets.iter().any(|target| target.is_named_by(text))
        }),
        _ => text(raw).is_some_and(|text| {
            targets.iter().any(|target| uri::is_same(data, &text, &target.text))
        }),
    }
}

/// Whether a reference names a resource of the type: by its text, or by its `type`.
pub(super) fn is_to(ty: &str, raw: &str) -> bool {
    let [reference, named] = members(raw, ["reference", "type"]);
    let by_text = text_of(reference).and_then(|text| {
        // The tail of a URL may be a type and an id: of many servers it is.
        let tail = text.rsplit_once("/_history/").map_or(&*text, |(whole, _)| whole);
        let mut segments = tail.rsplit('/');
        let (id, named) = (segments.next()?, segments.next()?);
        (is_id(id) && ResourceType::parse(named).is_some()).then(|| named == ty)
    });
    by_text.unwrap_or_else(|| text_of(named).as_deref() == Some(ty))
}

fn local<'t>(text: &'t str, base: Option<&str>) -> &'t str {
    base.and_then(|base| text.strip_prefix(base)).unwrap_or(text)
}

/// `Type/id` or `Type/id/_history/version`.
struct Parts<'t> {
    ty: &'t str,
    id: &'t str,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (ty, rest) = text.split_once('/')?;
        let id = match rest.split_once("/_history/") {
            Some((id, version)) => is_id(version).then_some(id)?,
            None => rest,
        };
        (is_id(id) && ResourceType::parse(ty).is_some()).then_some(Self { ty, id })
    }
}

/// Whether a text begins as a URI does (RFC 3986).
fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        let mut bytes = scheme.bytes();
        !rest.is_empty()
            && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// The identifier of a reference.
pub(super) fn identifier(data: Data, raw: &str) -> Option<&str> {
    match data {
        Data::Reference(_) => members(raw, ["identifier"])[0],
        _ => None,
    }
}
