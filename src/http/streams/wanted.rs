//! Which of the streams are asked for, and in what order. Pure.

use crate::{error::ApiError, request::Pairs, session::Phase};

/// How many streams are listed where nobody says, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

/// By what streams are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Number,
    Peer,
    Query,
    Phase,
    Behind,
    Events,
    Bytes,
}

impl By {
    pub(super) const ALL: [Self; 7] = [
        Self::Number,
        Self::Peer,
        Self::Query,
        Self::Phase,
        Self::Behind,
        Self::Events,
        Self::Bytes,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Peer => "peer",
            Self::Query => "query",
            Self::Phase => "phase",
            Self::Behind => "behind",
            Self::Events => "events",
            Self::Bytes => "bytes",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) by: By,
    pub(super) descending: bool,
    pub(super) limit: usize,
    pub(super) offset: usize,
    pub(super) phase: Option<Phase>,
    /// A part of the peer, of whom it is forwarded for, or of the query.
    pub(super) text: String,
}

impl Default for Wanted {
    fn default() -> Self {
        let (by, phase, text) = (By::Behind, None, String::new());
        Self { by, descending: true, limit: USUAL, offset: 0, phase, text }
    }
}

impl Wanted {
    /// # Errors
    /// 400 that names the parameter.
    pub(super) fn parse(pairs: Pairs) -> Result<Self, ApiError> {
        let mut wanted = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "sort" => {
                    let (descending, by) = match value.strip_prefix('-') {
                        Some(by) => (true, by),
                        None => (false, &*value),
                    };
                    let names = By::ALL.map(By::name);
                    wanted.by = one_of(&name, by, By::ALL, By::name, &names)?;
                    wanted.descending = descending;
                }
                "phase" if value.is_empty() => wanted.phase = None,
                "phase" => {
                    let names = Phase::ALL.map(Phase::name);
                    wanted.phase = Some(one_of(&name, &value, Phase::ALL, Phase::name, &names)?);
                }
                "limit" => wanted.limit = number(&name, &value)?.clamp(1, MOST),
                "offset" => wanted.offset = number(&name, &value)?,
                "q" => wanted.text = value,
                _ => {
                    const KNOWN: &str = "this parameter is not known here. Known: sort, limit, \
                                         offset, phase, q.";
                    let name: String = name.chars().take(80).collect();
                    return Err(ApiError::invalid(&name, KNOWN));
                }
            }
        }
        Ok(wanted)
    }

    /// The query of a URL that asks for this.
    pub(super) fn query(&self) -> String {
        let usual = Self::default();
        let mut pairs = Vec::new();
        if (self.by, self.descending) != (usual.by, usual.descending) {
            let sign = if self.descending { "-" } else { "" };
            pairs.push(format!("sort={sign}{}", self.by.name()));
        }
        if let Some(phase) = self.phase {
            pairs.push(format!("phase={}", phase.name()));
        }
        if !self.text.is_empty() {
            let mut text = String::new();
            crate::http::search::encode(&mut text, &self.text);
            pairs.push(format!("q={text}"));
        }
        if self.limit != usual.limit {
            pairs.push(format!("limit={}", self.limit));
        }
        if self.offset > 0 {
            pairs.push(format!("offset={}", self.offset));
        }
        pairs.join("&")
    }
}

fn one_of<T: Copy, const N: usize>(
    parameter: &str,
    value: &str,
    all: [T; N],
    name: impl Fn(T) -> &'static str,
    names: &[&str],
) -> Result<T, ApiError> {
    let wrong = || ApiError::invalid(parameter, format!("send one of: {}.", names.join(", ")));
    all.into_iter().find(|one| name(*one) == value).ok_or_else(wrong)
}

fn number(parameter: &str, value: &str) -> Result<usize, ApiError> {
    value.parse().map_err(|_| ApiError::invalid(parameter, "send a whole number."))
}

#[cfg(test)]
mod tests {
    use super::{super::pairs, *};

    fn parse(given: &[(&str, &str)]) -> Result<Wanted, ApiError> {
        Wanted::parse(
            given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        )
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [("sort", "shoe-size"), ("phase", "moon"), ("limit", "-1"), ("lmit", "1")];
        for (name, value) in wrong {
            let refusal = parse(&[(name, value)]).unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), &*refusal.expression),
                (400, &[name.to_owned()][..])
            );
        }
    }

    #[test]
    fn a_link_asks_for_the_same() {
        let asked = [
            ("sort", "-bytes"),
            ("phase", "live"),
            ("q", "a&b=1"),
            ("limit", "7"),
            ("offset", "14"),
        ];
        let wanted = parse(&asked).unwrap();
        let read = pairs(wanted.query().as_bytes());
        assert_eq!(Wanted::parse(read).unwrap(), wanted);
        assert_eq!(Wanted::default().query(), "");
        assert_eq!(parse(&[("limit", "99999")]).unwrap().limit, MOST);
    }
}
