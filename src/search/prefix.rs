//! The prefixes of ordered values.

/// How a value of a resource is to lie to the value of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    /// It starts after.
    Sa,
    /// It ends before.
    Eb,
    /// It is about the same.
    Ap,
}

impl Prefix {
    pub(super) const ALL: [(&'static str, Self); 9] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("gt", Self::Gt),
        ("lt", Self::Lt),
        ("ge", Self::Ge),
        ("le", Self::Le),
        ("sa", Self::Sa),
        ("eb", Self::Eb),
        ("ap", Self::Ap),
    ];

    /// Parts a value from its prefix; without one it is `eq`.
    pub(super) fn split(value: &str) -> (Self, &str) {
        let of = |(name, prefix): &(&str, Self)| Some((*prefix, value.strip_prefix(name)?));
        Self::ALL.iter().find_map(of).unwrap_or((Self::Eq, value))
    }
}
