//! Several services of a project that are acted on at once: one process of Compose serves them, and each has its own outcome.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use ripcord_adapters::build_component;
use ripcord_core::{
    Action, CaptureId, CapturePurpose, Component, Holds, Made, Outcome, Proof, Seen, Seq, Step, Wanted,
};

use super::{Stack, With, api, each, failed};
use crate::contract::{before, build_cx, capture_step, restore_step, run_cx};
use crate::support::{component, place, proof, step};

/// The services of one stack, looked after by one process: each with its component, and a record of what Compose was told.
struct Both {
    stack: Stack,
    services: Vec<Arc<dyn Component>>,
    record: std::path::PathBuf,
}

const SERVICES: [&str; 2] = ["api", "db"];

impl Both {
    fn of(stack: Stack) -> Self {
        let (program, record) = (stack.site.at("compose.sh"), stack.site.at("said"));
        let script = format!("#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n", record.display(), stack.with.program());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let cx = build_cx(stack.site.dir.path());
        let built = |service: &str| {
            let yaml = format!(
                "service: {service}\nproject: {}\nengine: {}\nprogram: [{}]\n",
                stack.project,
                stack.engine.endpoint(),
                program.display()
            );
            build_component(&place().component, &component("compose", &yaml), &cx).unwrap()
        };
        let services = SERVICES.map(built).into();
        Self { stack, services, record }
    }

    /// What Compose was told since this was asked last, of these words.
    fn told(&self, words: &str) -> Vec<String> {
        let said = fs::read_to_string(&self.record).unwrap_or_default();
        let _ = fs::remove_file(&self.record);
        said.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    async fn apply(&self, nth: usize, run: u64, step: &Step) -> Outcome {
        let (component, cx) = (&self.services[nth], run_cx(run));
        let mark = component.holds(&cx, step, None).await.mark;
        component.apply(&cx, step, &before(run, step, mark)).await
    }

    /// Both at once.
    async fn both(&self, run: u64, steps: &[Step; 2]) -> [Outcome; 2] {
        tokio::join!(self.apply(0, run, &steps[0]), self.apply(1, run, &steps[1])).into()
    }

    /// The present state of each, on record.
    async fn captured(&self) -> [(CaptureId, Made); 2] {
        let capture = capture_step(CapturePurpose::Protective);
        let made = self.both(1, &[capture.clone(), capture]).await.map(|outcome| proof(outcome).capture.unwrap());
        let made = [(CaptureId::at(Seq(1)), made[0].clone()), (CaptureId::at(Seq(2)), made[1].clone())];
        let record: std::collections::BTreeMap<_, _> = made.iter().cloned().collect();
        fs::write(self.stack.site.dir.path().join("captures.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        made
    }

    async fn seen(&self, nth: usize) -> Seen {
        self.services[nth].survey(&run_cx(1), &place(), &[]).await.seen
    }

    fn image(&self, service: &str) -> String {
        let ids = self.stack.ids(service);
        assert_eq!(ids.len(), 1, "{service}: {ids:?}");
        self.stack.inspect(&ids[0], "{{.Config.Env}}")
    }
}

fn done(both: [Outcome; 2]) -> [Proof; 2] {
    both.map(proof)
}

/// Both services at a version, in a file of Compose.
fn at(version: &'static str, more: &str) -> String {
    let image: &'static str = if version == "v1" { "shop/api:v1" } else { "shop/api:v2" };
    let text = api(image).file();
    text.replacen("  db:\n    image: shop/api:v1\n", &format!("  db:\n    image: {image}\n{more}"), 1)
}

fn deploy(stack: &Stack, text: &str) {
    fs::write(stack.site.at("compose.yaml"), text).unwrap();
    stack.up(&[]);
}

async fn one_process_serves_all_who_ask_at_once(with: With) {
    let stack = Stack::new(with);
    deploy(&stack, &at("v1", ""));
    let both = Both::of(stack);
    let made = both.captured().await;
    deploy(&both.stack, &at("v2", ""));
    both.told("");
    let prove = made
        .each_ref()
        .map(|(id, made)| step("prove", Action::Prove { revision: made.revision.clone(), capture: Some(id.clone()) }));
    done(both.both(2, &prove).await);
    assert_eq!(both.told("config --quiet").len(), 1, "both were shown to Compose at once");
    let stop = step("stop", Action::Stop);
    done(both.both(2, &[stop.clone(), stop]).await);
    let restore = made.each_ref().map(|(id, made)| restore_step(id, made));
    let restored = done(both.both(2, &restore).await);
    let told = both.told("up --no-start");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with(" api db") || told[0].ends_with(" db api"), "{told:?}");
    for (nth, (_, made)) in made.iter().enumerate() {
        assert_eq!(both.seen(nth).await, Seen::At(made.revision.clone()));
        assert!(restored[nth].found.starts_with("1 container recreated from shop/api:v1"), "{}", restored[nth].found);
    }
    let start = step("start", Action::Start);
    done(both.both(2, &[start.clone(), start]).await);
    assert_eq!(both.stack.version().as_deref(), Some("v1"));
    SERVICES.iter().for_each(|service| assert!(both.image(service).contains("VERSION=v1")));
    // What is so already costs no process.
    done(both.both(3, &restore).await);
    assert_eq!(both.told("up").len(), 0);
}

async fn the_error_of_one_is_its_own(with: With) {
    let stack = Stack::new(with);
    let name = format!("{}-only", stack.project);
    deploy(&stack, &at("v1", &format!("    container_name: {name}\n")));
    let both = Both::of(stack);
    let made = both.captured().await;
    deploy(&both.stack, &at("v2", ""));
    // Somebody else's, by the name that one of them must have.
    both.stack.engine.says(&["create", "--name", &name, "shop/api:v3"]);
    let stop = step("stop", Action::Stop);
    done(both.both(2, &[stop.clone(), stop]).await);
    let restore = made.each_ref().map(|(id, made)| restore_step(id, made));
    let [of_api, of_db] = both.both(2, &restore).await;
    assert!(proof(of_api).found.starts_with("1 container recreated from shop/api:v1"));
    let failure = failed(of_db);
    assert!(failure.what.contains(&name) && failure.what.contains("already in use"), "{failure:?}");
    assert_eq!(both.seen(0).await, Seen::At(made[0].1.revision.clone()));
    let holds = both.services[1].holds(&run_cx(2), &restore[1], None).await.holds;
    assert!(!matches!(holds, Holds::Target), "it is not taken for restored: {holds:?}");
    both.stack.engine.says(&["rm", &name]);
    proof(both.apply(1, 2, &restore[1]).await);
    assert_eq!(both.seen(1).await, Seen::At(made[1].1.revision.clone()));
    let start = step("start", Action::Start);
    done(both.both(2, &[start.clone(), start]).await);
    assert_eq!(both.stack.version().as_deref(), Some("v1"));
}

/// The files on disk are read once while nobody writes them, also through an env file that a service names.
async fn what_the_files_say_is_asked_once_until_one_is_written(with: With) {
    let stack = Stack::new(with);
    fs::write(stack.site.at("app.env"), "FLAG=off\n").unwrap();
    deploy(&stack, &at("v1", "    env_file: [app.env]\n"));
    let both = Both::of(stack);
    let wanted: [Wanted; 0] = [];
    let cx = run_cx(1);
    let survey = async || {
        let at = place();
        let (a, b) =
            tokio::join!(both.services[0].survey(&cx, &at, &wanted), both.services[1].survey(&cx, &at, &wanted));
        [a, b].map(|survey| survey.facts.get("on disk").cloned())
    };
    assert_eq!(survey().await, [None, None]);
    assert_eq!(both.told("config").len(), 1);
    assert_eq!(survey().await, [None, None]);
    assert_eq!(both.told("config").len(), 0);
    fs::write(both.stack.site.at("app.env"), "FLAG=on!\n").unwrap();
    let said = survey().await;
    assert_eq!(said, [None, Some("the Compose file on disk sets FLAG otherwise".to_owned())]);
    assert_eq!(both.told("config").len(), 1);
}

each! {
    one_process_serves_all_who_ask_at_once
    the_error_of_one_is_its_own
    what_the_files_say_is_asked_once_until_one_is_written
}
