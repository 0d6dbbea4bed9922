//! One suite, every store: what [`fhirtail::store`] promises, checked against real stores.
//!
//! A store is plugged in by one function that makes it (see [`support::StoreUnderTest`]) and one
//! line at the end of this file. Each check is a function in one of the modules below, gets a
//! store of its own, and is a test of its own for each store.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    reason = "the modules of one test program; a test that meets the unexpected fails"
)]

#[path = "conformance/changes.rs"]
mod changes;
#[path = "conformance/embedded.rs"]
mod embedded_store;
#[path = "conformance/handoff.rs"]
mod handoff;
#[path = "conformance/mongo.rs"]
mod mongo_store;
#[path = "conformance/scan.rs"]
mod scan;
#[path = "conformance/support.rs"]
mod support;
#[path = "conformance/writes.rs"]
mod writes;

macro_rules! conformance {
    ($store:ident made by $make:path) => {
        mod $store {
            conformance! { @tests $make;
                Plain writes {
                    versions_count_up_through_deletion,
                    a_deletion_of_nothing_is_no_change,
                    the_same_content_is_no_new_version,
                    conflicts_tell_what_they_found,
                    a_refused_commit_leaves_nothing,
                    outcomes_stand_in_the_order_of_the_writes,
                    what_was_sent_comes_back_to_the_letter,
                    no_update_is_lost_between_conditional_writers,
                }
                Plain scan {
                    an_empty_type_ends_at_once,
                    every_key_once_and_in_order,
                    every_order_goes_on_at_any_key,
                    large_resources_come_whole,
                    types_do_not_bleed_into_each_other,
                    a_scan_goes_on_after_any_key,
                    windows_leave_out_both_ends,
                    a_scan_in_vain_tells_how_far_it_came,
                    writes_after_a_snapshot_are_not_in_it,
                }
                ShortSnapshots scan { an_expired_snapshot_says_so }
                Plain changes {
                    each_write_is_one_change,
                    any_position_gives_exactly_the_rest,
                    level_with_the_head_is_all_that_was_committed,
                    quiet_is_the_end_and_nothing_else,
                    an_idle_reader_returns_and_wakes,
                    two_readers_see_one_log,
                    a_position_in_the_future_is_lost,
                    recent_is_honoured_and_reaches_back,
                    recent_is_never_past_the_end,
                    the_oldest_is_no_younger_than_a_change_that_is_held,
                    a_restart_keeps_epoch_positions_and_versions,
                }
                SmallLog changes { a_trimmed_position_is_lost }
                Plain handoff {
                    snapshot_and_changes_make_the_final_state,
                    a_scan_cut_at_any_key_goes_on_in_a_new_snapshot,
                }
            }
        }
    };
    (@tests $make:path; $($setup:ident $module:ident { $($check:ident),+ $(,)? })+) => {$($(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let setup = crate::support::Setup::$setup;
            crate::support::run($make(setup), |store| Box::pin(crate::$module::$check(store))).await;
        }
    )+)+};
}

conformance!(embedded made by crate::embedded_store::make);
conformance!(mongo made by crate::mongo_store::make);
