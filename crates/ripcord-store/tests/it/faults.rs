//! The faults that can be ordered of the store in memory.

use std::time::Duration;

use ripcord_core::*;
use ripcord_store::{Fault, MemoryStore};

use crate::sample::*;

fn faulty(nth: u64, fault: Fault) -> MemoryStore {
    MemoryStore::new().with_faults(move |n| if n == nth { fault } else { Fault::None })
}

async fn lease(store: &MemoryStore) -> Lease {
    store.acquire(&LeaseOn::App(app()), &holder("a"), TTL).await.unwrap()
}

#[tokio::test]
async fn an_append_fails_and_works_the_next_time() {
    let store = faulty(1, Fault::FailBefore);
    let lease = lease(&store).await;
    let one = batch([note("one")]);
    assert!(matches!(store.append(&lease, Seq(0), &one).await, Err(AppendError::Down(_))));
    assert_eq!(store.head(&app()).await.unwrap().0, Seq(0));
    assert_eq!(store.append(&lease, Seq(0), &one).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_in_doubt_and_repeating_settles_it() {
    let store = faulty(1, Fault::CommitThenLoseReply);
    let lease = lease(&store).await;
    let one = batch([note("one")]);
    assert!(matches!(store.append(&lease, Seq(0), &one).await, Err(AppendError::InDoubt { .. })));
    let events = store.append(&lease, Seq(0), &one).await.unwrap();
    assert_eq!(events, store.read(&app(), Seq(0), 9).await.unwrap());
}

#[tokio::test]
async fn a_killed_process_does_nothing_more_and_the_next_finds_what_was_committed() {
    for (fault, head) in [(Fault::CrashBefore, Seq(1)), (Fault::CrashAfter, Seq(2))] {
        let store = faulty(2, fault);
        let lease = lease(&store).await;
        store.append(&lease, Seq(0), &batch([note("one")])).await.unwrap();
        let two = batch([note("two")]);
        tokio::select! {
            biased;
            result = store.append(&lease, Seq(1), &two) => panic!("a killed process got an answer: {result:?}"),
            () = store.killed() => {}
        }
        let same_process = store.clone();
        assert!(tokio::time::timeout(Duration::from_millis(1), same_process.head(&app())).await.is_err());
        let next = store.restart();
        assert_eq!(next.head(&app()).await.unwrap().0, head);
        assert_eq!(next.append(&lease, Seq(1), &two).await.unwrap().len(), 1);
    }
}
