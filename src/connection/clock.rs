//! The clock by which HTTP/2's PINGs go out, and are waited for.
//!
//! A PING lies behind what is on its way already. To who takes that slowly it comes late, and so does
//! the answer; whether such a client takes enough is the guard's to say. So the clock stands while
//! there is more to write than there is room for, and begins anew after that.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::time;

use super::guard::Traffic;

/// That of the connection whose traffic this is.
#[derive(Clone)]
pub(super) struct Clock(pub(super) Arc<Traffic>);

impl Timer for Clock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let (sleep, traffic) = (Box::pin(time::sleep(duration)), Arc::clone(&self.0));
        Box::pin(Quiet { sleep, duration, traffic })
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }
}

/// Ends after so much time in which there was room for all.
struct Quiet {
    sleep: Pin<Box<time::Sleep>>,
    duration: Duration,
    traffic: Arc<Traffic>,
}

impl Sleep for Quiet {}

impl Future for Quiet {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let behind_at = self.traffic.behind_at();
            let due = behind_at.and_then(|at| at.checked_add(self.duration));
            match due.filter(|due| *due > time::Instant::now()) {
                Some(due) => self.sleep.as_mut().reset(due),
                None => return Poll::Ready(()),
            }
        }
    }
}
