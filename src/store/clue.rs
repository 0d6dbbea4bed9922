//! What a store may know of the resources that a reader wants.

/// A condition that every wanted resource fulfils: at one of these places there is one of its
/// values. A store may leave out resources that do not fulfil it, or pay it no heed: whoever
/// reads decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clue {
    /// At least one.
    pub places: Vec<Place>,
}

/// A place in a resource, and the values that may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The members on the way, from the resource on. An array on the way stands for its items; an
    /// array in an array holds nothing.
    pub path: Vec<&'static str>,
    /// Any of them.
    pub values: Vec<Sought>,
}

/// A value that is sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// This text.
    Text(String),
    /// A text that begins so.
    Begins(String),
    /// A boolean.
    Bool(bool),
    /// A text that is an instant from one to the other, in ms since 1970, both ends inclusive; or
    /// that is no instant at all.
    Instant(Option<i64>, Option<i64>),
}
