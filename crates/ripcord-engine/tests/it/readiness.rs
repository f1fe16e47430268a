//! Can we go back? (B1)

use ripcord_core::*;
use ripcord_engine::{Artefact, readiness};

use crate::stage::{Stage, bad_code, parked, seconds};
use crate::universe::name;

#[tokio::test(start_paused = true)]
async fn b1_says_to_what_from_where_and_at_what_price() {
    let stage = Stage::new(|_| {}).await;
    let ready = readiness(&stage.world).await.unwrap();
    assert!(ready.is_ready(), "{:?}", ready.blockers);
    assert_eq!(ready.target.as_ref().unwrap().version, "good");
    let code = ready.places.iter().find(|place| place.place.component == name("code")).unwrap();
    assert!(matches!(code.artefact, Artefact::Here { .. }));
    let web = ready.places.iter().find(|place| place.place.component == name("web")).unwrap();
    assert_eq!(web.artefact, Artefact::NotPart);
    let levels: Vec<(u8, bool)> = ready
        .levels
        .iter()
        .map(|level| (level.rung.level, level.plan.as_ref().unwrap().as_ref().unwrap().gives_up))
        .collect();
    assert_eq!(levels, [(1, false), (2, false)]);
    assert_eq!(stage.events().await.len(), 2, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn b1_names_what_is_gone_what_is_spoiled_and_what_cannot_be_seen() {
    let stage = Stage::new(|_| {}).await;
    stage.universe.with(|truth| {
        truth.gone.insert(Revision::exact("good").short());
    });
    let ready = readiness(&stage.world).await.unwrap();
    assert!(!ready.is_ready());
    assert!(ready.blockers.iter().any(|why| why.contains("somebody deleted it")), "{:?}", ready.blockers);
    assert!(ready.blockers.iter().any(|why| why.contains("level 2")), "{:?}", ready.blockers);
}

#[tokio::test(start_paused = true)]
async fn b1_a_spoiled_capture_is_no_way_back() {
    let stage = Stage::new(|_| {}).await;
    // Where the present was captured, and that capture is the way back of what follows.
    stage.taken(Ask::Record { version: "v3".into() }).await;
    stage.taken(Ask::Mark { release: "v3".into(), good: true, why: "it is fine".into() }).await;
    let code = Place::local(name("code"));
    stage.universe.with(|truth| truth.real.get_mut(&code).unwrap().revision = "v4".into());
    stage.taken(Ask::Record { version: "v4".into() }).await;
    let ready = readiness(&stage.world).await.unwrap();
    assert_eq!(ready.target.as_ref().unwrap().version, "v3");
    assert!(ready.is_ready(), "{:?}", ready.blockers);
    let ledger = stage.ledger().await;
    let v3 = ledger.typed("v3").unwrap();
    let capture = v3.map[&code].capture.clone().unwrap();
    stage.taken(Ask::Spoiled { capture: capture.clone(), why: "its bytes differ".into() }).await;
    let ready = readiness(&stage.world).await.unwrap();
    assert!(!ready.is_ready());
    let found = ready.places.into_iter().find(|place| place.place == code).unwrap();
    assert_eq!(found.artefact, Artefact::Spoiled { capture, why: "its bytes differ".into() });
}

#[tokio::test(start_paused = true)]
async fn b1_without_a_good_release_or_with_a_run_in_the_way_the_answer_is_no() {
    let mut stage = Stage::empty(|_| {}).await;
    let ready = readiness(&stage.world).await.unwrap();
    assert!(ready.target.is_none() && !ready.is_ready() && ready.levels.is_empty());
    stage.open().await;
    crate::sim::history(&stage.desk(), &stage.made, &stage.universe).await.unwrap();
    stage.universe.with(|truth| truth.refuses.insert("restore/code".into()));
    stage.errors.says(bad_code);
    let run = stage.until(parked).await;
    seconds(1).await;
    let ready = readiness(&stage.world).await.unwrap();
    assert!(ready.blockers.iter().any(|why| why.contains(&run.id.to_string())), "{:?}", ready.blockers);
}
