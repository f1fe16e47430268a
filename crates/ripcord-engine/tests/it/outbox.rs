//! Telling people: the next channel where one fails, again later where all do, and never in the way of a run.

use std::sync::Arc;

use ripcord_core::*;

use crate::stage::{Mood, Pager, Stage, bad_code, rung, seconds};

/// A shop that tells through two channels, the first of which is in a mood.
async fn two_channels(mood: Mood) -> (Stage, Arc<Pager>) {
    let mut stage = Stage::empty(|app| {
        app.strategies.insert("standard".parse().unwrap(), vec![rung(2, Climb::Ask)]);
        app.notify[0].channels = vec!["first".parse().unwrap(), "pager".parse().unwrap()];
    })
    .await;
    let first = Pager::new();
    *first.mood.lock().unwrap() = mood;
    stage.world.parts.channels.insert("first".parse().unwrap(), first.clone());
    stage.open().await;
    crate::sim::history(&stage.desk(), &stage.made, &stage.universe).await.unwrap();
    stage.errors.says(bad_code);
    (stage, first)
}

fn told(events: &[Event]) -> (usize, usize) {
    let count = |wanted: bool| {
        let told =
            events.iter().filter(|event| matches!(event.body, Body::Told { delivered, .. } if delivered == wanted));
        told.count()
    };
    (count(true), count(false))
}

#[tokio::test(start_paused = true)]
async fn n2_a_channel_that_refuses_or_hangs_falls_over_to_the_next_and_holds_no_run_up() {
    for mood in [Mood::Refuses, Mood::Hangs] {
        let (stage, _) = two_channels(mood).await;
        let began = tokio::time::Instant::now();
        stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
        assert!(began.elapsed().as_secs() < 90, "a run waits for nobody to be told");
        seconds(120).await;
        for about in [About::Incident, About::Started, About::Succeeded] {
            assert_eq!(stage.pager.about(about).len(), 1, "{about:?} while the first channel {mood:?}");
        }
        let (delivered, failed) = told(&stage.events().await);
        assert!(delivered >= 3 && failed >= 3, "both are on the record: {delivered}, {failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn n2_where_every_channel_fails_it_is_tried_again_later_also_by_the_next_process() {
    let (mut stage, first) = two_channels(Mood::Refuses).await;
    *stage.pager.mood.lock().unwrap() = Mood::Refuses;
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    stage.restart().await;
    seconds(30).await;
    *first.mood.lock().unwrap() = Mood::Takes;
    seconds(600).await;
    let got: usize = [&first, &stage.pager].iter().map(|pager| pager.about(About::Succeeded).len()).sum();
    assert_eq!(got, 1, "once, although it took many tries");
    assert!(stage.store.outbox(stage.world.app(), stage.world.clock.now()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_channel_can_ever_take_is_given_up_on_the_record() {
    let stage = Stage::new(|app| app.notify[0].channels = vec!["gone".parse().unwrap()]).await;
    stage.errors.says(bad_code);
    stage.until(|state| *state == RunState::Ended(End::Succeeded)).await;
    seconds(10).await;
    let (delivered, failed) = told(&stage.events().await);
    assert!(delivered == 0 && failed > 0);
    assert!(stage.store.outbox(stage.world.app(), stage.world.clock.now()).await.unwrap().is_empty());
}
