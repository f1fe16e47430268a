//! The histories that the documents are written from.

use std::collections::BTreeMap;

use ripcord_core::{
    Action, Actor, Answer, Body, CaptureId, CaptureRef, Check, CheckId, Climb, Consent, Destroys, End, Failure, Loss,
    Means, ParkedWhy, Phase, Proof, ProofLevel, Revision, RowLoss, Rung, Seq, Step, StepId, Verb,
};

use crate::history::{History, at, check, left, person, place, plan, rung, step};

fn restore(id: &str, words: &str, command: &[&str]) -> Step {
    let mut step = step(id, Phase::Restore, Action::Restore { to: Revision::exact("3f2a9c0d1e2f"), from: None }, words);
    step.shown.commands = vec![command.iter().map(|word| (*word).to_owned()).collect()];
    step
}

fn after(mut step: Step, needs: &[&str]) -> Step {
    step.needs = needs.iter().map(|id| StepId((*id).to_owned())).collect();
    step
}

/// Level 1: a flag, set and found to make no difference.
fn toggles() -> Rung {
    let values = BTreeMap::from([("/checkout/new".to_owned(), serde_json::Value::Bool(false))]);
    let means = Means::Set { values: BTreeMap::from([("flags".parse().unwrap(), values)]) };
    Rung { means, climb: Climb::Automatic, ..rung(1, "toggle", &[]) }
}

fn code() -> Rung {
    rung(2, "code", &["code", "web"])
}

fn code_steps() -> Vec<Step> {
    vec![
        step(
            "prove/code",
            Phase::Preflight,
            Action::Prove { revision: Revision::exact("3f2a9c0d1e2f"), capture: None },
            "see that 3f2a9c0d1e2f is there",
        ),
        after(step("stop/web", Phase::Quiesce, Action::Stop, "stop web"), &["prove/code"]),
        after(
            restore("restore/code", "check out v1.0.0", &["git", "checkout", "--detach", "3f2a9c0d1e2f"]),
            &["stop/web"],
        ),
        after(step("start/web", Phase::Start, Action::Start, "start web"), &["restore/code"]),
        after(check("check/health", Phase::VerifyClosed), &["start/web"]),
    ]
}

fn passes(found: &str) -> Check {
    Check::Pass { found: found.to_owned() }
}

/// A flag is switched back and does not help; the code goes back and does.
pub fn level_two_after_level_one() -> History {
    let mut story = History::new();
    story.breach(0);
    story.open(10_500, "errors-high breached");
    story.decide(10_600, true, vec![toggles(), code()]);

    let set = Action::Set { values: BTreeMap::from([("/checkout/new".to_owned(), serde_json::Value::Bool(false))]) };
    let mut one = plan(toggles(), vec![step("set/flags", Phase::Restore, set, "set /checkout/new of flags")]);
    (one.to, one.to_version) = (None, None);
    story.propose(11_000, Actor::Policy, true, one);
    story.of_run(11_100, Body::Started);
    story.did(11_200, 40, "set/flags", Proof::of("/checkout/new is false"));
    let still = Check::Fail { what: vec!["`errors-high` is 0.2400 (before the release: 0.0020)".to_owned()] };
    story.helped(26_000, still, 0.24, false);
    story.of_run(26_010, Body::Ended { end: End::Insufficient });

    let mut two = plan(code(), code_steps());
    two.left_alone = vec![left("orders-db", "is not in the scope of level 2"), left("site", "is at v1.0.0 already")];
    story.propose(26_500, Actor::Policy, true, two);
    story.of_run(26_600, Body::Started);
    story.told(26_700, "shop/production: run is running", None);
    story.verified(26_900, "prove/code", passes("commit 3f2a9c0d1e2f is in the repository"));
    story.did(27_000, 1_500, "stop/web", Proof::of("process 4711 is gone"));
    story.failed(28_600, 400, "restore/code", Failure::later("index.lock exists"));
    story.begin(29_400, "restore/code", 2);
    let proof = Proof { set_aside: vec!["/srv/shop-failed-20260301".to_owned()], ..Proof::of("at v1.0.0, tree clean") };
    story.ends(30_000, "restore/code", 2, ripcord_core::Outcome::Done(proof));
    story.did(30_100, 2_000, "start/web", Proof::of("process 4712 answers"));
    story.verified(32_500, "check/health", passes("status 200, version v1.0.0"));
    story.helped(41_000, passes("every breached signal is back to normal"), 0.0021, true);
    story.of_run(41_010, Body::Watching { until: at(341_000) });
    story.of_incident(341_000, Body::Closed { by: Actor::Policy, why: "the run succeeded".to_owned() });
    story.of_run(341_001, Body::Ended { end: End::Succeeded });
    story.told(341_100, "shop/production: run succeeded", Some("connection refused"));
    story
}

/// The checkout fails while the web server is down; nobody has come yet.
pub fn parked_with_web_down() -> History {
    let mut story = History::new();
    story.breach(0);
    story.open(10_500, "errors-high breached");
    story.decide(10_600, false, vec![code()]);
    story.propose(11_000, Actor::Policy, false, plan(code(), code_steps()));
    let digest = story.plan().digest();
    let (by, reason) = (person("ana"), Some("clear case".to_owned()));
    story.of_run(40_000, Body::Answered { plan: digest, by, answer: Answer::Approve, reason, consent: None });
    story.of_run(40_100, Body::Started);
    story.verified(40_200, "prove/code", passes("commit 3f2a9c0d1e2f is in the repository"));
    story.did(40_300, 1_000, "stop/web", Proof::of("process 4711 is gone"));
    let failure = Failure::never("the object store is damaged").advise("run `git fsck`");
    story.failed(41_400, 300, "restore/code", failure);
    let (step, what) = (StepId("restore/code".to_owned()), "the object store is damaged".to_owned());
    story.of_run(
        41_800,
        Body::Parked { why: ParkedWhy::Failed { step, what, advice: Some("run `git fsck`".to_owned()) } },
    );
    story.told(42_000, "shop/production: run is PARKED: it needs a person", None);
    story
}

/// The same, given up by a person with the web server still down.
pub fn abandoned_with_web_down() -> History {
    let mut story = parked_with_web_down();
    let reason = "taken over by hand".to_owned();
    story.of_run(90_000, Body::Person { by: person("ana"), verb: Verb::Abandon { reason } });
    let open = story.fold().open_obligations().map(|o| o.id.clone()).collect();
    story.of_run(90_001, Body::Ended { end: End::Abandoned { by: person("ana"), open } });
    story
}

/// Corrupted data: the database goes back to the capture before the release, and what was written since is kept beside.
pub fn data_restored_with_loss() -> History {
    let mut story = History::new();
    story.open(0, "orders have negative totals");
    let mut put_back = step(
        "restore/orders-db",
        Phase::Restore,
        Action::Restore {
            to: Revision::exact("sha256:aabbccddeeff"),
            from: Some(CaptureRef::Known(CaptureId::at(Seq(4)))),
        },
        "restore orders-db from cap-4",
    );
    put_back.destroys = Destroys::GivesUp;
    put_back.protected_by = Some(CaptureRef::MadeBy(StepId("capture/orders-db".to_owned())));
    let steps = vec![
        step("stop/web", Phase::Quiesce, Action::Stop, "stop web"),
        after(
            step(
                "capture/orders-db",
                Phase::Capture,
                Action::Capture { purpose: ripcord_core::CapturePurpose::Protective },
                "capture orders-db as it is",
            ),
            &["stop/web"],
        ),
        after(put_back, &["capture/orders-db"]),
        after(step("start/web", Phase::Start, Action::Start, "start web"), &["restore/orders-db"]),
        after(check("check/totals", Phase::VerifyClosed), &["start/web"]),
    ];
    let rows = |orders, customers| {
        BTreeMap::from([
            ("orders".to_owned(), RowLoss { inserted: orders, updated: 3, deleted: 0 }),
            ("customers".to_owned(), RowLoss { inserted: customers, ..RowLoss::default() }),
        ])
    };
    let how = Some("compared with the capture row by row".to_owned());
    let ceiling = Loss { rows: rows(20, 2), since: Some(at(-65_000)), other: vec![], how: how.clone() };
    let mut all = plan(rung(3, "full", &["orders-db", "web"]), steps);
    all.loss_at_most = ceiling.clone();
    story.propose(60_000, person("ana"), false, all);
    let plan = story.plan().digest();
    let consent = Some(Consent { plan, loss: ceiling, at: at(70_000) });
    let body = Body::Answered { plan, by: person("ben"), answer: Answer::Approve, reason: None, consent };
    story.of_run(70_000, body);
    story.of_run(70_100, Body::Started);
    story.did(70_200, 900, "stop/web", Proof::of("process 4711 is gone"));
    story.captured(71_200, 800, "capture/orders-db", 81_920, ProofLevel::ReadBack);
    let proof = Proof {
        set_aside: vec![
            "/srv/data/orders_before_run-11.db".to_owned(),
            "/srv/data/orders_salvage_run-11.db".to_owned(),
        ],
        lost: Some(Loss { rows: rows(18, 2), since: Some(at(-65_000)), other: vec![], how }),
        ..Proof::of("integrity ok, 412 rows in orders")
    };
    story.did(72_100, 1_900, "restore/orders-db", proof);
    story.did(74_100, 1_000, "start/web", Proof::of("process 4712 answers"));
    story.verified(75_300, "check/totals", passes("0 orders with a negative total"));
    let nothing = passes("no signal was breached, so there is none to compare");
    story.of_run(75_400, Body::Helped { verdict: nothing, compared: vec![] });
    story.of_run(75_500, Body::Watching { until: at(375_500) });
    story.of_run(375_500, Body::Ended { end: End::Succeeded });
    story.captures.push(ripcord_core::CaptureRow {
        id: CaptureId::at(Seq(4)),
        run: None,
        at: at(-65_000),
        ..story.captures[0].clone()
    });
    story
}

/// The same up to the capture, with a database whose former file is set aside.
pub fn data_set_aside() -> History {
    let whole = data_restored_with_loss();
    let mut plan = (*whole.plan()).clone();
    let put_back = plan.steps.iter_mut().find(|step| step.id.0 == "restore/orders-db").unwrap();
    put_back.destroys = Destroys::SetAside { keep: std::time::Duration::from_secs(86_400) };
    let ceiling = plan.loss_at_most.clone();
    let mut story = History::new();
    let recorded = ripcord_core::Recorded {
        revision: Revision::exact("sha256:aabbccddeeff"),
        label: None,
        capture: Some(CaptureId::at(Seq(4))),
        flowing: true,
    };
    story.ledger.releases[0].map.insert(place("orders-db"), recorded);
    story.open(0, "orders have negative totals");
    story.propose(60_000, person("ana"), false, plan);
    let plan = story.plan().digest();
    let consent = Some(Consent { plan, loss: ceiling, at: at(70_000) });
    let body = Body::Answered { plan, by: person("ben"), answer: Answer::Approve, reason: None, consent };
    story.of_run(70_000, body);
    story.of_run(70_100, Body::Started);
    story.did(70_200, 900, "stop/web", Proof::of("process 4711 is gone"));
    story.captured(71_200, 800, "capture/orders-db", 81_920, ProofLevel::ReadBack);
    story.captures.push(whole.captures[1].clone());
    story
}

/// The parked run, carried to its end by a person.
pub fn skipped_and_vouched_for() -> History {
    let mut story = parked_with_web_down();
    let (step, reason) = (StepId("restore/code".to_owned()), "mended by hand".to_owned());
    story.of_run(50_000, Body::Person { by: person("ana"), verb: Verb::Skip { step, reason } });
    story.did(50_100, 900, "start/web", Proof::of("process 4712 answers"));
    let (step, evidence) = (StepId("check/health".to_owned()), "I looked".to_owned());
    story.of_run(52_000, Body::Person { by: person("ana"), verb: Verb::Done { step, evidence } });
    story.helped(60_000, passes("every breached signal is back to normal"), 0.002, true);
    story.of_run(60_100, Body::Watching { until: at(360_100) });
    story.of_run(360_100, Body::Ended { end: End::Succeeded });
    story
}

pub fn declined() -> History {
    let mut story = History::new();
    story.breach(0);
    story.open(10_500, "errors-high breached");
    story.decide(10_600, false, vec![code()]);
    story.propose(11_000, Actor::Policy, false, plan(code(), code_steps()));
    let plan = story.plan().digest();
    let reason = Some("a partner is down, it is not the release".to_owned());
    let body = Body::Answered { plan, by: person("ana"), answer: Answer::Decline, reason, consent: None };
    story.of_run(50_000, body);
    story.of_run(50_001, Body::Ended { end: End::Declined });
    story
}

/// Everything that comes from outside tries to be something else.
pub fn hostile(text: &str) -> History {
    let mut story = History::new();
    story.breach(0);
    story.open(10_500, text);
    story.decide(10_600, false, vec![code()]);
    let mut steps = code_steps();
    steps[2].shown.words = text.to_owned();
    steps[2].shown.commands = vec![vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()]];
    steps[2].on_failure = ripcord_core::OnFailure::Continue { reason: text.to_owned() };
    steps[4].action = Action::Check { check: CheckId::new("health").unwrap() };
    let mut all = plan(code(), steps);
    (all.from_version, all.to_version) = (Some(text.to_owned()), Some(text.to_owned()));
    all.left_alone = vec![left("orders-db", text)];
    all.loss_at_most = Loss { other: vec![text.to_owned()], ..Loss::none() };
    for release in &mut story.ledger.releases {
        release.version = text.to_owned();
    }
    let by = ripcord_core::Actor::Person { user: text.to_owned(), host: text.to_owned() };
    story.propose(11_000, by.clone(), false, all);
    let digest = story.plan().digest();
    let loss = Loss {
        rows: BTreeMap::from([(text.to_owned(), RowLoss { inserted: 1, ..RowLoss::default() })]),
        how: Some(text.to_owned()),
        ..Loss::none()
    };
    let consent = Some(Consent { plan: digest, loss: loss.clone(), at: at(12_000) });
    let body = Body::Answered {
        plan: digest,
        by: by.clone(),
        answer: Answer::Approve,
        reason: Some(text.to_owned()),
        consent,
    };
    story.of_run(12_000, body);
    story.of_run(12_100, Body::Started);
    story.verified(12_200, "prove/code", Check::Pass { found: text.to_owned() });
    let proof =
        Proof { set_aside: vec![text.to_owned()], lost: Some(loss), output: Some(text.to_owned()), ..Proof::of(text) };
    story.did(12_300, 10, "stop/web", proof);
    story.failed(12_400, 10, "restore/code", Failure::never(text).advise(text));
    story.did(12_500, 10, "start/web", Proof::of(text));
    story.verified(12_600, "check/health", Check::Inconclusive { why: text.to_owned() });
    story.told(12_700, text, Some(text));
    story.of_run(12_800, Body::Noted { by: by.clone(), text: text.to_owned() });
    let (step, reason) = (StepId("check/health".to_owned()), text.to_owned());
    story.of_run(12_900, Body::Person { by: by.clone(), verb: Verb::Skip { step, reason } });
    story.helped(13_000, Check::Fail { what: vec![text.to_owned()] }, 0.3, false);
    story.of_run(13_100, Body::Parked { why: ParkedWhy::Insufficient { why: text.to_owned() } });
    story
}
