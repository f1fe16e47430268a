//! What the Engine has of a service: its containers, what they are made of, and how they fare.

use std::collections::{BTreeMap, BTreeSet};

use ripcord_core::{Revision, Seen};
use serde_json::Value;

use super::definition::{Definition, revision, strip_hash};

/// Says in which run a container was restored.
pub(super) const RUN_LABEL: &str = "dev.ripcord.run";
/// What a container says to a program that looks for newer images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    label: &'static str,
    pub(super) name: &'static str,
}

/// It takes every container for its own that does not refuse.
pub(super) const WATCHTOWER: Told = Told { label: "com.centurylinklabs.watchtower.enable", name: "Watchtower" };
/// Programs that exchange containers for newer images by themselves. Diun is none of them: it only tells.
const UPDATERS: [Told; 2] = [WATCHTOWER, Told { label: "wud.watch", name: "What's up Docker" }];

/// One container.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) number: u32,
    /// The image's id.
    pub(super) image: String,
    /// What the container was made from: a tag, a digest, an id.
    pub(super) image_name: String,
    pub(super) definition: Definition,
    /// As inspected.
    pub(super) whole: Value,
}

/// How a container fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fares {
    /// Made, and never started.
    New,
    /// Runs, and what there is to say it is well says so, or there is nothing.
    Well,
    Starting,
    Unhealthy,
    /// Between an end and the next start.
    Restarting,
    Ended,
}

impl Replica {
    fn of(whole: Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            id: text(&whole["Id"]),
            name: text(&whole["Name"]).trim_start_matches('/').to_owned(),
            number: text(&whole["Config"]["Labels"]["com.docker.compose.container-number"]).parse().unwrap_or(0),
            image: text(&whole["Image"]),
            image_name: text(&whole["Config"]["Image"]),
            definition: Definition::of(&whole),
            whole,
        }
    }

    fn state(&self, name: &str) -> &Value {
        &self.whole["State"][name]
    }

    pub(super) fn fares(&self) -> Fares {
        let status = self.state("Status").as_str().unwrap_or_default();
        match (status, self.state("Health")["Status"].as_str()) {
            ("created", _) => Fares::New,
            ("restarting", _) => Fares::Restarting,
            ("running", Some("starting")) => Fares::Starting,
            ("running", Some("unhealthy")) => Fares::Unhealthy,
            ("running", _) => Fares::Well,
            // A paused one holds its place and serves nobody.
            ("paused", _) => Fares::Unhealthy,
            _ => Fares::Ended,
        }
    }

    pub(super) fn runs(&self) -> bool {
        !matches!(self.fares(), Fares::New | Fares::Ended)
    }

    pub(super) fn has_check(&self) -> bool {
        self.state("Health").is_object()
    }

    pub(super) fn restarts(&self) -> i64 {
        self.whole["RestartCount"].as_i64().unwrap_or_default()
    }

    pub(super) fn started(&self) -> &str {
        self.state("StartedAt").as_str().unwrap_or_default()
    }

    /// Whether it is started whenever the Engine is, also where somebody stopped it.
    pub(super) fn restarts_with_the_engine(&self) -> bool {
        self.whole["HostConfig"]["RestartPolicy"]["Name"] == "always"
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.whole["Config"]["Labels"][name].as_str()
    }

    /// In words, how it ended or what ails it.
    pub(super) fn ails(&self) -> String {
        let code = self.state("ExitCode").as_i64().unwrap_or_default();
        if self.state("OOMKilled") == true {
            return format!("was killed because it needed more memory than it may have{}", self.memory());
        }
        match self.fares() {
            Fares::New => match self.state("Error").as_str().filter(|error| !error.is_empty()) {
                Some(error) => format!("was not started: {error}"),
                None => "was made and not started".to_owned(),
            },
            Fares::Well => "runs".to_owned(),
            Fares::Starting => "runs, and its health check has not succeeded yet".to_owned(),
            Fares::Unhealthy => format!("runs, and its health check fails{}", self.last_check()),
            Fares::Restarting => format!("keeps ending (exit code {code}) and was restarted {} times", self.restarts()),
            Fares::Ended => match code {
                0 => "ended by itself with exit code 0".to_owned(),
                code => format!("ended with exit code {code}"),
            },
        }
    }

    fn memory(&self) -> String {
        match self.whole["HostConfig"]["Memory"].as_i64() {
            Some(bytes @ 1..) => format!(" ({} MiB)", bytes >> 20),
            _ => String::new(),
        }
    }

    fn last_check(&self) -> String {
        let log = self.state("Health")["Log"].as_array().into_iter().flatten();
        let said = log.filter_map(|one| one["Output"].as_str()).next_back().unwrap_or_default();
        let line = said.trim().lines().next_back().unwrap_or_default();
        if line.is_empty() { String::new() } else { format!(": {}", crate::http::shorten(line, 200)) }
    }

    /// The health check's own record, for people.
    pub(super) fn checks(&self) -> Vec<String> {
        let log = self.state("Health")["Log"].as_array().into_iter().flatten();
        let one = |check: &Value| {
            let said = check["Output"].as_str().unwrap_or_default().trim();
            format!(
                "health check at {}: exit code {}: {said}",
                check["End"].as_str().unwrap_or_default(),
                check["ExitCode"]
            )
        };
        log.map(one).collect()
    }
}

/// All containers of a service, in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    pub(super) all: Vec<Replica>,
}

impl Sight {
    pub(super) fn of(containers: Vec<Value>) -> Self {
        let mut all: Vec<Replica> = containers.into_iter().map(Replica::of).collect();
        all.sort_by(|a, b| (a.number, a.name.len(), &a.name).cmp(&(b.number, b.name.len(), &b.name)));
        Self { all }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Replica> {
        self.all.iter().filter(|replica| replica.runs())
    }

    pub(super) fn runs(&self) -> bool {
        self.running().next().is_some()
    }

    /// Those that count: what runs; where nothing does, what ran; and what was only made where there is nothing else.
    pub(super) fn counted(&self) -> Vec<&Replica> {
        let those = |pick: fn(&Replica) -> bool| self.all.iter().filter(|replica| pick(replica)).collect::<Vec<_>>();
        let running = those(Replica::runs);
        let ended = those(|replica| replica.fares() == Fares::Ended);
        match (running.is_empty(), ended.is_empty()) {
            (false, _) => running,
            (true, false) => ended,
            (true, true) => those(|_| true),
        }
    }

    /// Whether each that counts is one that a restore to `to` makes.
    pub(super) fn is_at(&self, to: &Revision, key: &[u8; 32]) -> bool {
        let counted = self.counted();
        match to {
            Revision::Absent => self.all.is_empty(),
            to => !counted.is_empty() && counted.iter().all(|one| revision(&one.image, &one.definition, key) == *to),
        }
    }

    /// Whether no recreation stands half way: no name of its own making, and no two containers in one place.
    pub(super) fn is_whole(&self) -> bool {
        let numbers: BTreeSet<u32> = self.all.iter().map(|one| one.number).collect();
        numbers.len() == self.all.len() && self.all.iter().all(|one| strip_hash(&one.name) == one.name)
    }

    /// What a recreation that was killed left beside what counts: new ones that never ran, and old ones where the new one runs.
    pub(super) fn left_by_a_kill(&self) -> impl Iterator<Item = &Replica> {
        let better = |one: &Replica| match one.fares() {
            Fares::New => 2,
            Fares::Ended => 1,
            _ => 0,
        };
        self.all.iter().filter(move |one| {
            !one.runs() && self.all.iter().any(|other| other.number == one.number && better(other) < better(one))
        })
    }

    pub(super) fn seen(&self, key: &[u8; 32]) -> Seen {
        let mut found: BTreeMap<Revision, Vec<&Replica>> = BTreeMap::new();
        for one in self.counted() {
            found.entry(revision(&one.image, &one.definition, key)).or_default().push(one);
        }
        match found.len() {
            0 => Seen::At(Revision::Absent),
            1 => Seen::At(found.into_keys().next().unwrap_or(Revision::Absent)),
            _ => {
                let parts = found.values().map(|those| {
                    let names: Vec<&str> = those.iter().map(|one| one.name.as_str()).collect();
                    let image = those.first().map_or("", |one| &one.image);
                    format!("{} from {}", names.join(", "), Revision::exact(image).short())
                });
                let mut why = format!("its containers differ: {}", parts.collect::<Vec<_>>().join("; "));
                let images: BTreeSet<&str> = found.values().flatten().map(|one| one.image.as_str()).collect();
                let firsts: Vec<&Replica> = found.values().filter_map(|those| those.first().copied()).collect();
                if let ([a, b, ..], 1) = (firsts.as_slice(), images.len()) {
                    why.push_str(&format!("; in {}", a.definition.differing(&b.definition).join(", ")));
                }
                Seen::Between { why }
            }
        }
    }

    /// What tells the running containers from any others: none where nothing runs.
    pub(super) fn instance(&self) -> Option<String> {
        let one = |replica: &Replica| format!("{}@{}", replica.id.get(..12).unwrap_or(&replica.id), replica.started());
        let running: Vec<String> = self.running().map(one).collect();
        (!running.is_empty()).then(|| running.join(" "))
    }

    fn says(&self, told: &Told, what: &str) -> bool {
        self.counted().iter().any(|one| one.label(told.label).is_some_and(|value| value.eq_ignore_ascii_case(what)))
    }

    /// The ports of this machine that those which run have.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.running().flat_map(|one| one.definition.ports()).collect()
    }

    /// Who is told to exchange the container for the newest image again.
    pub(super) fn updaters(&self) -> Vec<&'static str> {
        UPDATERS.iter().filter(|told| self.says(told, "true")).map(|told| told.name).collect()
    }

    pub(super) fn refuses(&self, told: &Told) -> bool {
        self.says(told, "false")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(number: u32, image: &str, state: Value) -> Value {
        json!({
            "Id": format!("{number:064x}"), "Name": format!("/shop-api-{number}"), "Image": image,
            "Config": { "Image": "shop/api:1", "Env": ["A=1"], "Labels": {
                "com.docker.compose.project": "shop", "com.docker.compose.service": "api",
                "com.docker.compose.container-number": number.to_string(), "com.centurylinklabs.watchtower.enable": "true",
            } },
            "HostConfig": { "NetworkMode": "none", "Memory": 64 << 20 }, "RestartCount": 4, "State": state,
        })
    }

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn what_runs_counts_before_what_ran_and_that_before_what_was_only_made() {
        let made = || container(3, "sha256:new", json!({ "Status": "created" }));
        let ended = || container(2, "sha256:old", json!({ "Status": "exited" }));
        let runs = || container(1, "sha256:now", json!({ "Status": "running" }));
        let counted = |containers: Vec<Value>| {
            let sight = Sight::of(containers);
            sight.counted().iter().map(|one| one.image.clone()).collect::<Vec<_>>()
        };
        assert_eq!(counted(vec![made(), ended(), runs()]), ["sha256:now"]);
        assert_eq!(counted(vec![made(), ended()]), ["sha256:old"]);
        assert_eq!(counted(vec![made()]), ["sha256:new"]);
        assert_eq!(Sight::of(vec![]).seen(&KEY), Seen::At(Revision::Absent));
        let stopped = Sight::of(vec![ended()]);
        assert!(!stopped.runs() && stopped.instance().is_none());
        assert!(matches!(stopped.seen(&KEY), Seen::At(Revision::Exact(_))), "what is stopped is still there");
    }

    #[test]
    fn containers_that_differ_are_no_revision() {
        let running = || json!({ "Status": "running" });
        let alike = Sight::of(vec![container(1, "sha256:a", running()), container(2, "sha256:a", running())]);
        assert!(matches!(alike.seen(&KEY), Seen::At(_)));
        let mixed = Sight::of(vec![container(1, "sha256:a", running()), container(2, "sha256:b", running())]);
        let Seen::Between { why } = mixed.seen(&KEY) else { panic!("{:?}", mixed.seen(&KEY)) };
        assert_eq!(why, "its containers differ: shop-api-1 from sha256:a; shop-api-2 from sha256:b");
        let mut other = container(2, "sha256:a", running());
        other["Config"]["Env"] = json!(["A=2"]);
        let mixed = Sight::of(vec![container(1, "sha256:a", running()), other]);
        let Seen::Between { why } = mixed.seen(&KEY) else { panic!("{:?}", mixed.seen(&KEY)) };
        assert!(why.ends_with("; in environment.A") && !why.contains("A=2"), "{why}");
    }

    #[test]
    fn what_ails_a_container_is_said() {
        let ails = |state: Value| Sight::of(vec![container(1, "sha256:a", state)]).all[0].ails();
        assert_eq!(ails(json!({ "Status": "exited", "ExitCode": 3 })), "ended with exit code 3");
        let killed = ails(json!({ "Status": "exited", "ExitCode": 137, "OOMKilled": true }));
        assert_eq!(killed, "was killed because it needed more memory than it may have (64 MiB)");
        let looping = ails(json!({ "Status": "restarting", "ExitCode": 1 }));
        assert_eq!(looping, "keeps ending (exit code 1) and was restarted 4 times");
        let log = json!([{ "Output": "first" }, { "Output": "GET /health: 503\n" }]);
        let sick = ails(json!({ "Status": "running", "Health": { "Status": "unhealthy", "Log": log } }));
        assert_eq!(sick, "runs, and its health check fails: GET /health: 503");
    }

    #[test]
    fn who_would_put_a_newer_image_there_is_named() {
        let sight = Sight::of(vec![container(1, "sha256:a", json!({ "Status": "running" }))]);
        assert_eq!(sight.updaters(), ["Watchtower"]);
        assert!(!sight.refuses(&WATCHTOWER));
        let mut refusing = container(1, "sha256:a", json!({ "Status": "running" }));
        refusing["Config"]["Labels"][WATCHTOWER.label] = "false".into();
        let sight = Sight::of(vec![refusing]);
        assert!(sight.refuses(&WATCHTOWER) && sight.updaters().is_empty());
    }
}
