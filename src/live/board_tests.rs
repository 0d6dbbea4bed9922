use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    live::lane::GRACE,
    store::{Change, ChangeBatch, ChangeKind},
};

/// What a change of these tests weighs.
const WEIGHT: usize = 256;

fn change(time: u64) -> Change {
    let ty = crate::fhir::ResourceType::parse("Basic").unwrap();
    let position = LogPosition { time, consumed: 1 };
    let committed = jiff::Timestamp::UNIX_EPOCH;
    Change::new(position, committed, ChangeKind::Replaced { ty })
}

/// The changes at these times.
fn pending(times: std::ops::Range<u64>) -> Pending {
    let level = at(times.end - 1);
    Pending::new(ChangeBatch::new(times.map(change).collect(), level, false))
}

fn at(time: u64) -> LogPosition {
    LogPosition { time, consumed: 1 }
}

/// A stream at work on a board, and what it has got.
#[derive(Debug)]
struct Stream {
    ticket: Ticket,
    position: LogPosition,
    wake: Arc<Notify>,
}

/// A board with a ring that starts at 100, and lanes of ten changes.
struct Bench {
    board: Board,
    openings: Vec<Opening>,
}

const HOME: LogPosition = LogPosition { time: 100, consumed: 1 };

impl Bench {
    fn new(slots: usize) -> Self {
        Self { board: Board::new(slots, 10 * WEIGHT), openings: Vec::new() }
    }

    fn ask(&mut self, time: u64) -> Stream {
        let wake = Arc::<Notify>::default();
        let (ticket, openings) = self.board.ask(at(time), Arc::clone(&wake), HOME);
        self.openings.extend(openings);
        Stream { ticket, position: at(time), wake }
    }

    fn end(&mut self, lane: LaneId) {
        let openings = self.board.end(lane, HOME);
        self.openings.extend(openings);
    }

    fn starts(&self) -> Vec<u64> {
        self.openings.iter().map(|opening| opening.start.time).collect()
    }

    fn feed(&mut self, lane: usize, pending: &mut Pending) -> Fed {
        self.board.feed(self.openings[lane].lane, pending)
    }

    /// The times that a stream takes next, or why it gets nothing.
    fn take(&mut self, stream: &mut Stream) -> Result<Vec<u64>, Taken> {
        match self.board.take(stream.ticket, stream.position, 3 * WEIGHT) {
            Taken::Page(page) => {
                stream.position = page.level;
                Ok(page.entries.iter().map(|entry| entry.change.position.time).collect())
            }
            other => Err(other),
        }
    }

    fn census(&self) -> (usize, usize, usize) {
        let Census { lanes, carried, waiting } = self.board.census();
        (lanes, carried, waiting)
    }
}

#[test]
fn streams_share_the_lane_that_is_near_behind_them() {
    let mut bench = Bench::new(3);
    // From 40 it is 60 to the ring. A lane from 40 serves up to 70, where both are 30 away.
    for time in [40, 41, 55, 70] {
        bench.ask(time);
    }
    assert_eq!((bench.starts(), bench.census()), (vec![40], (1, 4, 0)));
    bench.ask(71);
    bench.ask(39);
    assert_eq!((bench.starts(), bench.census()), (vec![40, 71, 39], (3, 6, 0)));
}

#[test]
fn without_a_slot_whoever_is_ahead_of_a_lane_joins_it_and_others_wait() {
    let mut bench = Bench::new(1);
    bench.ask(40);
    bench.ask(99);
    let (older, oldest) = (bench.ask(30), bench.ask(20));
    bench.ask(25);
    assert_eq!(bench.census(), (1, 2, 3));
    let mut none = older;
    assert!(matches!(bench.take(&mut none), Err(Taken::Nothing)));
    // The slot goes to who has waited longest; the lane takes the others along.
    let lane = bench.openings[0].lane;
    bench.end(lane);
    assert_eq!((bench.starts(), bench.census()), (vec![40, 20], (1, 5, 0)));
    bench.board.leave(oldest.ticket, oldest.position);
    assert_eq!(bench.census(), (1, 4, 0));
}

#[test]
fn a_lane_that_has_passed_a_stream_does_not_take_it() {
    let mut bench = Bench::new(2);
    let mut first = bench.ask(40);
    assert_eq!(bench.feed(0, &mut pending(41..46)), Fed::All);
    assert_eq!(bench.take(&mut first).unwrap(), [41, 42, 43]);
    // The lane's ring still holds what follows 40 and 42.
    let mut second = bench.ask(42);
    assert_eq!(bench.take(&mut second).unwrap(), [43, 44, 45]);
    while let Ok(true) = bench.take(&mut first).map(|times| !times.is_empty()) {}
    assert_eq!(bench.feed(0, &mut pending(46..60)), Fed::Full);
    assert_eq!(bench.starts(), [40]);
    bench.ask(41);
    assert_eq!(bench.starts(), [40, 41]);
}

#[test]
fn a_full_lane_waits_for_its_slowest_but_not_for_ever() {
    let mut bench = Bench::new(1);
    let (mut slow, mut quick) = (bench.ask(0), bench.ask(0));
    let lane = bench.openings[0].lane;
    let mut rest = pending(1..31);
    assert_eq!(bench.feed(0, &mut rest), Fed::Full);
    // Both have something to take: nobody is held up.
    assert_eq!(bench.board.patience(lane), None);
    assert_eq!(bench.take(&mut slow).unwrap(), [1, 2, 3]);
    let mut taken = Vec::new();
    while taken.last() != Some(&10) {
        taken.extend(bench.take(&mut quick).unwrap());
    }
    assert_eq!(bench.board.patience(lane), Some(GRACE));
    assert_eq!(bench.feed(0, &mut rest), Fed::Full);
    taken.extend(bench.take(&mut quick).unwrap());
    // What is left of the patience stays so, though the lane has moved on by a bit.
    bench.board.stood(lane, GRACE / 2);
    assert_eq!(bench.board.patience(lane), Some(GRACE / 2));
    bench.board.stood(lane, GRACE / 2);
    assert!(matches!(bench.take(&mut slow), Err(Taken::LeftBehind)));
    assert_eq!(bench.feed(0, &mut rest), Fed::Full);
    while let Ok(times) = bench.take(&mut quick)
        && !times.is_empty()
    {
        taken.extend(times);
        bench.feed(0, &mut rest);
    }
    assert_eq!(taken, (1..31).collect::<Vec<_>>());
}

#[test]
fn who_waits_for_a_slot_makes_slow_ones_give_way() {
    let mut bench = Bench::new(1);
    let mut slow = bench.ask(50);
    let lane = bench.openings[0].lane;
    let mut rest = pending(51..90);
    assert_eq!(bench.feed(0, &mut rest), Fed::Full);
    assert_eq!(bench.board.patience(lane), None);
    bench.ask(10);
    assert_eq!(bench.board.patience(lane), Some(GRACE));
    bench.board.stood(lane, GRACE);
    assert_eq!(bench.feed(0, &mut rest), Fed::Nobody);
    // Until its reader is closed, the lane has its slot, and takes nobody.
    assert!(matches!(bench.take(&mut slow), Err(Taken::LeftBehind)));
    bench.ask(50);
    assert_eq!((bench.starts(), bench.census()), (vec![50], (1, 0, 2)));
    bench.end(lane);
    assert_eq!((bench.starts(), bench.census()), (vec![50, 10], (1, 2, 0)));
}

#[test]
fn a_change_larger_than_a_lane_passes() {
    let mut bench = Bench::new(1);
    bench.board.lane_bytes = WEIGHT / 2;
    let mut stream = bench.ask(0);
    let mut rest = pending(1..4);
    for time in 1..4 {
        assert_eq!(bench.feed(0, &mut rest) == Fed::All, time == 3);
        assert_eq!(bench.take(&mut stream).unwrap(), [time]);
    }
}

#[test]
fn changes_of_one_place_stay_together() {
    let mut bench = Bench::new(1);
    bench.board.lane_bytes = WEIGHT;
    let mut stream = bench.ask(0);
    let changes = [1, 2, 2, 2, 3].map(change).to_vec();
    let mut rest = Pending::new(ChangeBatch::new(changes, at(3), true));
    let mut taken = Vec::new();
    while bench.feed(0, &mut rest) != Fed::All || taken.last() != Some(&3) {
        taken.extend(bench.take(&mut stream).unwrap());
    }
    assert_eq!(taken, [1, 2, 2, 2, 3]);
}

#[test]
fn a_lost_position_is_that_of_no_other() {
    let mut bench = Bench::new(1);
    let mut streams = [10, 10, 11, 50].map(|time| bench.ask(time));
    let lane = bench.openings[0].lane;
    let lost = StoreError::PositionLost("why".into());
    bench.board.lose(lane, at(10), &lost);
    assert_eq!(bench.census(), (1, 0, 2));
    bench.end(lane);
    assert_eq!((bench.starts(), bench.census()), (vec![10, 11], (1, 2, 0)));
    let told: Vec<bool> = streams
        .iter_mut()
        .map(|stream| matches!(bench.take(stream), Err(Taken::Lost(StoreError::PositionLost(_)))))
        .collect();
    assert_eq!(told, [true, true, false, false]);
}

#[test]
fn a_reader_that_broke_leaves_its_streams_to_another() {
    let mut bench = Bench::new(1);
    let mut stream = bench.ask(10);
    bench.feed(0, &mut pending(11..13));
    assert_eq!(bench.take(&mut stream).unwrap(), [11, 12]);
    let lane = bench.openings[0].lane;
    bench.end(lane);
    assert_eq!((bench.starts(), bench.census()), (vec![10, 12], (1, 1, 0)));
}

proptest! {
    /// Streams that take as chance has it, some of them late: each gets all that follows its
    /// position, once and in order, until it is home.
    #[test]
    fn all_come_home(
        slots in 1usize..4,
        starts in prop::collection::vec(0u64..100, 1..20),
        chances in prop::collection::vec(0usize..1000, 4000),
    ) {
        let mut bench = Bench::new(slots);
        let mut streams: Vec<_> = starts.iter().map(|time| bench.ask(*time)).collect();
        let mut read: Vec<(u64, Option<Pending>)> = Vec::new();
        let mut ended = 0;
        for (turn, chance) in chances.into_iter().enumerate() {
            prop_assert!(bench.openings.len() - ended <= slots);
            for opening in &bench.openings[read.len()..] {
                read.push((opening.start.time, None));
            }
            // A lane's reader has its turn, then a stream; every third stream is late.
            let lane = chance % read.len().max(1);
            if let Some((time, rest)) = read.get_mut(lane).filter(|(time, _)| *time < u64::MAX) {
                let batch = rest.get_or_insert_with(|| pending(*time + 1..*time + 4));
                match bench.feed(lane, batch) {
                    Fed::All => (*time, *rest) = (*time + 3, None),
                    Fed::Full => {
                        let lane = bench.openings[lane].lane;
                        if bench.board.patience(lane).is_some() {
                            bench.board.stood(lane, GRACE / 4);
                        }
                    }
                    Fed::Nobody => {
                        *time = u64::MAX;
                        ended += 1;
                        let lane = bench.openings[lane].lane;
                        bench.end(lane);
                    }
                }
            }
            let at_turn = chance / 7 % streams.len().max(1);
            let Some(stream) = streams.get_mut(at_turn) else { break };
            if stream.position >= HOME {
                bench.board.leave(stream.ticket, stream.position);
                streams.swap_remove(at_turn);
            } else if at_turn % 3 > 0 || turn > 1000 {
                let next = stream.position.time + 1;
                match bench.take(stream) {
                    Ok(times) => {
                        let expected: Vec<_> = (next..).take(times.len()).collect();
                        prop_assert_eq!(times, expected);
                        prop_assert!(stream.position.time + 1 >= next);
                    }
                    Err(Taken::LeftBehind) => *stream = bench.ask(next - 1),
                    Err(Taken::Nothing) => {}
                    Err(other) => prop_assert!(false, "{other:?}"),
                }
            }
        }
        prop_assert!(streams.is_empty(), "{streams:?}");
    }
}

/// A notification that was given is there to be heard.
#[tokio::test]
async fn a_stream_is_woken_by_what_it_waits_for() {
    let mut bench = Bench::new(1);
    let (mut near, mut far) = (bench.ask(10), bench.ask(13));
    for stream in [&mut near, &mut far] {
        stream.wake.notified().await;
        assert!(bench.take(stream).unwrap().is_empty());
    }
    bench.feed(0, &mut pending(11..13));
    near.wake.notified().await;
    assert_eq!(bench.take(&mut near).unwrap(), [11, 12]);
    bench.feed(0, &mut pending(13..15));
    far.wake.notified().await;
    assert_eq!(bench.take(&mut far).unwrap(), [14]);
}
