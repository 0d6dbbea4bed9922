//! How work on the file runs: off the async threads, and a panic of redb ends with it.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use super::file::damaged;
use crate::store::StoreError;

/// Runs work on the file. redb panics where a page does not hold what it should: that ends here,
/// as the text of the panic, which is all that is said of it.
pub(super) fn unwinding<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    UNWINDS_HERE.with(|here| {
        hush();
        let outer = here.replace(true);
        let done = catch_unwind(AssertUnwindSafe(work));
        here.set(outer);
        done.map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => {
                panic.downcast_ref::<&str>().map_or_else(String::new, |s| (*s).to_owned())
            }
        })
    })
}

thread_local! {
    /// Whether this thread is within [`unwinding`].
    static UNWINDS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics that end in [`unwinding`] from being printed as defects of ours.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |defect| match UNWINDS_HERE.get() {
            true => tracing::debug!(%defect, "the embedded store's file holds what it should not"),
            false => usual(defect),
        }));
    });
}

/// Runs blocking work on the file away from the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(move || unwinding(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(panic)) => Err(damaged(panic)),
        Err(_) => Err(StoreError::Unavailable("the process ends".into())),
    }
}

/// What a panic in the middle of work on the file means.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    unwinding(work).unwrap_or_else(|panic| Err(damaged(panic)))
}
