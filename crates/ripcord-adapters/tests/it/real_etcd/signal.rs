//! A cluster as the signal sees it: its members killed one by one, and its space used up.

use ripcord_core::Action;
use serde_json::json;

use super::{Case, Cluster, failed};
use crate::support::{apply, read, sample, step, why};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signal_tells_members_from_the_cluster() {
    let case = Case::on(Cluster::of(3, &["--quota-backend-bytes", "10000000"]));
    let endpoints = format!("endpoints: [{}]", case.cluster.urls.join(", "));
    let signal = |more: &str| case.bench.signal("etcd", &format!("{endpoints}\n{more}"));
    let (failing, down) = (signal(""), signal("measure: members-down"));
    let up = sample(read(&*failing).await);
    assert_eq!(up.value, 0.0);
    let members = up.fields["members"].as_array().unwrap();
    assert_eq!(members.iter().filter(|member| member["leads"] == true).count(), 1, "{members:?}");
    let latency = sample(read(&*signal("measure: latency")).await).value;
    assert!(latency > 0.0 && latency < 5.0, "{latency}");
    let share = sample(read(&*signal("measure: db-share")).await).value;
    assert!(share > 0.0 && share < 0.5, "{share}");
    let small = sample(read(&*signal("measure: db-share\nquota: 1GB")).await).value;
    assert!(small < share, "what is said counts: {small}");
    assert!(sample(read(&*signal("measure: db-size")).await).value > 1000.0);
    assert_eq!(sample(read(&*signal("measure: alarms")).await).value, 0.0);

    case.cluster.members[0].kill();
    let one = || async { sample(read(&*down).await).value == 1.0 };
    crate::support::until("a leader among the rest", one).await;
    assert_eq!(sample(read(&*failing).await).value, 0.0, "two of three decide");
    case.cluster.members[1].kill();
    crate::support::until("the majority to be gone", || async { sample(read(&*failing).await).value == 1.0 }).await;
    assert_eq!(sample(read(&*down).await).value, 3.0, "what is alone can decide nothing");
    case.cluster.members[2].kill();
    let dead = sample(read(&*failing).await);
    assert_eq!(dead.value, 1.0);
    assert!(dead.fields["error"].as_str().unwrap().contains("Connection refused"), "{:?}", dead.fields);
    assert!(why(read(&*signal("measure: db-size")).await).contains("no member says"), "a figure nobody knows");
    let nobody = case.bench.signal("etcd", "endpoints: ['http://nobody.invalid:2379']");
    why(read(&*nobody).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_room_is_an_alarm_and_refuses_before_anything_is_done() {
    let case = Case::on(Cluster::of(1, &["--quota-backend-bytes", "2000000"]));
    case.cluster.put("app/config/a", b"old");
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    case.cluster.put("app/config/a", b"new");
    let filler = crate::contract::noise(500_000);
    let mut full = false;
    for n in 0..20 {
        full |= case.cluster.try_ctl(&["put", "--", &format!("filler/{n}")], &filler).is_err();
    }
    assert!(full, "the quota is used up");
    let signal = case.bench.signal("etcd", &format!("endpoints: ['{}']\nmeasure: alarms", case.cluster.urls[0]));
    let alarms = sample(read(&*signal).await);
    assert_eq!((alarms.value, &alarms.fields["alarms"]), (1.0, &json!(["NOSPACE"])));
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(apply(&*part, &prove).await);
    assert!(failure.what.contains("database space exceeded"), "{}", failure.what);
    assert!(failure.advice.unwrap().contains("alarm disarm"));
    assert_eq!(case.cluster.ctl(&["get", "--print-value-only", "app/config/a"]), "new\n");
}
