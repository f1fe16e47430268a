//! Keys of real etcd servers, found and moved with `etcdctl`: what a capture holds comes back, byte for byte and nothing else.

mod others; // whoever else writes
mod signal; // the cluster as a signal sees it

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ripcord_core::{
    Action, CaptureId, CapturePurpose, CaptureRef, Component, Holds, Made, Outcome, Proof, Retry, Revision, Seen, Step,
    Want, Wanted, Wish,
};
use serde_json::{Value, json};

use crate::contract::{Child, Rig, Site, before as run_before, restore_step, run_cx};
use crate::real_daemon::{Daemon, directory, port, wait};
use crate::support::{Bench, apply, before, cx, cx_at, inventory, place, proof, step, survey};

/// One member, or several that know each other.
pub struct Cluster {
    members: Vec<Daemon>,
    pub urls: Vec<String>,
    more: Vec<String>,
}

impl Cluster {
    pub fn of(members: usize, more: &[&str]) -> Self {
        let ports: Vec<(u16, u16)> = (0..members).map(|_| (port(), port())).collect();
        let peers: Vec<_> = ports.iter().enumerate().map(|(n, (_, p))| format!("m{n}=http://127.0.0.1:{p}")).collect();
        let peers = peers.join(",");
        let start = |(n, (client, peer)): (usize, &(u16, u16))| {
            let dir = directory("etcd");
            let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let (name, data) = (format!("m{n}"), dir.join("data").display().to_string());
            let mut argv = vec![
                "etcd",
                "--name",
                &name,
                "--data-dir",
                &data,
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &peers,
                "--heartbeat-interval",
                "50",
                "--election-timeout",
                "500",
            ];
            argv.extend(more);
            Daemon::start(&dir, &argv)
        };
        let servers = ports.iter().enumerate().map(start).collect();
        let urls = ports.iter().map(|(client, _)| format!("http://127.0.0.1:{client}")).collect();
        let cluster = Self { members: servers, urls, more: vec![] };
        wait("etcd", || {
            for member in &cluster.members {
                assert!(member.runs(), "etcd did not start: {}", member.log());
            }
            cluster.try_ctl(&["endpoint", "health"], b"").is_ok()
        });
        cluster
    }

    fn endpoints(&self) -> String {
        self.urls.join(",")
    }

    pub fn try_ctl(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints()]).args(&self.more).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.try_ctl(arguments, b"").unwrap_or_else(|why| panic!("etcdctl {arguments:?}: {why}"))
    }

    fn put(&self, key: &str, value: &[u8]) {
        // Nothing on its standard input is taken for no value at all.
        match value {
            b"" => drop(self.ctl(&["put", key, ""])),
            value => drop(self.try_ctl(&["put", "--", key], value).unwrap()),
        }
    }

    /// What is there, as `etcdctl` says it: base64 of keys and values.
    fn content(&self, prefix: &str) -> BTreeMap<String, String> {
        let json: Value = serde_json::from_str(&self.ctl(&["get", "--prefix", "-w", "json", prefix])).unwrap();
        let none = vec![];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        json["kvs"].as_array().unwrap_or(&none).iter().map(|one| (text(&one["key"]), text(&one["value"]))).collect()
    }

    fn revision(&self) -> i64 {
        let json: Value = serde_json::from_str(&self.ctl(&["get", "-w", "json", "nothing"])).unwrap();
        json["header"]["revision"].as_i64().unwrap()
    }

    fn settings(&self, more: &str) -> String {
        format!("endpoints: [{}]\nprefix: app/config/\n{more}", self.urls.join(", "))
    }

    /// Many keys at once: `etcdctl` takes up to 128 in one transaction.
    fn put_many(&self, keys: &[(String, String)]) {
        for part in keys.chunks(100) {
            let lines: String = part.iter().map(|(key, value)| format!("put {key} {value}\n")).collect();
            self.try_ctl(&["txn"], format!("\n{lines}\n\n").as_bytes()).unwrap();
        }
    }
}

/// Goes on as long as the tests do: their kills are of children that speak to it.
static SHARED: LazyLock<Cluster> = LazyLock::new(|| Cluster::of(1, &[]));
static SITES: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The site of the settings made last on this thread, until it is told which it is.
    static LAST: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

pub struct Keys;

fn prefix_of(site: &Path) -> String {
    fs::read_to_string(site.parent().unwrap().join("prefix")).unwrap()
}

impl Rig for Keys {
    const KIND: &'static str = "etcd";
    const WRITES: bool = false;
    fn settings() -> String {
        let number = SITES.fetch_add(1, Ordering::SeqCst) + 1;
        LAST.set(number);
        format!("endpoints: ['{}']\nprefix: site-{number}/", SHARED.urls[0])
    }
    fn good(site: &Path) {
        let prefix = format!("site-{}/", LAST.get());
        fs::write(site.parent().unwrap().join("prefix"), &prefix).unwrap();
        SHARED.put(&format!("{prefix}mode"), b"stable\n");
        SHARED.put(&format!("{prefix}limit"), b"a=b");
        SHARED.put(&format!("{prefix}binary"), &(0..=255).collect::<Vec<u8>>());
    }
    fn bad(site: &Path) {
        let prefix = prefix_of(site);
        SHARED.put(&format!("{prefix}mode"), b"fast");
        SHARED.put(&format!("{prefix}added"), b"1");
        SHARED.ctl(&["del", &format!("{prefix}limit")]);
    }
    fn edit(site: &Path) {
        SHARED.put(&format!("{}mode", prefix_of(site)), b"by hand");
    }
    fn content(site: &Path) -> String {
        json!(SHARED.content(&prefix_of(site))).to_string()
    }
}

struct Case {
    bench: Bench,
    cluster: Cluster,
}

impl Case {
    fn new() -> Self {
        Self::on(Cluster::of(1, &[]))
    }

    fn on(cluster: Cluster) -> Self {
        let bench = Bench::new();
        bench.vault();
        Self { bench, cluster }
    }

    fn part(&self, more: &str) -> std::sync::Arc<dyn Component> {
        self.bench.component("etcd", &self.cluster.settings(more))
    }

    async fn captured(&self, part: &dyn Component) -> (CaptureId, Made) {
        let capture = step("capture", Action::Capture { purpose: CapturePurpose::Protective });
        let made = proof(apply(part, &capture).await).capture.unwrap();
        (self.bench.record(9, made.clone()), made)
    }
}

fn failed(outcome: Outcome) -> ripcord_core::Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn set(values: Value) -> Step {
    step("set", Action::Set { values: serde_json::from_value(values).unwrap() })
}

async fn words(part: &dyn Component, id: &CaptureId, made: &Made) -> String {
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let seen = survey(part, std::slice::from_ref(&wanted)).await;
    let want = Want::Revision { revision: wanted.revision, capture: wanted.capture };
    let drafts = part.propose(&Wish { place: place(), want }, &inventory(seen)).unwrap();
    drafts.into_iter().map(|draft| draft.shown.words).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf19_values_of_any_bytes_come_back_and_what_was_added_goes() {
    let case = Case::new();
    let values: [(&str, Vec<u8>); 8] = [
        ("app/config/binary", (0..=255).collect()),
        ("app/config/empty", vec![]),
        ("app/config/equals=in=name", b"a=b=c".to_vec()),
        ("app/config/lines", b"one\ntwo\n\n".to_vec()),
        ("app/config/back\\slash", b"\\n \\\\ \\x00".to_vec()),
        ("app/config/quote\"", "\u{fc}\u{1f600}\"'".as_bytes().to_vec()),
        ("app/config/large", crate::contract::noise(1 << 20)),
        ("app/config/gone", b"will be deleted".to_vec()),
    ];
    for (key, value) in &values {
        case.cluster.put(key, value);
    }
    case.cluster.put("app/config-of-others", b"not ours");
    let good = case.cluster.content("app/");
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    assert!(made.label.as_deref().unwrap().starts_with("8 keys at revision "), "{:?}", made.label);

    case.cluster.put("app/config/empty", b"not empty");
    case.cluster.put("app/config/binary", b"");
    case.cluster.put("app/config/large", b"small");
    case.cluster.put("app/config/added", b"by the bad release");
    case.cluster.ctl(&["del", "app/config/gone"]);
    let words = words(&*part, &id, &made).await;
    assert_eq!(
        words,
        "restore app/config/: put 4 keys (binary, empty, gone, large), delete 1 key (added), in one transaction"
    );
    assert!(!words.contains("small") && !words.contains("bad release"), "values are never said");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let revision = case.cluster.revision();
    proof(apply(&*part, &prove).await);
    assert_eq!(case.cluster.revision(), revision, "that the changes would be taken was asked without making them");

    let restore = restore_step(&id, &made);
    let done = proof(apply(&*part, &restore).await);
    assert_eq!(case.cluster.content("app/"), good);
    assert_eq!(case.cluster.revision(), revision + 1, "one transaction");
    assert!(
        done.found.starts_with("put 4 keys (binary, empty, gone, large), delete 1 key (added); read back: 8 keys at")
    );
    let done = proof(apply(&*part, &restore).await);
    assert_eq!(case.cluster.revision(), revision + 1, "where nothing differs nothing is written");
    assert!(done.found.starts_with("nothing differs"), "{}", done.found);
    assert_eq!(survey(&*part, &[]).await.seen, Seen::At(made.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf19_a_watcher_never_sees_a_mixture() {
    let case = Case::new();
    let keys = |value: &str| -> Vec<(String, String)> {
        (0..100).map(|n| (format!("app/config/k{n:03}"), format!("{value}-{n}"))).collect()
    };
    case.cluster.put_many(&keys("old"));
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    case.cluster.put_many(&keys("new"));
    let from = (case.cluster.revision() + 1).to_string();

    proof(apply(&*part, &restore_step(&id, &made)).await);
    case.cluster.put("app/config/zz-end", b"");
    // What a watcher is told: every event since, with the revision it belongs to.
    let mut watch = Command::new("etcdctl");
    watch.env("ETCDCTL_API", "3").args(["--endpoints", &case.cluster.endpoints(), "watch", "--prefix", "--rev", &from]);
    watch.args(["-w", "json", "app/config/"]).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let (mut revisions, mut events) = (std::collections::BTreeSet::new(), 0);
    for line in std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap())) {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let mut ended = false;
        for event in answer["Events"].as_array().into_iter().flatten() {
            ended |= event["kv"]["value"].is_null();
            if !event["kv"]["value"].is_null() {
                revisions.insert(event["kv"]["mod_revision"].as_i64().unwrap());
                events += 1;
            }
        }
        if ended {
            break;
        }
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!((events, revisions.len()), (100, 1), "all of it is one revision");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf19_a_thousand_keys_go_in_parts_and_half_of_them_is_seen_as_half() {
    let case = Case::new();
    let keys = |value: &str| -> Vec<(String, String)> {
        (0..1000).map(|n| (format!("app/config/k{n:04}"), format!("{value}-{n}"))).collect()
    };
    case.cluster.put_many(&keys("old"));
    let good = case.cluster.content("app/config/");
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    case.cluster.put_many(&keys("new"));
    let words = words(&*part, &id, &made).await;
    assert!(
        words.contains("put 1000 keys (k0000, ") && words.contains(", and 988 more), in 8 transactions, because"),
        "{words}"
    );
    let began = case.cluster.revision();
    let (started, step) = (std::time::Instant::now(), restore_step(&id, &made));
    proof(part.apply(&cx(), &step, &before(&step, None)).await);
    let ours = started.elapsed();
    assert_eq!(case.cluster.content("app/config/"), good);
    assert_eq!(case.cluster.revision(), began + 8);
    let started = std::time::Instant::now();
    case.cluster.put_many(&keys("etcdctl"));
    println!("1,000 keys: restored in {ours:?}, written with etcdctl in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rf19_killed_between_transactions_it_is_seen_and_carried_on() {
    let number = SITES.fetch_add(1, Ordering::SeqCst) + 1;
    let prefix = format!("site-{number}/");
    let yaml = format!("endpoints: ['{}']\nprefix: {prefix}\nmax-txn-ops: 10", SHARED.urls[0]);
    let site = Site::new("etcd", yaml);
    let keys = |value: &str| -> Vec<(String, String)> {
        (0..35).map(|n| (format!("{prefix}k{n:02}"), value.to_owned())).collect()
    };
    SHARED.put_many(&keys("old"));
    let good = SHARED.content(&prefix);
    let (id, made) = site.capture(1).await;
    let step = restore_step(&id, &made);
    let mut halves = 0;
    for at in 1.. {
        assert!(at < 40, "the child never gets through");
        let run = 100 + u64::from(at);
        SHARED.put_many(&keys("new"));
        let mark = site.component().holds(&run_cx(run), &step, None).await.mark;
        let outcome = site.in_child(run, &step, &Child { kill_at: Some(at), ..Child::default() });
        if let Some(outcome) = outcome {
            proof(outcome);
            break;
        }
        let before = run_before(run, &step, mark);
        let holds = site.component().holds(&run_cx(run), &step, Some(&before)).await.holds;
        let is_good = SHARED.content(&prefix).iter().filter(|(key, value)| good.get(*key) == Some(value)).count();
        match is_good {
            0 => assert_eq!(holds, Holds::Origin, "killed at {at}"),
            35 => assert_eq!(holds, Holds::Target, "killed at {at}"),
            _ => {
                halves += 1;
                assert!(matches!(holds, Holds::Neither { .. }), "killed at {at}: {holds:?}");
            }
        }
        proof(site.component().apply(&run_cx(run), &step, &before).await);
        assert_eq!(SHARED.content(&prefix), good, "killed at {at}");
    }
    assert!(halves >= 3, "some kills were between transactions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_keys_are_set_and_taken_out() {
    let case = Case::new();
    case.cluster.put("app/config/database", b"postgres://blue");
    case.cluster.put("app/config/other", b"1");
    let part = case.part("");
    let values = json!({ "database": "postgres://green", "other": null, "retries": 3 });
    let seen = inventory(survey(&*part, &[]).await);
    let want = Want::Values(serde_json::from_value(values.clone()).unwrap());
    let drafts = part.propose(&Wish { place: place(), want }, &seen).unwrap();
    assert_eq!(drafts[0].shown.words, "set database, other, retries of app/config/");
    let step = set(values);
    let looked = part.holds(&cx(), &step, None).await;
    assert_eq!(looked.holds, Holds::Origin);
    proof(apply(&*part, &step).await);
    assert_eq!(case.cluster.ctl(&["get", "--prefix", "--print-value-only", "app/config/"]), "postgres://green\n3\n");
    let before = before(&step, looked.mark);
    assert_eq!(part.holds(&cx(), &step, Some(&before)).await.holds, Holds::Target);
    let revision = case.cluster.revision();
    proof(apply(&*part, &step).await);
    assert_eq!(case.cluster.revision(), revision, "what is so is not written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_needed_kept_and_not_said() {
    let mut case = Case::on(Cluster::of(1, &["--auth-token-ttl", "1"]));
    case.cluster.put("app/config/a", b"old");
    for line in [
        "user add root:canary-root",
        "user add app:canary-app",
        "role add app",
        "user grant-role app app",
        "user grant-role root root",
        "role grant-permission app --prefix=true read app/config/",
        "auth enable",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        if case.cluster.try_ctl(&words, b"").is_err() {
            assert_eq!(line, "user grant-role root root", "the role is made by switching authentication on");
            case.cluster.ctl(&["role", "add", "root"]);
            case.cluster.ctl(&words);
        }
    }
    case.cluster.more = vec!["--user".into(), "root:canary-root".into()];
    let Seen::Unreachable { why } = survey(&*case.part(""), &[]).await.seen else { panic!("there was no login") };
    assert!(why.contains("user name is empty"), "{why}");
    let wrong = format!("user: app\npassword: {}", case.bench.secret("wrong", "canary-wrong"));
    let Seen::Unreachable { why } = survey(&*case.part(&wrong), &[]).await.seen else { panic!("a wrong password") };
    assert!(why.contains("invalid user ID or password") && !why.contains("canary"), "{why}");

    let login = format!("user: app\npassword: {}", case.bench.secret("right", "canary-app"));
    let part = case.part(&login);
    let (id, made) = case.captured(&*part).await;
    case.cluster.put("app/config/a", b"new");
    let prove = step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) });
    let failure = failed(apply(&*part, &prove).await);
    assert!(failure.what.contains("permission denied") && failure.advice.unwrap().contains("grant-permission"));
    case.cluster.ctl(&["role", "grant-permission", "app", "--prefix=true", "readwrite", "app/config/"]);
    proof(apply(&*part, &prove).await);
    // The token is forgotten by the server after a second: a new one is fetched.
    let login_again = || async { matches!(survey(&*part, &[]).await.seen, Seen::At(_)) };
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(login_again().await);
    proof(apply(&*part, &restore_step(&id, &made)).await);
    assert_eq!(case.cluster.ctl(&["get", "--print-value-only", "app/config/a"]), "old\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_or_hangs_is_unreachable_and_nothing_else() {
    let case = Case::new();
    case.cluster.put("app/config/a", b"old");
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    case.cluster.put("app/config/a", b"new");
    let restore = restore_step(&id, &made);
    case.cluster.members[0].freeze(true);
    let short = cx_at(jiff::Timestamp::now(), Duration::from_secs(3));
    let seen = part.survey(&short, &place(), &[]).await.seen;
    assert!(matches!(seen, Seen::Unreachable { .. }), "{seen:?}");
    let outcome = part.apply(&short, &restore, &before(&restore, None)).await;
    assert!(matches!(&outcome, Outcome::Failed(failure) if failure.retry == Retry::Later), "{outcome:?}");
    case.cluster.members[0].freeze(false);
    case.cluster.members[0].kill();
    let Seen::Unreachable { why } = survey(&*part, &[]).await.seen else { panic!("it is dead") };
    assert!(why.starts_with("no endpoint of etcd can be reached: 127.0.0.1:"), "{why}");
    assert!(matches!(part.holds(&cx(), &restore, None).await.holds, Holds::CannotTell { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_in_the_middle_is_waited_out() {
    let case = Case::on(Cluster::of(3, &[]));
    let keys = |value: &str| -> Vec<(String, String)> {
        (0..600).map(|n| (format!("app/config/k{n:03}"), format!("{value}-{n}"))).collect()
    };
    case.cluster.put_many(&keys("old"));
    let good = case.cluster.content("app/config/");
    let quorum = case.part("max-txn-ops: 20");
    let (id, made) = case.captured(&*quorum).await;
    case.cluster.put_many(&keys("new"));
    let status: Value = serde_json::from_str(&case.cluster.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
    let is_leader = |one: &&Value| one["Status"]["leader"] == one["Status"]["header"]["member_id"];
    let leader = status.as_array().unwrap().iter().find(is_leader).unwrap()["Endpoint"].as_str().unwrap();
    let leader = case.cluster.urls.iter().position(|url| url == leader).unwrap();

    let (part, restore) = (std::sync::Arc::clone(&quorum), restore_step(&id, &made));
    let began = case.cluster.revision();
    let acting = tokio::spawn(async move {
        let cx = cx_at(jiff::Timestamp::now(), Duration::from_secs(60));
        part.apply(&cx, &restore, &before(&restore, None)).await
    });
    crate::support::until("the first transactions", || async { case.cluster.revision() > began + 2 }).await;
    case.cluster.members[leader].kill();
    let outcome = acting.await.unwrap();
    let done: Proof = proof(outcome);
    assert!(done.found.contains("read back: 600 keys"), "{}", done.found);
    assert_eq!(case.cluster.content("app/config/"), good);
    assert_eq!(survey(&*quorum, &[]).await.seen, Seen::At(made.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_of_another_prefix_or_kind_is_refused() {
    let case = Case::new();
    case.cluster.put("app/config/a", b"old");
    let part = case.part("");
    let (id, made) = case.captured(&*part).await;
    let other = case.bench.component("etcd", &case.cluster.settings("").replace("app/config/", "other/"));
    let failure = failed(apply(&*other, &restore_step(&id, &made)).await);
    assert!(failure.what.contains("does not begin with `other/`"), "{}", failure.what);
    let lie = Made { revision: Revision::exact("hmac:00"), ..made };
    let id = case.bench.record(10, lie.clone());
    let failure = failed(apply(&*part, &restore_step(&id, &lie)).await);
    assert!(failure.what.starts_with("the capture holds hmac:"), "{}", failure.what);
    let from = Some(CaptureRef::Known(CaptureId::at(ripcord_core::Seq(77))));
    let unknown = step("restore", Action::Restore { to: lie.revision, from });
    assert!(failed(apply(&*part, &unknown).await).what.contains("the record knows no capture"));
}
