//! One pass over a stored resource, which goes into what some paths read and skips the rest.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::element::{any, members, text};

/// A member to go into, and which of its items count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The member.
    pub name: &'static str,
    /// Not all of its items.
    pub only: Option<Only>,
}

/// Only what has this text at this path of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only {
    /// One member, or two with a dot between.
    pub path: &'static str,
    /// The text.
    pub text: &'static str,
}

/// Paths as a tree: where to go on from a value, and for whom the value itself is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree<L> {
    members: Vec<(&'static str, Tree<L>)>,
    only: Vec<(Only, Tree<L>)>,
    leaves: Vec<L>,
}

impl<L> Default for Tree<L> {
    fn default() -> Self {
        Self { members: Vec::new(), only: Vec::new(), leaves: Vec::new() }
    }
}

impl<L> Tree<L> {
    /// Values at the end of the path are for this leaf too.
    pub fn add(&mut self, path: &[Step], leaf: L) {
        let end = path.iter().fold(self, |tree, step| {
            let member = entry(&mut tree.members, step.name);
            match &step.only {
                None => member,
                Some(only) => entry(&mut member.only, only.clone()),
            }
        });
        end.leaves.push(leaf);
    }

    /// Gives each value at the end of a path, as its JSON text, with the leaf that it is for. An
    /// array is walked item by item; null is no value, and an array in an array holds none.
    ///
    /// Reads no further than to the last member that a path begins with: no name stands twice in
    /// a resource.
    ///
    /// # Errors
    /// The text is not JSON, as far as it was read.
    pub fn walk(&self, json: &[u8], mut found: impl FnMut(&L, &str)) -> serde_json::Result<()> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let mut enough = false;
        let place = Place::Text { enough: &mut enough };
        let walked = Walk { tree: self, found: &mut found, place }.deserialize(&mut reader);
        match enough {
            true => Ok(()),
            false => walked.and_then(|()| reader.end()),
        }
    }

    /// Whether values are needed as a whole, and not only some of their members.
    fn is_read_whole(&self) -> bool {
        !self.leaves.is_empty() || !self.only.is_empty()
    }
}

fn entry<K: PartialEq, L>(trees: &mut Vec<(K, Tree<L>)>, key: K) -> &mut Tree<L> {
    let at = trees.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        trees.push((key, Tree::default()));
        trees.len() - 1
    });
    &mut trees[at].1
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

/// Walks a value along a tree.
struct Walk<'w, L, F> {
    tree: &'w Tree<L>,
    found: &'w mut F,
    place: Place<'w>,
}

/// Where a value stands.
enum Place<'w> {
    /// It is a whole text, whose rest may stay unread: that there is `enough` is told here.
    Text { enough: &'w mut bool },
    /// It is an item of an array.
    Item,
    /// It is a member's.
    Member,
}

impl<'w, L, F: FnMut(&L, &str)> Walk<'w, L, F> {
    fn onto(&mut self, tree: &'w Tree<L>) -> Walk<'_, L, F> {
        Walk { tree, found: self.found, place: Place::Member }
    }

    fn item(&mut self, raw: &str) {
        let tree = self.tree;
        tree.leaves.iter().for_each(|leaf| (self.found)(leaf, raw));
        for (only, tree) in &tree.only {
            if only.takes(raw) {
                self.onto(tree).item(raw);
            }
        }
        if !tree.members.is_empty() && raw.starts_with('{') {
            let place = Place::Text { enough: &mut false };
            // It has been read once: it is JSON.
            let _ = serde_json::Deserializer::from_str(raw)
                .deserialize_map(Walk { place, ..self.onto(tree) });
        }
    }
}

impl<'de, L, F: FnMut(&L, &str)> DeserializeSeed<'de> for Walk<'_, L, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, reader: D) -> Result<(), D::Error> {
        if !self.tree.is_read_whole() {
            return reader.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(reader)?;
        any(raw.get(), |item| {
            self.item(item);
            false
        });
        Ok(())
    }
}

impl<'de, L, F: FnMut(&L, &str)> Visitor<'de> for Walk<'_, L, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let tree = self.tree;
        let mut missing = tree.members.len();
        while let Some(member) = members.next_key_seed(Among(&tree.members))? {
            let Some(tree) = member else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            members.next_value_seed(self.onto(tree))?;
            missing = missing.saturating_sub(1);
            if let (0, Place::Text { enough }) = (missing, &mut self.place) {
                **enough = true;
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let tree = self.tree;
        if matches!(self.place, Place::Item) {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while items.next_element_seed(Walk { place: Place::Item, ..self.onto(tree) })?.is_some() {}
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

/// A member's name, as the tree that it leads to.
struct Among<'w, L>(&'w [(&'static str, Tree<L>)]);

impl<'de, 'w, L> DeserializeSeed<'de> for Among<'w, L> {
    type Value = Option<&'w Tree<L>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'w, L> Visitor<'_> for Among<'w, L> {
    type Value = Option<&'w Tree<L>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| *known == name).map(|(_, tree)| tree))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&'static str]) -> Tree<&'static str> {
        let mut tree = Tree::default();
        for path in paths {
            let steps: Vec<_> = path.split('.').map(|name| Step { name, only: None }).collect();
            tree.add(&steps, *path);
        }
        tree
    }

    fn walked(paths: &[&'static str], json: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        let walk = tree(paths).walk(json.as_bytes(), |_, raw| found.push(raw.to_owned()));
        walk.ok().map(|()| found)
    }

    #[test]
    fn the_rest_of_a_text_is_not_read_once_all_paths_have_been() {
        let json = r#"{"z":0,"a":[{"b":1,"c":2},{"c":3,"b":4}],"d":5,"e":"#;
        let texts = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        assert_eq!(walked(&["a.b"], json), texts(&["1", "4"]));
        assert_eq!(walked(&["d", "a.b", "a.c"], json), texts(&["1", "2", "3", "4", "5"]));
        assert_eq!(walked(&["a.b", "f"], json), None, "what may be there is looked for");
        assert_eq!(walked(&["z.y", "d"], json), texts(&["5"]));
    }
}
