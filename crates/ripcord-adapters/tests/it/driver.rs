//! The driver component, with drivers that speak the protocol well, badly, and not at all.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{
    Action, Available, CapturePurpose, CaptureRef, Component, Held, HeldIn, Holds, Observe, Outcome, ProofLevel,
    Readers, Redo, Retry, Revision, Seen, Want, Wish,
};
use serde_json::{Value, json};

use crate::support::{Bench, apply, before, cx, cx_at, inventory, place, proof, step, survey, wanted};

/// A driver for a file `live` whose revision is its content. It keeps every request, and captures go through the vault.
const DRIVER: &str = r#"
request=$(cat); echo "$request" >> requests
field() { echo "$request" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
now=$(cat live 2> /dev/null) && at="\"$now\"" || at=null
case "$request" in
  *'"call":"describe"'*)
    echo '{"ripcord":1,"kind":"file","version":[2,1],"observe":"exactly","held":"vault","redo":"safe","readers":"restart"}' ;;
  *'"call":"survey"'*)
    echo "{\"ripcord\":1,\"seen\":{\"at\":$at},\"target\":\"file:$PWD/live\",\"label\":\"now $now\",\"available\":[WANTED]}" ;;
  *'"call":"holds"'*)
    if [ "$(field revision)" = "$now" ]; then holds='"target"'; else holds='"origin"'; fi
    echo "{\"ripcord\":1,\"holds\":$holds,\"mark\":$at}" ;;
  *'"action":"capture"'*)
    cp live "$(field into)/state"
    echo "{\"ripcord\":1,\"outcome\":{\"done\":{\"found\":\"copied\",\"captured\":{\"revision\":$at}}}}" ;;
  *'"action":"restore"'*)
    cp "$(field from)/state" live.new && mv live.new live
    echo '{"ripcord":1,"outcome":{"done":{"found":"copied back","set-aside":["live.old"]}}}' ;;
  *) echo '{"ripcord":1,"outcome":{"failed":{"what":"cannot do that","advice":"ask the owner"}}}' ;;
esac
"#;

fn driver(bench: &Bench, wanted: usize) -> Arc<dyn Component> {
    let here = vec![r#"{\"here\":\"somewhere\"}"#; wanted].join(",");
    bench.write("driver", &DRIVER.replace("WANTED", &here));
    bench.component("driver", "run: [sh, driver]\nsettings: { path: live, deep: { a: [1] } }")
}

fn requests(bench: &Bench) -> Vec<Value> {
    bench.read("requests").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_driver_takes_a_component_back() {
    let bench = Bench::new();
    bench.vault();
    bench.write("live", "v1");
    let part = driver(&bench, 1);
    let can = part.capabilities();
    assert_eq!(
        (can.observe, can.held, can.redo, can.readers),
        (Observe::Exactly, Held::Vault, Redo::Safe, Readers::Restart)
    );
    let kind = part.kind();
    assert_eq!((kind.kind.as_str(), kind.major, kind.minor), ("driver/file", 2, 1));

    let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
    let made = proof(apply(&*part, &capture).await).capture.unwrap();
    assert_eq!((made.revision.clone(), made.proof), (Revision::exact("v1"), ProofLevel::ReadBack));
    let id = bench.record(4, made);
    bench.write("live", "v2");
    let seen = survey(&*part, &[wanted("v1", Some(&id))]).await;
    assert_eq!((&seen.seen, seen.label.as_deref()), (&Seen::At(Revision::exact("v2")), Some("now v2")));
    assert_eq!(seen.available[0].1, Available::Here { how: "capture cap-4, read back".into() });

    let want = Want::Revision { revision: Revision::exact("v1"), capture: Some(id.clone()) };
    let drafts = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap();
    let restore = step("restore", drafts[0].action.clone());
    assert_eq!(restore.action, Action::Restore { to: Revision::exact("v1"), from: Some(CaptureRef::Known(id)) });
    let seen = part.holds(&cx(), &restore, None).await;
    assert_eq!((seen.holds, seen.mark.as_deref()), (Holds::Origin, Some("v2")));
    let done = proof(part.apply(&cx(), &restore, &before(&restore, seen.mark)).await);
    assert_eq!((done.found.as_str(), done.set_aside), ("copied back", vec!["live.old".to_owned()]));
    assert_eq!(bench.read("live"), "v1");
    assert_eq!(part.holds(&cx(), &restore, None).await.holds, Holds::Target);
}

#[tokio::test]
async fn a_driver_is_told_all_that_the_document_says() {
    let bench = Bench::new();
    bench.write("live", "v1");
    let part = driver(&bench, 2);
    survey(&*part, &[wanted("v1", None), wanted("v2", None)]).await;
    let restore = step("restore", Action::Restore { to: Revision::Absent, from: None });
    part.holds(&cx(), &restore, Some(&before(&restore, Some("m".into())))).await;
    apply(&*part, &step("set", Action::Set { values: [("a".to_owned(), json!(true))].into() })).await;
    let asked = requests(&bench);
    let settings = json!({"path": "live", "deep": {"a": [1]}});
    let about = json!({"application": "shop", "environment": "test", "component": "part", "run": "run-3", "version": "v1", "limit_ms": 17000});
    assert_eq!(asked[0], json!({"ripcord": 1, "call": "describe", "settings": settings}));
    let both = json!([{"revision": "v1", "capture": null}, {"revision": "v2", "capture": null}]);
    assert_eq!(asked[1], json!({"ripcord": 1, "call": "survey", "settings": settings, "about": about, "wanted": both}));
    assert_eq!(asked[2]["step"], json!({"id": "restore/part", "action": "restore", "revision": null}));
    assert_eq!(
        (&asked[2]["before"]["mark"], &asked[2]["before"]["key"]),
        (&json!("m"), &json!("shop/test/run-3/restore/part"))
    );
    assert!(asked[2]["before"]["at"].as_str().unwrap().parse::<Timestamp>().is_ok());
    assert_eq!(asked[3]["before"], Value::Null, "before an intent there is none");
    assert_eq!(asked[4]["step"], json!({"id": "set/part", "action": "set", "values": {"a": true}}));
}

#[tokio::test]
async fn a_driver_that_cannot_be_asked_makes_its_component_unreachable() {
    let bench = Bench::new();
    for run in ["[no-such-driver]", "[sh, -c, 'exit 3']", "[sh, -c, 'echo nonsense']", "[sh, -c, 'echo {}']"] {
        let part = bench.component("driver", &format!("run: {run}"));
        let seen = survey(&*part, &[wanted("v1", None)]).await;
        let Seen::Unreachable { why } = &seen.seen else { panic!("{run}: {seen:?}") };
        assert!(why.contains("`describe`"), "{run}: {why}");
        assert!(matches!(seen.available[0].1, Available::Missing { .. }));
        assert_eq!(part.capabilities().observe, Observe::No);
        assert!(
            matches!(apply(&*part, &step("stop", Action::Stop)).await, Outcome::Failed(failure) if failure.retry == Retry::Never)
        );
    }
}

/// A driver that describes itself well and answers everything else with `answer`.
fn saying(bench: &Bench, answer: &str) -> Arc<dyn Component> {
    let describe = r#"{"ripcord":1,"kind":"x","version":[1,0],"observe":"exactly","held":"system"}"#;
    bench.write("odd", &format!("case \"$(cat)\" in *describe*) echo '{describe}' ;; *) {answer} ;; esac"));
    bench.component("driver", "run: [sh, odd]")
}

#[tokio::test]
async fn an_answer_that_is_not_understood_is_never_a_yes() {
    let bench = Bench::new();
    let step = step("restore", Action::Restore { to: Revision::exact("v1"), from: None });
    for (answer, expected) in [
        ("true", "it answers nothing"),
        ("echo done", "its answer is not one JSON object"),
        (r#"echo '{"ripcord":2,"outcome":{}}'"#, "it speaks version 2 of the protocol"),
        (r#"echo '{"ripcord":1,"outcome":{"done":{}}}'"#, "its answer is not what was asked for: "),
        (r#"echo '{"ripcord":1,"outcome":{"done":{"found":"x"}}}'; exit 4"#, "it ended with exit code 4"),
        ("yes | head -c 400000", "its answer is larger than 256 KiB"),
        ("echo why >&2; kill -9 $$", "it ended with a signal: why"),
        ("sleep 60", "still running after"),
    ] {
        let part = saying(&bench, answer);
        let short = cx_at(Timestamp::now(), Duration::from_secs(2));
        let outcome = part.apply(&short, &step, &before(&step, None)).await;
        assert!(matches!(&outcome, Outcome::Unknown { why } if why.contains(expected)), "{answer}: {outcome:?}");
        assert!(matches!(part.holds(&short, &step, None).await.holds, Holds::CannotTell { .. }), "{answer}");
        assert!(matches!(part.survey(&short, &place(), &[]).await.seen, Seen::Unreachable { .. }), "{answer}");
    }
}

#[tokio::test]
async fn a_survey_must_answer_what_was_asked() {
    let bench = Bench::new();
    let why = async |answer: &str| match survey(&*saying(&bench, &format!("echo '{answer}'")), &[wanted("v1", None)])
        .await
        .seen
    {
        Seen::Unreachable { why } => why,
        other => panic!("{answer}: {other:?}"),
    };
    assert!(
        why(r#"{"ripcord":1,"seen":{"at":"v1"},"target":"t"}"#)
            .await
            .contains("1 revisions are wanted, and it tells of 0")
    );
    assert!(
        why(r#"{"ripcord":1,"seen":{"at":"v1"},"target":"","available":[{"here":"x"}]}"#)
            .await
            .contains("the target is empty")
    );
    assert_eq!(
        why(r#"{"ripcord":1,"seen":{"unreachable":"no route"},"target":"t","available":[{"missing":"x"}]}"#).await,
        "no route"
    );
}

#[tokio::test]
async fn a_driver_whose_system_keeps_revisions_names_them() {
    let bench = Bench::new();
    let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
    let named = r#"echo '{"ripcord":1,"outcome":{"done":{"found":"x","captured":{"revision":"v1","name":"snap-1"}}}}'"#;
    let made = proof(apply(&*saying(&bench, named), &capture).await).capture.unwrap();
    assert_eq!((made.held, made.revision), (HeldIn::System { name: "snap-1".into() }, Revision::exact("v1")));
    for (answer, expected) in [
        (r#"{"ripcord":1,"outcome":{"done":{"found":"x"}}}"#, "the driver does not say what it captured"),
        (
            r#"{"ripcord":1,"outcome":{"done":{"found":"x","captured":{"revision":"v1"}}}}"#,
            "the driver does not say what the system calls its capture",
        ),
        (r#"{"ripcord":1,"outcome":{"failed":{"what":"busy","retry":"later"}}}"#, "busy"),
    ] {
        let outcome = apply(&*saying(&bench, &format!("echo '{answer}'")), &capture).await;
        assert!(matches!(&outcome, Outcome::Failed(failure) if failure.what == expected), "{outcome:?}");
    }
}

#[tokio::test]
async fn rf29_a_driver_s_secrets_stay_with_it() {
    let bench = Bench::new();
    let token = bench.secret("token", "canary-driver");
    bench.write("odd", "cat > /dev/null; echo \"$T\" > got; echo \"$T\" >&2; echo \"{\\\"ripcord\\\":\\\"$T\\\"}\"");
    let part = bench.component("driver", &format!("run: [sh, odd]\nsecrets: {{ T: {token} }}"));
    let all = format!("{:?} {:?}", survey(&*part, &[]).await, apply(&*part, &step("stop", Action::Stop)).await);
    assert_eq!(bench.read("got"), "canary-driver\n");
    assert!(all.contains("[redacted]") && !all.contains("canary"), "{all}");
}

/// The example that the documentation shows, which needs Python.
#[cfg(feature = "real")]
#[tokio::test]
async fn the_example_driver_moves_a_link() {
    use std::fs;
    let bench = Bench::new();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/driver/symlink_driver.py");
    for version in ["v1", "v2"] {
        fs::create_dir_all(bench.path("releases").join(version)).unwrap();
    }
    std::os::unix::fs::symlink("releases/v2", bench.path("current")).unwrap();
    let yaml = format!("run: [python3, {}]\nsettings: {{ link: current, releases: releases }}", example.display());
    let part = bench.component("driver", &yaml);
    let seen = survey(&*part, &[wanted("v1", None), wanted("v9", None)]).await;
    assert_eq!(seen.seen, Seen::At(Revision::exact("v2")));
    assert!(
        matches!(seen.available[0].1, Available::Here { .. })
            && matches!(seen.available[1].1, Available::Missing { .. })
    );
    let want = Want::Revision { revision: Revision::exact("v1"), capture: None };
    let drafts = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap();
    let restore = step("restore", drafts[0].action.clone());
    assert_eq!(part.holds(&cx(), &restore, None).await.holds, Holds::Origin);
    for _ in 0..2 {
        proof(apply(&*part, &restore).await);
        assert_eq!(fs::read_link(bench.path("current")).unwrap(), std::path::Path::new("releases/v1"));
    }
    assert_eq!(part.holds(&cx(), &restore, None).await.holds, Holds::Target);
    let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
    assert_eq!(proof(apply(&*part, &capture).await).capture.unwrap().held, HeldIn::System { name: "v1".into() });
    let gone = step("restore", Action::Restore { to: Revision::exact("v9"), from: None });
    assert!(matches!(apply(&*part, &gone).await, Outcome::Failed(failure) if failure.what.contains("v9")));
    assert_eq!(fs::read_link(bench.path("current")).unwrap(), std::path::Path::new("releases/v1"));
}
