//! The search parameters of R4: which members of a resource each of them reads, and how.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::fhir::{
    ResourceType,
    walk::{Only, Step},
};

/// See its head.
const TABLE: &str = include_str!("parameters.txt");

/// (type, name) → the rest of the row.
static ROWS: LazyLock<BTreeMap<(&str, &str), &str>> = LazyLock::new(|| {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let (ty, rest) = line.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        Some(((ty, name), rest))
    };
    rows.filter_map(row).collect()
});

/// What the table says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// It can be searched by.
    Served(Parameter),
    /// R4 has it, and it is not served: why.
    Refused(&'static str),
}

/// A parameter of one resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) kind: Kind,
    /// The types that its references may name; empty: any.
    pub(super) targets: Vec<&'static str>,
    pub(super) paths: Vec<Path>,
}

/// The type of a parameter, which says how its values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    String,
    Date,
    Number,
    Quantity,
    Uri,
    Reference,
}

/// Where values are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// Empty where the data type says it all.
    pub(super) steps: Vec<Step>,
    pub(super) data: Data,
}

/// A data type of FHIR, as far as a comparison tells it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    Coding,
    CodeableConcept,
    Identifier,
    ContactPoint,
    /// A code, and the system that it is of, where that is one.
    Code(Option<&'static str>),
    Boolean,
    Text,
    Id,
    Uri,
    Canonical,
    /// The token `true` for whatever is there.
    Exists,
    /// The token `false`, where no other path of the parameter finds anything.
    OrFalse,
    HumanName,
    Address,
    /// date, dateTime or instant.
    DateTime,
    Period,
    Timing,
    Decimal,
    Quantity,
    Money,
    Range,
    /// SampledData, which nothing is compared with.
    Samples,
    /// A reference; where a type is given, to that type alone.
    Reference(Option<&'static str>),
}

/// The entry of a parameter for a type; one for all types is one for each.
#[must_use]
pub(super) fn find(ty: ResourceType, name: &str) -> Option<Entry> {
    let rest = ROWS.get(&(ty.name(), name)).or_else(|| ROWS.get(&("*", name)))?;
    match rest.strip_prefix('!') {
        Some(why) => Some(Entry::Refused(why)),
        None => parameter(rest).map(Entry::Served),
    }
}

/// The name and the kind of each parameter that a type can be searched by.
pub fn parameters(ty: ResourceType) -> impl Iterator<Item = (&'static str, &'static str)> {
    names(ty).filter_map(move |name| match find(ty, name)? {
        Entry::Served(parameter) => Some((name, parameter.kind.name())),
        Entry::Refused(_) => None,
    })
}

/// The names of all parameters that a type can be searched by.
pub(super) fn names(ty: ResourceType) -> impl Iterator<Item = &'static str> {
    let served = |row: &(&(&str, &'static str), &&str)| !row.1.starts_with('!');
    let of = |ty| ROWS.range((ty, "")..).take_while(move |((of, _), _)| *of == ty).filter(served);
    of("*").chain(of(ty.name())).map(|((_, name), _)| *name)
}

fn parameter(rest: &'static str) -> Option<Parameter> {
    let mut words = rest.split(' ');
    let kind = words.next()?;
    let (kind, targets) = match kind.strip_suffix(')').and_then(|kind| kind.split_once('(')) {
        Some((kind, "*")) => (kind, Vec::new()),
        Some((kind, targets)) => (kind, targets.split(',').collect()),
        None => (kind, Vec::new()),
    };
    Some(Parameter {
        kind: Kind::parse(kind)?,
        targets,
        paths: words.map(path).collect::<Option<_>>()?,
    })
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "token" => Self::Token,
            "string" => Self::String,
            "date" => Self::Date,
            "number" => Self::Number,
            "quantity" => Self::Quantity,
            "uri" => Self::Uri,
            "reference" => Self::Reference,
            _ => return None,
        })
    }

    /// As R4 calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::String => "string",
            Self::Date => "date",
            Self::Number => "number",
            Self::Quantity => "quantity",
            Self::Uri => "uri",
            Self::Reference => "reference",
        }
    }
}

fn path(text: &'static str) -> Option<Path> {
    let (members, data) = text.split_once(outside_brackets(':'))?;
    let data = Data::parse(data)?;
    let steps = match members {
        "-" => Vec::new(),
        members => members.split(outside_brackets('.')).map(step).collect::<Option<_>>()?,
    };
    Some(Path { steps, data })
}

/// A separator, save within brackets.
fn outside_brackets(separator: char) -> impl FnMut(char) -> bool {
    let mut within = false;
    move |character| {
        within = character == '[' || within && character != ']';
        character == separator && !within
    }
}

fn step(text: &'static str) -> Option<Step> {
    let Some((name, only)) = text.split_once('[') else {
        return Some(Step { name: text, only: None });
    };
    let (path, text) = only.strip_suffix(']')?.split_once('=')?;
    Some(Step { name, only: Some(Only { path, text }) })
}

impl Data {
    fn parse(text: &'static str) -> Option<Self> {
        if let Some(system) = text.strip_prefix("code=") {
            return Some(Self::Code(Some(system)));
        }
        if let Some(ty) = text.strip_prefix("Reference>") {
            return Some(Self::Reference(Some(ty)));
        }
        Some(match text {
            "Coding" => Self::Coding,
            "CodeableConcept" => Self::CodeableConcept,
            "Identifier" => Self::Identifier,
            "ContactPoint" => Self::ContactPoint,
            "code" => Self::Code(None),
            "boolean" => Self::Boolean,
            "string" => Self::Text,
            "id" => Self::Id,
            "uri" => Self::Uri,
            "canonical" => Self::Canonical,
            "exists" => Self::Exists,
            "false" => Self::OrFalse,
            "HumanName" => Self::HumanName,
            "Address" => Self::Address,
            "dateTime" => Self::DateTime,
            "Period" => Self::Period,
            "Timing" => Self::Timing,
            "decimal" => Self::Decimal,
            "Quantity" => Self::Quantity,
            "Money" => Self::Money,
            "Range" => Self::Range,
            "SampledData" => Self::Samples,
            "Reference" => Self::Reference(None),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(name: &str) -> ResourceType {
        ResourceType::parse(name).expect("a type")
    }

    fn served(name: &str, parameter: &str) -> Parameter {
        match find(ty(name), parameter) {
            Some(Entry::Served(parameter)) => parameter,
            other => panic!("{name}.{parameter}: {other:?}"),
        }
    }

    #[test]
    fn every_row_is_read() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(ROWS.len(), rows, "each row is of another parameter");
        for ((of, name), rest) in &*ROWS {
            assert!(*of == "*" || ResourceType::parse(of).is_some(), "{of}");
            assert!(rest.starts_with('!') || parameter(rest).is_some(), "{of} {name} {rest}");
        }
        let count: usize = ResourceType::all().map(|ty| names(ty).count()).sum();
        assert!(count > 2_000, "{count}");
    }

    #[test]
    fn rows_say_kinds_targets_and_paths() {
        let phone = served("Patient", "phone");
        let only = Some(Only { path: "system", text: "phone" });
        let steps = vec![Step { name: "telecom", only }];
        assert_eq!(phone.paths, [Path { steps, data: Data::ContactPoint }]);
        let patient = served("Observation", "patient");
        assert_eq!((patient.kind, patient.targets), (Kind::Reference, vec!["Patient"]));
        assert_eq!(patient.paths[0].data, Data::Reference(Some("Patient")));
        let gene = &served("Observation", "gene-identifier").paths[0];
        assert_eq!(gene.steps.len(), 2, "no dot of the URL divides: {gene:?}");
        let system = Some("http://hl7.org/fhir/administrative-gender");
        assert_eq!(served("Patient", "gender").paths[0].data, Data::Code(system));
        assert_eq!(served("Basic", "_id").kind, Kind::Token, "of every type");
        assert!(matches!(find(ty("Observation"), "code-value-date"), Some(Entry::Refused(_))));
        assert_eq!(find(ty("Patient"), "nonsense"), None);
        assert!(names(ty("Patient")).any(|name| name == "_id"));
        assert!(!names(ty("Patient")).any(|name| name == "phonetic"));
    }
}
