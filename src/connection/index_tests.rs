use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bytes::BytesMut;
use proptest::{collection::btree_set, prelude::*, sample::subsequence};

use super::*;
use crate::{
    filter::{Filter, Verdict},
    plan::{Grant, Members, Plan, Scope},
    position::{Epoch, LogPosition},
    store::{Before, Change, DocId, Image, Window},
};

const TYPES: [&str; 5] = ["Encounter", "Group", "Observation", "Patient", "ValueSet"];

/// Numbers of patients.
type Patients = BTreeSet<u8>;

/// A change as a test draws it.
#[derive(Debug, Clone)]
struct Draft {
    ty: &'static str,
    id: u8,
    /// Whose the resource is, where it is neither gone nor one of all that were replaced.
    kind: Kind,
    before: Prior,
    /// It shares the place of the change before it.
    same_place: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Upsert(Patients),
    Delete,
    Replaced,
}

/// What is known of the resource before.
#[derive(Debug, Clone)]
enum Prior {
    Absent,
    Unknown,
    Unreadable,
    Known(Patients),
}

fn id_of(ty: &str, n: u8) -> String {
    let letter = if ty == "Patient" { 'p' } else { 'x' };
    format!("{letter}{n}")
}

fn json(ty: &str, id: &str, patients: &Patients) -> String {
    let references = patients.iter().map(|n| format!(r#"{{"reference":"Patient/p{n}"}}"#));
    let list = |each: fn(String) -> String| references.clone().map(each).collect::<Vec<_>>();
    let (name, list) = match ty {
        "Patient" => ("link", list(|other| format!(r#"{{"other":{other}}}"#))),
        "Group" => ("member", list(|entity| format!(r#"{{"entity":{entity}}}"#))),
        "Observation" => ("performer", list(|performer| performer)),
        _ => ("participant", list(|one| format!(r#"{{"individual":{one}}}"#))),
    };
    let subject = references.clone().next().map(|one| format!(r#","subject":{one}"#));
    let (subject, list) = (subject.unwrap_or_default(), list.join(","));
    format!(r#"{{"resourceType":"{ty}","id":"{id}"{subject},"{name}":[{list}]}}"#)
}

impl Draft {
    fn entry(&self, time: u64) -> Arc<Entry> {
        let ty = ResourceType::parse(self.ty).unwrap();
        let id = id_of(self.ty, self.id);
        let encoded = match &self.before {
            Prior::Known(patients) => Some(json(self.ty, &id, patients)),
            _ => None,
        };
        let encode = Arc::new(move || encoded.clone().map(Into::into));
        let before = match &self.before {
            Prior::Absent => Before::Absent,
            Prior::Unknown => Before::Unknown,
            Prior::Unreadable | Prior::Known(_) => Before::Known(Image { bytes: 1, encode }),
        };
        let (doc, updated_ms) = (DocId::Text(id.as_str().into()), None);
        let kind = match &self.kind {
            Kind::Upsert(patients) => {
                let json = json(self.ty, &id, patients).into();
                ChangeKind::Upsert { ty, id: id.into(), doc, updated_ms, json, before }
            }
            Kind::Delete => ChangeKind::Delete { ty, id: id.into(), doc, before },
            Kind::Replaced => ChangeKind::Replaced { ty },
        };
        let position = LogPosition { time, consumed: 1 };
        Entry::new(Change::new(position, jiff::Timestamp::UNIX_EPOCH, kind))
    }
}

fn patients() -> impl Strategy<Value = Patients> {
    btree_set(0..4u8, 0..3)
}

fn drafts() -> impl Strategy<Value = Draft> {
    let kind = prop_oneof![
        12 => patients().prop_map(Kind::Upsert),
        4 => Just(Kind::Delete),
        1 => Just(Kind::Replaced),
    ];
    let before = prop_oneof![
        8 => Just(Prior::Absent),
        16 => patients().prop_map(Prior::Known),
        1 => Just(Prior::Unknown),
        1 => Just(Prior::Unreadable),
    ];
    let ty = proptest::sample::select(&TYPES[..]);
    (ty, 0..3u8, kind, before, prop::bool::weighted(0.2))
        .prop_map(|(ty, id, kind, before, same_place)| Draft { ty, id, kind, before, same_place })
}

fn entries(drafts: &[Draft]) -> Vec<Arc<Entry>> {
    let mut time = 10;
    let entry = |draft: &Draft| {
        time += u64::from(!draft.same_place);
        draft.entry(time)
    };
    drafts.iter().map(entry).collect()
}

/// Streams of one kind.
#[derive(Debug, Clone)]
struct Kin {
    plan: Plan,
    members: Option<Members>,
}

impl Kin {
    fn new(scope: Scope, types: &[&str], patients: Option<&Patients>) -> Self {
        let types: Vec<_> = types.iter().map(|ty| ResourceType::parse(ty).unwrap()).collect();
        let plan = Plan::new(scope, Some(&types), Window::default(), true, Grant::Everything);
        let ids = |patients: &Patients| patients.iter().map(|n| format!("p{n}").into()).collect();
        Self { plan, members: patients.map(|patients| Members::new(ids(patients))) }
    }

    fn of_patient(n: u8) -> Self {
        Self::new(Scope::Group(format!("x{n}")), &TYPES, Some(&[n].into()))
    }

    fn voice(&self) -> Voice {
        Voice::new(&self.plan, self.members.clone(), Epoch(7))
    }

    fn verdict(&self, entry: &Entry) -> Verdict {
        Filter { plan: &self.plan, members: self.members.as_ref() }.verdict(entry)
    }
}

fn kin() -> impl Strategy<Value = Kin> {
    let scope = prop_oneof![
        1 => Just((Scope::System, None)),
        1 => Just((Scope::Patients, None)),
        4 => (0..3u8, patients()).prop_map(|(n, patients)| {
            (Scope::Group(id_of("Group", n)), Some(patients))
        }),
    ];
    (scope, subsequence(&TYPES[..], 1..=TYPES.len()))
        .prop_map(|((scope, patients), types)| Kin::new(scope, &types, patients.as_ref()))
}

fn index_of(kins: &[Kin]) -> Index {
    let mut index = Index::default();
    (0..).zip(kins).for_each(|(slot, kin)| index.add(slot, &kin.voice()));
    index
}

fn called(index: &Index, entry: &Entry) -> BTreeSet<Slot> {
    let mut called = BTreeSet::new();
    index.call(entry, |slot| {
        called.insert(slot);
    });
    called
}

/// The log as far as it is read.
#[derive(Default)]
struct Log {
    entries: Vec<Arc<Entry>>,
    level: LogPosition,
}

impl Log {
    /// As the ring gives it, at least `most` changes where there are more.
    fn read(&self, after: LogPosition, most: usize) -> Page {
        let first = self.entries.partition_point(|entry| entry.change.position <= after);
        let rest = &self.entries[first..];
        let Some(last) = rest.get(most.max(1) - 1) else {
            let level = self.level.max(after);
            return Page { entries: rest.to_vec(), level, quiet: false, more: false };
        };
        let level = last.change.position;
        let whole = rest.partition_point(|entry| entry.change.position <= level);
        Page { entries: rest[..whole].to_vec(), level, quiet: false, more: true }
    }
}

/// A stream in the crowd, and all that it was told.
struct Seat {
    slot: Slot,
    joined: LogPosition,
    at: LogPosition,
    out: BytesMut,
    starts_over: bool,
}

/// As [`Carrier`](super::super::carrier::Carrier) does it.
struct Carrier<'k> {
    kins: &'k [Kin],
    index: Index,
    log: Log,
    at: LogPosition,
    seats: Vec<Seat>,
}

impl Carrier<'_> {
    fn join(&mut self, slot: usize, joined: LogPosition) {
        let page = self.log.read(joined, usize::MAX);
        let mut seat = Seat {
            slot: slot as Slot,
            joined,
            at: joined,
            out: BytesMut::new(),
            starts_over: false,
        };
        seat.hear(&self.kins[slot], joined, &page, page.all());
        if seat.at < self.at && !seat.starts_over {
            let at = self.at;
            self.seats
                .iter_mut()
                .filter(|seat| !seat.starts_over)
                .for_each(|seat| seat.at = seat.at.max(at));
            self.at = seat.at;
        }
        self.seats.push(seat);
    }

    fn speak(&mut self, most: usize) -> bool {
        let page = self.log.read(self.at, most);
        for (slot, due) in self.index.parts(&page) {
            let sits = |seat: &&mut Seat| seat.slot == slot && !seat.starts_over;
            for seat in self.seats.iter_mut().filter(sits) {
                seat.hear(&self.kins[slot as usize], self.at, &page, due.iter().copied());
            }
        }
        self.at = page.level;
        page.more
    }
}

impl Seat {
    fn hear<'p>(
        &mut self,
        kin: &Kin,
        after: LogPosition,
        page: &Page,
        due: impl Iterator<Item = &'p Entry>,
    ) {
        let after = self.at.max(after);
        let spoken = kin.voice().speak(after, page, due, &mut self.out, |_| ());
        (self.at, self.starts_over) = (spoken.end, spoken.starts_over);
    }
}

proptest! {
    /// Whom a change concerns is called, by himself and among others who have come and gone.
    #[test]
    fn whom_a_change_concerns_is_called(
        drafts in prop::collection::vec(drafts(), 1..20),
        kins in prop::collection::vec(kin(), 1..12),
        gone in prop::collection::hash_set(0..12usize, 0..12),
    ) {
        let mut index = index_of(&kins);
        let there = |slot: &usize| !gone.contains(slot);
        for slot in (0..kins.len()).filter(|slot| !there(slot)) {
            index.remove(slot as Slot, &kins[slot].voice());
        }
        for entry in entries(&drafts) {
            let called = called(&index, &entry);
            for (slot, kin) in kins.iter().enumerate() {
                let concerns = kin.verdict(&entry) != Verdict::Skip;
                let calls = called.contains(&(slot as Slot));
                prop_assert!(there(&slot) || !calls, "{slot} is gone");
                prop_assert!(calls || !concerns || !there(&slot), "{entry:?}: {kin:?}");
            }
        }
        for (slot, kin) in kins.iter().enumerate() {
            index.remove(slot as Slot, &kin.voice());
        }
        prop_assert!(index.open.is_empty() && index.restricted.is_empty());
        prop_assert!(index.patients.is_empty() && index.groups.is_empty());
    }

    /// Streams that are offered only what may concern them are told, byte by byte, what each
    /// would be that looks at every change: from wherever they have joined, by pages of any
    /// length.
    #[test]
    fn each_is_told_what_it_would_be_by_itself(
        drafts in prop::collection::vec(drafts(), 1..40),
        kins in prop::collection::vec(kin(), 1..8),
        joins in prop::collection::vec((0..8usize, 0..50u64), 1..20),
        steps in prop::collection::vec((0..6usize, 1..5usize), 60),
    ) {
        let entries = entries(&drafts);
        let mut carrier = Carrier {
            kins: &kins,
            index: index_of(&kins),
            log: Log::default(),
            at: LogPosition { time: u64::MAX, consumed: 0 },
            seats: Vec::new(),
        };
        let (mut entries, mut joins) = (entries.into_iter().peekable(), joins.into_iter());
        for (what, count) in steps {
            match what {
                // The tail reads on: all changes of a place, and how far the log has come.
                0..3 => for _ in 0..count {
                    let Some(entry) = entries.next() else { break };
                    let place = entry.change.position;
                    carrier.log.entries.push(entry);
                    while let Some(entry) = entries.next_if(|e| e.change.position == place) {
                        carrier.log.entries.push(entry);
                    }
                    carrier.log.level = match count {
                        1 => LogPosition { consumed: 9, ..place },
                        _ => place,
                    };
                },
                // Behind the ring's end, or ahead of it.
                3 => if let Some((kin, place)) = joins.next() {
                    carrier.join(kin % kins.len(), LogPosition::before(place));
                },
                _ if carrier.seats.is_empty() => {}
                _ => {
                    carrier.speak(count);
                }
            }
        }
        while !carrier.seats.is_empty() && carrier.speak(3) {}
        for seat in &carrier.seats {
            let mut alone = BytesMut::new();
            let page = carrier.log.read(seat.joined, usize::MAX);
            let voice = kins[seat.slot as usize].voice();
            let spoken = voice.speak(seat.joined, &page, page.all(), &mut alone, |_| ());
            prop_assert_eq!(&seat.out, &alone);
            prop_assert_eq!(seat.starts_over, spoken.starts_over);
            if seat.starts_over {
                // What makes it start over is the next that it hears of.
                let lies_before = |entry: &Arc<Entry>| {
                    let place = entry.change.position;
                    place > spoken.end && place <= seat.at
                };
                prop_assert!(seat.at >= spoken.end);
                prop_assert!(!carrier.log.entries.iter().any(lies_before));
            } else {
                prop_assert_eq!(seat.at.max(carrier.at), spoken.end);
            }
        }
    }
}

fn observation(now: &[u8], before: Prior) -> Arc<Entry> {
    let kind = Kind::Upsert(now.iter().copied().collect());
    Draft { ty: "Observation", id: 1, kind, before, same_place: false }.entry(11)
}

/// Of thousands that follow a patient each, a change calls those whose patients it is about.
#[test]
fn nobody_else_is_called() {
    let kins: Vec<_> = (0..200).map(Kin::of_patient).collect();
    let mut index = index_of(&kins);
    assert_eq!(called(&index, &observation(&[5], Prior::Absent)), [5].into());
    let moved = observation(&[5, 6], Prior::Known([7].into()));
    assert_eq!(called(&index, &moved), [5, 6, 7].into());
    assert_eq!(called(&index, &observation(&[], Prior::Absent)), [].into());
    let gone = Draft {
        ty: "Patient",
        id: 9,
        kind: Kind::Delete,
        before: Prior::Known([].into()),
        same_place: false,
    };
    assert_eq!(called(&index, &gone.entry(11)), [9].into());
    let group = Draft { ty: "Group", ..gone.clone() };
    assert_eq!(called(&index, &group.entry(11)), [9].into());
    for before in [Prior::Unknown, Prior::Unreadable] {
        assert_eq!(called(&index, &observation(&[5], before)).len(), 200);
    }
    assert_eq!(called(&index, &Draft { kind: Kind::Replaced, ..gone }.entry(11)).len(), 200);
    index.add(200, &Kin::new(Scope::System, &["Observation"], None).voice());
    index.add(201, &Kin::new(Scope::System, &["Encounter", "Patient"], None).voice());
    assert_eq!(called(&index, &observation(&[5], Prior::Absent)), [5, 200].into());
}

/// Whose a resource is, nobody asks where nobody carries its type.
#[test]
fn what_nobody_carries_is_not_looked_into() {
    let kin = Kin::new(Scope::Group("x1".into()), &["Patient"], Some(&[1].into()));
    let index = index_of(&[kin]);
    let encode = Arc::new(|| panic!("somebody asks"));
    let id: Box<str> = "1".into();
    let kind = ChangeKind::Delete {
        ty: ResourceType::parse("Observation").unwrap(),
        doc: DocId::Text(id.clone()),
        id,
        before: Before::Known(Image { bytes: 1, encode }),
    };
    let (position, committed) = (LogPosition::before(9), jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(called(&index, &Entry::new(Change::new(position, committed, kind))), [].into());
}

/// Streams have a voice in common where they carry the same under the same ids, whatever their
/// histories were.
#[test]
fn a_voice_is_found_by_what_it_says() {
    let kin = |group: &str, types: &[&str], patients: &[u8]| {
        Kin::new(Scope::Group(group.into()), types, Some(&patients.iter().copied().collect()))
    };
    let base = kin("a", &["Observation"], &[1, 2]);
    let window = Window { after_ms: Some(5), before_ms: None };
    let later = Kin { plan: Plan { window, ..base.plan.clone() }, ..base.clone() };
    let others = [
        kin("b", &["Observation"], &[1, 2]),
        kin("a", &["Patient"], &[1, 2]),
        kin("a", &["Observation"], &[1, 3]),
        Kin::new(Scope::System, &["Observation"], None),
    ];
    let mut voices: HashSet<_> = others.iter().map(Kin::voice).collect();
    assert_eq!(voices.len(), 4);
    assert!(voices.insert(base.voice()));
    assert!(!voices.insert(later.voice()));
}
