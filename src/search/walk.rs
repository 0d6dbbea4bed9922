//! The decision: one pass over a stored resource, which goes into what a query reads and skips
//! the rest.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::{
    element::{any, members, text},
    reference,
    table::{Data, Only, Path, Step},
    test::{Test, Wanted},
};

/// All that a resource is to pass, and where the values for it are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    conditions: Vec<Condition>,
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    test: Test,
    wanted: Wanted,
    /// The data type of what stands for a value where there is none.
    default: Option<Data>,
}

/// Where to go on from a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    members: Vec<(&'static str, Node)>,
    only: Vec<(Only, Node)>,
    leaves: Vec<Leaf>,
}

/// A value is compared, as this data type, for this condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    condition: usize,
    data: Data,
}

/// What has been found for a condition.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    value: bool,
    fit: bool,
}

impl Conditions {
    /// Adds what a resource is to pass too.
    pub(super) fn add(&mut self, paths: &[Path], test: Test, wanted: Wanted) {
        let condition = self.conditions.len();
        let mut default = None;
        for Path { steps, data } in paths {
            match steps.as_slice() {
                [] => default = Some(*data),
                steps => self.root.at(steps).leaves.push(Leaf { condition, data: *data }),
            }
        }
        self.conditions.push(Condition { test, wanted, default });
    }

    /// Whether every resource passes.
    pub(super) fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether a stored resource passes all. What is no JSON passes none.
    pub(super) fn pass(&self, json: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut found = vec![Found::default(); self.conditions.len()];
        let mut reader = serde_json::Deserializer::from_slice(json);
        let walk = Walk { node: &self.root, conditions: &self.conditions, found: &mut found };
        if walk.deserialize(&mut reader).and_then(|()| reader.end()).is_err() {
            return false;
        }
        self.conditions.iter().zip(found).all(|(condition, found)| condition.passes(found))
    }
}

impl Condition {
    fn passes(&self, mut found: Found) -> bool {
        if let (false, Some(data)) = (found.value, self.default) {
            found = Found { value: true, fit: self.test.fits(data, "") };
        }
        self.wanted.passes(found.value, found.fit)
    }
}

impl Node {
    /// The node at the end of a path.
    fn at(&mut self, steps: &[Step]) -> &mut Self {
        steps.iter().fold(self, |node, step| {
            let member = entry(&mut node.members, step.name);
            match &step.only {
                None => member,
                Some(only) => entry(&mut member.only, only.clone()),
            }
        })
    }

    /// Whether values are needed as a whole, and not only some of their members.
    fn is_read_whole(&self) -> bool {
        !self.leaves.is_empty() || !self.only.is_empty()
    }
}

fn entry<K: PartialEq>(nodes: &mut Vec<(K, Node)>, key: K) -> &mut Node {
    let at = nodes.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        nodes.push((key, Node::default()));
        nodes.len() - 1
    });
    &mut nodes[at].1
}

/// Walks a value along a node's paths. An array is walked item by item.
struct Walk<'w> {
    node: &'w Node,
    conditions: &'w [Condition],
    found: &'w mut [Found],
}

impl<'w> Walk<'w> {
    fn onto(&mut self, node: &'w Node) -> Walk<'_> {
        Walk { node, conditions: self.conditions, found: self.found }
    }

    /// A value, or the items of an array, by their text.
    fn whole(&mut self, raw: &str) {
        any(raw, |item| {
            self.item(item);
            false
        });
    }

    fn item(&mut self, raw: &str) {
        let node = self.node;
        node.leaves.iter().for_each(|leaf| self.compare(*leaf, raw));
        for (only, node) in &node.only {
            if only.takes(raw) {
                self.onto(node).item(raw);
            }
        }
        if !node.members.is_empty() && raw.starts_with('{') {
            // It has been read once: it is JSON.
            let _ = serde_json::Deserializer::from_str(raw).deserialize_map(self.onto(node));
        }
    }

    fn compare(&mut self, leaf: Leaf, raw: &str) {
        let (Some(condition), Some(found)) =
            (self.conditions.get(leaf.condition), self.found.get_mut(leaf.condition))
        else {
            return;
        };
        if let Data::Reference(Some(ty)) = leaf.data
            && !reference::is_to(ty, raw)
        {
            return;
        }
        found.value = true;
        found.fit = found.fit || condition.test.fits(leaf.data, raw);
    }
}

impl Only {
    fn takes(&self, raw: &str) -> bool {
        match self.path.split_once('.') {
            None => is_text(members(raw, [self.path])[0], self.text),
            Some((first, rest)) => members(raw, [first])[0].is_some_and(|items| {
                any(items, |item| is_text(members(item, [rest])[0], self.text))
            }),
        }
    }
}

fn is_text(raw: Option<&str>, wanted: &str) -> bool {
    raw.and_then(text).as_deref() == Some(wanted)
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, reader: D) -> Result<(), D::Error> {
        if !self.node.is_read_whole() {
            return reader.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(reader)?;
        self.whole(raw.get());
        Ok(())
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let node = self.node;
        while let Some(member) = members.next_key_seed(Among(&node.members))? {
            match member {
                Some(node) => members.next_value_seed(self.onto(node))?,
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let node = self.node;
        while items.next_element_seed(self.onto(node))?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}

/// A member's name, as the node that it leads to.
struct Among<'w>(&'w [(&'static str, Node)]);

impl<'de, 'w> DeserializeSeed<'de> for Among<'w> {
    type Value = Option<&'w Node>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'w> Visitor<'_> for Among<'w> {
    type Value = Option<&'w Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == name).map(|(_, node)| node))
    }
}
