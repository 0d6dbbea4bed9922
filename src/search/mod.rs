//! Search as R4 has it: a query becomes one decision on a stored resource. Pure.
//!
//! In the order of the data's way: `table` knows the parameters and where their values are;
//! `query` reads a query, `split` takes its values apart, and `test` makes each a test of
//! its kind (`token`, `text`, `date`, `number`, `uri`, `reference`); `conditions` walks a resource
//! once and puts each value to its test. The decision reads the resource and the query,
//! nothing else: no clock, no other resource. So history and live agree on what is found.
//! `clues` says what of that a store may know before a resource is read.
//! `answer` writes what is found, `subset` the part of it that was asked for.

mod answer;
mod clues;
mod conditions;
mod date;
mod decimal;
mod fold;
mod interval;
mod number;
mod options;
mod prefix;
mod query;
mod reference;
mod split;
mod subset;
mod table;
mod test;
#[cfg(test)]
mod tests;
mod text;
mod token;
mod uri;

pub use answer::{Answer, Shape};
pub use clues::places;
pub use options::{Options, SortBy, SortKey, Summary};
pub use query::{Context, Search};
pub use subset::{Names, Subset};
pub use table::parameters;
