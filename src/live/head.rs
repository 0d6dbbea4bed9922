//! The end of the log, for thousands who ask at once: after a restart each stream wants to know.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Mutex;

use crate::{position::LogPosition, store::StoreError};

type Answer = Result<LogPosition, StoreError>;

/// One question at a time. Its answer is for all who were there before it went out; who comes
/// later has the next one: what was written before somebody came lies before the end that they
/// are told.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// How many questions went out.
    asked: AtomicU64,
    /// The last answer, and to which of them.
    last: Mutex<Option<(u64, Answer)>>,
}

impl Head {
    /// The answer of the store to a question that went out after the call, ours or another's.
    pub(super) async fn ask(&self, question: impl Future<Output = Answer>) -> Answer {
        let before = self.asked.load(SeqCst);
        let mut last = self.last.lock().await;
        if let Some((number, answer)) = &*last
            && *number > before
        {
            return answer.clone();
        }
        let number = self.asked.fetch_add(1, SeqCst) + 1;
        let answer = question.await;
        // That the store is away is so for all; what else went wrong is its asker's alone.
        let shared = matches!(answer, Ok(_) | Err(StoreError::Unavailable(_)));
        *last = shared.then(|| (number, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};
    use tokio::sync::oneshot;

    use super::*;

    fn answer(time: u64) -> Answer {
        Ok(LogPosition::before(time))
    }

    /// Asks a store that must not be asked.
    async fn ask_in_vain(head: &Head) -> Answer {
        head.ask(async { panic!("one question too many") }).await
    }

    #[tokio::test]
    async fn who_comes_while_a_question_is_out_has_the_next_one() {
        let head = Head::default();
        let (reply, replied) = oneshot::channel();
        let mut first = Box::pin(head.ask(async { replied.await.expect("a reply") }));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(head.ask(async { answer(2) }));
        assert!(second.as_mut().now_or_never().is_none());
        let mut more: Vec<_> = (0..1000).map(|_| Box::pin(ask_in_vain(&head))).collect();
        for waiting in &mut more {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        reply.send(answer(1)).expect("a listener");
        assert_eq!(first.await.expect("an end"), LogPosition::before(1));
        assert_eq!(second.await.expect("an end"), LogPosition::before(2));
        for end in join_all(more).await {
            assert_eq!(end.expect("an end"), LogPosition::before(2));
        }
        let third = head.ask(async { answer(3) }).await;
        assert_eq!(third.expect("an end"), LogPosition::before(3));
    }

    #[tokio::test]
    async fn a_defect_is_its_askers_alone() {
        let head = Head::default();
        let (reply, replied) = oneshot::channel();
        let mut first = Box::pin(head.ask(async { replied.await.expect("a reply") }));
        assert!(first.as_mut().now_or_never().is_none());
        let away = || async { Err(StoreError::Unavailable("away".into())) };
        let broken = || async { Err(StoreError::Failed("broken".into())) };
        let mut asked: [_; 4] = [
            Box::pin(head.ask(broken().boxed())),
            Box::pin(head.ask(away().boxed())),
            Box::pin(head.ask(async { panic!("one question too many") }.boxed())),
            Box::pin(head.ask(async { panic!("one question too many") }.boxed())),
        ];
        for waiting in &mut asked {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        reply.send(answer(1)).expect("a listener");
        first.await.expect("an end");
        let [broken, away, also_away, too] = asked;
        assert!(matches!(broken.await, Err(StoreError::Failed(_))));
        for away in [away, also_away, too] {
            assert!(matches!(away.await, Err(StoreError::Unavailable(_))));
        }
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_answer_along() {
        let head = Head::default();
        let mut first = Box::pin(head.ask(std::future::pending()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(head.ask(async { answer(2) }));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(second.await.expect("an end"), LogPosition::before(2));
    }
}
