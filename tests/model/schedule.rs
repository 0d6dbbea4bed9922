//! A schedule: the sizes of things, and what happens one after another. Drawn from a seed.

use fhirtail::{
    fhir::ResourceType,
    plan::{Grant, Plan, Scope},
    store::{DocId, Window},
};

use support::{chaos::Dice, writes::ty};

/// How many processes serve the store.
pub const HUBS: usize = 2;

/// Sizes and habits of one run.
#[derive(Debug, Clone, Copy)]
pub struct Knobs {
    pub seed: u64,
    pub ring_bytes: usize,
    pub readers: usize,
    /// At most so many rows in a batch of a scan, and changes in one of the log.
    pub scan_batch: usize,
    pub log_batch: usize,
    /// Each change has a time of its own, as in an embedded store.
    pub embedded: bool,
    /// Windows are read along lastUpdated.
    pub by_updated: bool,
    /// Before-images are kept.
    pub images: bool,
    /// Updates come without their document, which is looked up, late now and then.
    pub looked_up: bool,
    /// Some resources are of many kilobytes.
    pub fat: bool,
    /// How many batches a snapshot lives.
    pub life: Option<u64>,
    /// One history at a time.
    pub in_turn: bool,
    /// Who is level is carried by the crowd.
    pub crowd: bool,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Query {
    pub scope: Scope,
    pub types: Option<&'static [&'static str]>,
    pub window: Window,
}

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Head,
    Snapshot,
    Scan,
    Changes,
    Next,
}

/// One resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Patient(u8),
    Observation(u8),
    Organization(u8),
    Group,
}

/// One write of a transaction.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// `patients`: whom it names, one bit each.
    Put {
        target: Target,
        updated_ms: Option<i64>,
        patients: u8,
    },
    Delete(Target),
}

/// What happens next.
#[derive(Debug, Clone)]
pub enum Step {
    /// A transaction.
    Commit(Vec<Op>),
    /// Collections are dropped, at one place of the log.
    Drop(Vec<ResourceType>),
    /// The log moves without changes.
    Pass(u64),
    /// The log forgets all but its last transactions.
    Trim(usize),
    /// All snapshots expire.
    Expire,
    /// The next calls find the store away.
    Away(Call, u32),
    /// Time passes, in ms; none: the tasks get a turn.
    Pause(u64),
    /// A client comes to a hub: with the last id that it has, or as a new one.
    Open { client: usize, hub: usize, fresh: bool },
    /// Its connection is cut.
    Cut(usize),
    /// It takes so many events, and waits for each so many ms at most.
    Take { client: usize, events: usize, patience: u64 },
    /// It keeps its copy and its id on its disk; the connection goes on.
    Save(usize),
    /// It dies, and is again as it was saved.
    Restore(usize),
    /// A process stops, and another one starts.
    Restart(usize),
}

/// All of a run.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub knobs: Knobs,
    pub queries: Vec<Query>,
    pub steps: Vec<Step>,
}

impl Target {
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Patient(_) => "Patient",
            Self::Observation(_) => "Observation",
            Self::Organization(_) => "Organization",
            Self::Group => "Group",
        }
    }

    /// Every third resource's document has an ObjectId, whose text is then the id.
    pub fn id(self) -> String {
        self.doc().to_string()
    }

    pub fn doc(self) -> DocId {
        match self {
            Self::Patient(n) | Self::Observation(n) | Self::Organization(n) if n % 3 == 2 => {
                DocId::Oid([n; 12])
            }
            Self::Patient(n) => DocId::Text(format!("p{n}").into()),
            Self::Observation(n) => DocId::Text(format!("o.{n}").into()),
            Self::Organization(n) => DocId::Text(format!("ü{n}").into()),
            Self::Group => DocId::Text("g".into()),
        }
    }

    /// In whose compartments it is, when it names these patients.
    pub fn compartments(self, patients: u8) -> Vec<u8> {
        let mut named = (0..8).filter(|n| patients & (1 << n) != 0);
        match self {
            Self::Patient(n) => vec![n],
            Self::Observation(_) => named.next().into_iter().collect(),
            Self::Organization(_) => Vec::new(),
            Self::Group => named.collect(),
        }
    }
}

impl Op {
    pub fn target(&self) -> Target {
        match self {
            Self::Put { target, .. } | Self::Delete(target) => *target,
        }
    }
}

impl Query {
    pub fn plan(&self) -> Plan {
        let types: Option<Vec<_>> =
            self.types.map(|names| names.iter().map(|name| ty(name)).collect());
        Plan::new(self.scope.clone(), types.as_deref(), self.window, true, Grant::Everything)
    }
}

impl Schedule {
    pub fn drawn(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let knobs = knobs(seed, &mut dice);
        let queries: Vec<_> = (0..1 + dice.below(4)).map(|_| query(&mut dice)).collect();
        let mut steps = vec![Step::Commit(vec![put(&mut dice, Target::Group)])];
        for _ in 0..dice.below(12) {
            steps.push(Step::Commit(ops(&mut dice)));
        }
        // Each schedule has its own mixture: what one rarely does is another's habit.
        let weights: Vec<u64> = COMMON.iter().map(|common| dice.roll(2 * common + 1)).collect();
        for _ in 0..10 + dice.below(70) {
            steps.push(step(&mut dice, &weights, queries.len()));
        }
        Self { knobs, queries, steps }
    }
}

/// How often each kind of step occurs, on average.
const COMMON: [u64; 13] = [24, 1, 2, 2, 2, 3, 8, 12, 6, 24, 1, 1, 1];

fn knobs(seed: u64, dice: &mut Dice) -> Knobs {
    let embedded = dice.roll(3) == 0;
    let images = dice.roll(4) > 0;
    let looked_up = !embedded && !images && dice.roll(4) > 0;
    // Who falls behind in between may hear again what was looked up late, as docs/RELIABILITY.md says.
    let ring_bytes = [1, 1_000, 2_500, 6_000, 100_000][if looked_up { 4 } else { dice.below(5) }];
    Knobs {
        seed,
        ring_bytes,
        readers: 1 + dice.below(4),
        scan_batch: 1 + dice.below(4),
        log_batch: 1 + dice.below(5),
        embedded,
        by_updated: dice.roll(2) == 0,
        images,
        looked_up,
        fat: !looked_up && dice.roll(10) == 0,
        life: [None, None, Some(1), Some(3)][dice.below(4)],
        in_turn: dice.roll(6) == 0,
        crowd: dice.roll(2) == 0,
    }
}

fn query(dice: &mut Dice) -> Query {
    let scope = match dice.roll(6) {
        0 => Scope::Patients,
        1 => Scope::Group("g".into()),
        _ => Scope::System,
    };
    let types: Option<&[&str]> = match dice.roll(4) {
        0 => Some(&["Observation"]),
        1 => Some(&["Observation", "Patient"]),
        _ => None,
    };
    // All types: the many that are empty only take time.
    let types = types.or(Some(&["Group", "Observation", "Organization", "Patient"]));
    let bound = |dice: &mut Dice| Some(dice.roll(10) as i64);
    let window = match dice.roll(8) {
        0 | 1 => Window { after_ms: bound(dice), before_ms: None },
        2 => Window { after_ms: None, before_ms: bound(dice) },
        _ => Window::default(),
    };
    Query { scope, types, window }
}

fn step(dice: &mut Dice, weights: &[u64], clients: usize) -> Step {
    let client = dice.below(clients);
    let mut at = dice.roll(weights.iter().sum::<u64>().max(1));
    let kind = weights.iter().position(|weight| {
        let here = at < *weight;
        at = at.wrapping_sub(*weight);
        here
    });
    match kind.unwrap_or(0) {
        0 => Step::Commit(ops(dice)),
        1 => Step::Drop(dropped(dice)),
        2 => Step::Pass(1 + dice.roll(3)),
        3 => Step::Trim(1 + dice.below(6)),
        4 => Step::Expire,
        5 => {
            let calls = [Call::Head, Call::Snapshot, Call::Scan, Call::Changes, Call::Next];
            Step::Away(calls[dice.below(5)], 1 + dice.roll(3) as u32)
        }
        6 => Step::Pause([0, 0, 10, 300, 3_000, 7_000][dice.below(6)]),
        7 => Step::Open { client, hub: dice.below(HUBS), fresh: dice.roll(8) == 0 },
        8 => Step::Cut(client),
        9 => Step::Take {
            client,
            events: 1 + dice.below(12),
            patience: [0, 1, 100, 6_000, 45_000][dice.below(5)],
        },
        10 => Step::Save(client),
        11 => Step::Restore(client),
        _ => Step::Restart(dice.below(HUBS)),
    }
}

fn dropped(dice: &mut Dice) -> Vec<ResourceType> {
    let both = [ty("Organization"), ty("Observation")];
    match dice.roll(3) {
        0 => both.to_vec(),
        n => vec![both[usize::from(n == 1)]],
    }
}

/// The writes of one transaction, which names a resource once.
fn ops(dice: &mut Dice) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for _ in 0..[1, 1, 1, 2, 5][dice.below(5)] {
        let op = op(dice);
        if ops.iter().all(|other| other.target() != op.target()) {
            ops.push(op);
        }
    }
    ops
}

fn op(dice: &mut Dice) -> Op {
    let target = match dice.roll(24) {
        0 => Target::Group,
        1..=6 => Target::Patient(dice.roll(4) as u8),
        7..=9 => Target::Organization(dice.roll(3) as u8),
        _ => Target::Observation(dice.roll(7) as u8),
    };
    match dice.roll(4) {
        0 if target != Target::Group => Op::Delete(target),
        _ => put(dice, target),
    }
}

fn put(dice: &mut Dice, target: Target) -> Op {
    let updated_ms = (dice.roll(8) > 0).then(|| dice.roll(10) as i64);
    let patients = match target {
        // Nearly always the same members.
        Target::Group => [0b11, 0b11, 0b11, 0b11, 0b110][dice.below(5)],
        _ => [0, 1, 2, 4, 8][dice.below(5)],
    };
    Op::Put { target, updated_ms, patients }
}
