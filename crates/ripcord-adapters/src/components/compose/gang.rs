//! Several who want the same done at the same time: one does it for all of them.
//!
//! A process of Compose costs more than what it does for one service, and several at once are in each other's way. So there is one
//! at a time for a project; whoever comes while it works waits, and the next one works for all who wait. Who is on the way is waited
//! for, as long as one after the other comes, so that those who began together are served together.
//!
//! Nobody is served who does not wait any more. Whoever does the work and is called off leaves the others without an answer, which
//! each of them is told: what became of the work is then for each to see.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// How long the next of those who are on the way is waited for: what they do until they are here takes less, unless something keeps
/// them. A process of the older Compose takes as long.
const PATIENCE: Duration = Duration::from_millis(600);
/// How long those are waited for altogether.
const LONGEST: Duration = Duration::from_secs(3);
/// How long nobody has to be on the way: who follows the last one has not begun yet when that one is here.
const QUIET: Duration = Duration::from_millis(60);

/// Those who want the same: `A` is asked for, and all who asked together are given one `B`.
#[derive(Debug)]
pub(super) struct Gang<A, B> {
    state: Mutex<State<A, B>>,
    /// Held by who does the work.
    turn: tokio::sync::Mutex<()>,
    fewer: Notify,
}

#[derive(Debug)]
struct State<A, B> {
    coming: usize,
    number: u64,
    waiting: Vec<Waiting<A, B>>,
}

#[derive(Debug)]
struct Waiting<A, B> {
    number: u64,
    asks: A,
    told: oneshot::Sender<Told<B>>,
}

/// What came of it, and for how many together.
#[derive(Debug)]
pub(super) struct Told<B> {
    pub(super) came: Arc<B>,
    pub(super) together: usize,
}

impl<A, B> Default for Gang<A, B> {
    fn default() -> Self {
        let state = State { coming: 0, number: 0, waiting: vec![] };
        Self { state: Mutex::new(state), turn: tokio::sync::Mutex::default(), fewer: Notify::new() }
    }
}

/// Somebody who is on the way, until this is dropped.
#[derive(Debug)]
pub(super) struct Coming<A, B>(Arc<Gang<A, B>>);

impl<A, B> Drop for Coming<A, B> {
    fn drop(&mut self) {
        self.0.state().coming -= 1;
        self.0.fewer.notify_one();
    }
}

impl<A, B> Gang<A, B> {
    fn state(&self) -> MutexGuard<'_, State<A, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn coming(self: &Arc<Self>) -> Coming<A, B> {
        self.state().coming += 1;
        Coming(Arc::clone(self))
    }

    /// Waits until nobody is on the way any more, or those who are do not come.
    async fn all_here(&self) {
        let here = async {
            loop {
                let (patience, some) = if self.state().coming > 0 { (PATIENCE, true) } else { (QUIET, false) };
                let fewer = timeout(patience, self.fewer.notified()).await;
                if fewer.is_err() && (some || self.state().coming == 0) {
                    return;
                }
            }
        };
        let _ = timeout(LONGEST, here).await;
    }

    /// Takes out the one of `number`, and those who wait and fit to all that are taken already.
    fn take(&self, number: u64, fits: impl Fn(&[A], &A) -> bool) -> (Vec<A>, Vec<oneshot::Sender<Told<B>>>) {
        let mut state = self.state();
        let (mine, others) = std::mem::take(&mut state.waiting).into_iter().partition(|one| one.number == number);
        let (mut asked, mut told): (Vec<A>, Vec<_>) = (vec![], vec![]);
        for one in Vec::into_iter(mine).chain(Vec::into_iter(others)) {
            if one.number == number {
                asked.push(one.asks);
            } else if one.told.is_closed() {
                // Nobody waits for it any more.
            } else if fits(&asked, &one.asks) {
                asked.push(one.asks);
                told.push(one.told);
            } else {
                state.waiting.push(one);
            }
        }
        (asked, told)
    }
}

impl<A, B> Coming<A, B> {
    /// Has it done, with all who wait and whom `fits` lets join: by `work`, or by who has its turn before. None where who did it was
    /// called off.
    pub(super) async fn done<F>(
        self,
        asks: A,
        fits: impl Fn(&[A], &A) -> bool,
        work: impl FnOnce(Vec<A>) -> F,
    ) -> Option<Told<B>>
    where
        F: Future<Output = B>,
    {
        let gang = Arc::clone(&self.0);
        let (told, mut answer) = oneshot::channel();
        let number = {
            let mut state = gang.state();
            state.number += 1;
            let number = state.number;
            state.waiting.push(Waiting { number, asks, told });
            number
        };
        drop(self);
        let turn = tokio::select! {
            biased;
            answer = &mut answer => return answer.ok(),
            turn = gang.turn.lock() => turn,
        };
        match answer.try_recv() {
            Ok(told) => return Some(told),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        gang.all_here().await;
        let (asked, others) = gang.take(number, fits);
        let together = asked.len();
        let came = Arc::new(work(asked).await);
        for other in others {
            // Who does not wait any more is not told.
            let _ = other.send(Told { came: Arc::clone(&came), together });
        }
        drop(turn);
        Some(Told { came, together })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words = Gang<&'static str, String>;

    fn all(_: &[&'static str], _: &&'static str) -> bool {
        true
    }

    async fn joined(words: Vec<&'static str>) -> String {
        words.join(" ")
    }

    /// Asks, and says what came of it.
    async fn asked(coming: Coming<&'static str, String>, word: &'static str) -> Option<(String, usize)> {
        coming.done(word, all, joined).await.map(|told| (told.came.to_string(), told.together))
    }

    #[tokio::test]
    async fn who_began_together_is_served_together() {
        let gang: Arc<Words> = Arc::default();
        let (a, b, gone) = (gang.coming(), gang.coming(), gang.coming());
        let late = async {
            tokio::task::yield_now().await;
            drop(gone); // It found that there was nothing to do.
            asked(b, "b").await
        };
        let (a, b) = tokio::join!(asked(a, "a"), late);
        assert_eq!((a, b), (Some(("a b".to_owned(), 2)), Some(("a b".to_owned(), 2))));
        assert_eq!(asked(gang.coming(), "c").await, Some(("c".to_owned(), 1)), "what was done is not done again");
    }

    #[tokio::test]
    async fn who_does_not_come_is_not_waited_for_long() {
        let gang: Arc<Words> = Arc::default();
        let kept = gang.coming();
        assert_eq!(asked(gang.coming(), "a").await, Some(("a".to_owned(), 1)));
        assert_eq!(asked(kept, "b").await, Some(("b".to_owned(), 1)));
    }

    #[tokio::test]
    async fn who_comes_one_after_the_other_is_served_together() {
        let gang: Arc<Words> = Arc::default();
        // Each is on the way when the one before is here.
        let (first, second) = (gang.coming(), gang.coming());
        let (on_the_way, third) = oneshot::channel();
        let b = async {
            tokio::task::yield_now().await;
            on_the_way.send(gang.coming()).unwrap();
            asked(second, "b").await
        };
        let c = async { asked(third.await.unwrap(), "c").await };
        let (a, b, c) = tokio::join!(asked(first, "a"), b, c);
        assert_eq!([a, b, c].map(Option::unwrap), [(); 3].map(|()| ("a b c".to_owned(), 3)));
    }

    #[tokio::test]
    async fn who_does_not_fit_is_served_next() {
        let gang: Arc<Words> = Arc::default();
        let fits = |taken: &[&'static str], one: &&'static str| taken.iter().all(|other| other.len() == one.len());
        let ask = |word: &'static str| {
            let coming = gang.coming();
            async move { coming.done(word, fits, joined).await.map(|told| told.came.to_string()) }
        };
        let said = tokio::join!(ask("a"), ask("bb"), ask("c"), ask("dd"));
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(said, (is("a c"), is("bb dd"), is("a c"), is("bb dd")));
    }

    #[tokio::test]
    async fn nobody_is_served_who_does_not_wait_and_nobody_waits_for_who_was_called_off() {
        let gang: Arc<Words> = Arc::default();
        let (working, begun) = oneshot::channel();
        let first = tokio::spawn({
            let coming = gang.coming();
            coming.done("first", all, |_| async {
                let _ = working.send(());
                std::future::pending::<String>().await
            })
        });
        begun.await.unwrap();
        // This one waits, and gives up.
        let given_up = tokio::spawn(gang.coming().done("given up", all, joined));
        let second = tokio::spawn(asked(gang.coming(), "second"));
        while gang.state().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        first.abort();
        assert_eq!(second.await.unwrap(), Some(("second".to_owned(), 1)));
    }

    #[tokio::test]
    async fn who_was_served_by_somebody_called_off_is_told_nothing() {
        let gang: Arc<Words> = Arc::default();
        let (a, b) = (gang.coming(), gang.coming());
        let (working, begun) = oneshot::channel();
        let leader = tokio::spawn(a.done("a", all, |words| async move {
            assert_eq!(words, ["a", "b"]);
            let _ = working.send(());
            std::future::pending::<String>().await
        }));
        let other = tokio::spawn(asked(b, "b"));
        begun.await.unwrap();
        leader.abort();
        assert_eq!(other.await.unwrap(), None);
    }
}
