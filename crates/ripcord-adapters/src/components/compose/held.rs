//! What a capture of a service holds, and how the images that captures need are kept.
//!
//! In the vault: how the containers were made, with the values of their environment; what Compose says of the files on disk, for
//! people. In the Engine: the image, which is kept twice over. A tag of ours keeps it from `docker image prune`; from `prune --all`,
//! which removes what has a tag too (and leaves an image that is in use any one of its names), only a container keeps it, so there is
//! one that is never started. `docker system prune --all` removes that as well: whether the image is there is looked at whenever
//! somebody asks whether one could go back.
//! Source: Docker manual, "docker image prune", "docker system prune".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use ripcord_core::{Before, Cx, Failure, HeldIn, Made, Proof, Revision};
use ripcord_vault::{Manifest, SnapshotId, Source};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Compose;
use super::definition::{Definition, Keys, revision};
use super::sight::{Fares, Sight};
use crate::components::files::captures::{made, manifest, vault_failure};
use crate::components::files::{Stop, blocking, point};

/// Where images are kept.
pub(super) const REPOSITORY: &str = "ripcord/keep";
/// On the container that keeps an image: for which service, and for which of the vault's snapshots.
const KEEP: &str = "dev.ripcord.keep";
const SNAPSHOT: &str = "dev.ripcord.snapshot";
const SERVICE: &str = "service.json";
const ABSENT: &str = "absent";
/// How much of a log, and of the past, is evidence.
const LINES: usize = 1000;
const PAST: i64 = 15 * 60;

/// All that a restore needs, as it lies in the vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) definition: Definition,
    pub(super) keys: Keys,
    /// The image's id.
    pub(super) image: String,
    /// What people call it.
    #[serde(default)]
    pub(super) names: Vec<String>,
    /// What registries call it, `name@sha256:...`.
    #[serde(default)]
    pub(super) digests: Vec<String>,
    pub(super) replicas: usize,
}

/// An inspected image's tags, without ours.
pub(super) fn names(image: &Value) -> Vec<String> {
    let tags = image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    tags.filter(|tag| !tag.starts_with(REPOSITORY)).map(str::to_owned).collect()
}

/// An inspected image's digests in registries.
pub(super) fn digests(image: &Value) -> Vec<String> {
    let digests = image["RepoDigests"].as_array().into_iter().flatten().filter_map(Value::as_str);
    digests.filter(|digest| !digest.starts_with(REPOSITORY)).map(str::to_owned).collect()
}

fn short(image: &str) -> &str {
    let digits = image.split_once(':').map_or(image, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

impl Compose {
    /// The name under which an image is kept: the tag's, and the end of the container's.
    fn keep_name(&self, project: &str, image: &str) -> String {
        let room = 127 - 13;
        let name = format!("{project}-{}", self.service);
        format!("{}-{}", name.get(..room.min(name.len())).unwrap_or(project), short(image))
    }

    /// Keeps an image for a capture that the vault holds.
    async fn hold(&self, project: &str, image: &str, manifest: &Manifest, deadline: Instant) -> Result<(), Failure> {
        let snapshot = manifest.snapshot.to_string();
        let name = format!("ripcord-keep-{}-{}", self.keep_name(project, image), snapshot.get(..8).unwrap_or_default());
        let labels = [(KEEP, format!("{project}/{}", self.service)), (SNAPSHOT, snapshot)];
        let labels: BTreeMap<&str, String> = labels.into();
        let body = json!({
            "Image": image, "Entrypoint": ["ripcord-keep"], "Cmd": ["never-started"],
            "HostConfig": { "NetworkMode": "none" }, "Labels": labels,
        });
        point("hold");
        Ok(self.engine.create(&name, body, deadline).await?)
    }

    async fn keys(&self, definition: &Definition, project: &str, deadline: Instant) -> Result<Keys, Failure> {
        let mut keys = Keys::default();
        let key = |whole: Option<Value>, label: &str| {
            let labels = whole.map(|mut whole| whole["Labels"].take()).unwrap_or_default();
            let own = labels["com.docker.compose.project"] == project;
            labels[label].as_str().filter(|_| own).map(str::to_owned)
        };
        for (name, _) in definition.networks() {
            let found = key(self.engine.network(name, deadline).await?, "com.docker.compose.network");
            keys.networks.extend(found.map(|key| (name.to_owned(), key)));
        }
        for name in definition.volumes() {
            let found = key(self.engine.volume(name, deadline).await?, "com.docker.compose.volume");
            keys.volumes.extend(found.map(|key| (name.to_owned(), key)));
        }
        Ok(keys)
    }

    pub(super) async fn capture(&self, cx: &Cx, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 10;
        let project = self.project()?;
        let sight = self.look(deadline).await?;
        let store = |why: String, sources: Vec<Source>| {
            let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
            blocking(move |_| captures.store(&cx, &key, &why, sources))
        };
        let counted = sight.counted();
        let Some(first) = counted.first() else {
            let absent = vec![Source::Bytes { path: ABSENT.to_owned(), bytes: vec![], mode: 0o600 }];
            let manifest = store("the present state".to_owned(), absent).await??;
            let capture = Some(made(Revision::Absent, None, &manifest)?);
            return Ok(Proof { capture, ..Proof::of(format!("service `{}` has no containers", self.service)) });
        };
        let revision = match sight.seen(&self.key) {
            ripcord_core::Seen::At(revision) => revision,
            ripcord_core::Seen::Between { why } | ripcord_core::Seen::Unreachable { why } => {
                let advice = "let the deployment that is under way end, or recreate the service, then capture";
                return Err(Failure::later(why).advise(advice).into());
            }
        };
        let image = self.engine.image(&first.image, deadline).await.map_err(Failure::from)?.ok_or_else(|| {
            Failure::never(format!("image {} runs and is not there any more", short(&first.image)))
                .advise("pull or load it again by its digest, then capture")
        })?;
        if self.settings.keep {
            // At once, so that it is still there when the capture is.
            point("tag");
            self.engine
                .tag(&first.image, REPOSITORY, &self.keep_name(&project, &first.image), deadline)
                .await
                .map_err(Failure::from)?;
        }
        let kept = Kept {
            definition: first.definition.clone(),
            keys: self.keys(&first.definition, &project, deadline).await?,
            image: first.image.clone(),
            names: names(&image),
            digests: digests(&image),
            replicas: counted.len(),
        };
        let wholes: Vec<&Value> = counted.iter().map(|one| &one.whole).collect();
        let mut sources = vec![json_file(SERVICE, &kept)?, json_file("containers.json", &wholes)?];
        // For people: a restore does not need it, and it may be what is broken.
        if let Ok(on_disk) = self.cli.on_disk(&project, cx.limit / 3).await {
            let bytes = on_disk.text.clone().into_bytes();
            sources.push(Source::Bytes { path: "files-on-disk.yaml".to_owned(), bytes, mode: 0o600 });
        }
        let (label, _) = self.label(&sight, deadline).await;
        let why = format!("image {} of {project}/{}", short(&first.image), self.service);
        let manifest = store(why, sources).await??;
        if self.settings.keep {
            self.hold(&project, &first.image, &manifest, deadline).await?;
        }
        let after = self.look(deadline).await?;
        if !after.is_at(&revision, &self.key) {
            return Err(Failure::later(format!("service `{}` was changed while it was captured", self.service)).into());
        }
        let made = made(revision, label.clone(), &manifest)?;
        let also = if self.settings.keep { ", and its image kept" } else { "" };
        let found = format!("{} captured and read back{also}", label.unwrap_or_else(|| self.service.clone()));
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// Best effort: what one source does not give is said in its place.
    pub(super) async fn evidence(&self, cx: &Cx, before: &Before) -> Result<Proof, Stop> {
        let deadline = Instant::now() + cx.limit - cx.limit / 4;
        let sight = self.look(deadline).await?;
        let (mut sources, mut told) = (vec![], 0);
        for one in &sight.all {
            let text = match self.engine.logs(&one.whole, LINES, None, deadline).await {
                Ok(lines) => {
                    told += lines.len();
                    let line = |line: &crate::docker::LogLine| {
                        format!("{} {} {}\n", line.at, if line.error { "stderr" } else { "stdout" }, line.text)
                    };
                    lines.iter().map(line).collect::<String>()
                }
                Err(error) => format!("{error}\n"),
            };
            let path = format!("{}.log", one.name);
            sources.push(Source::Bytes { path, bytes: text.into_bytes(), mode: 0o600 });
        }
        let now = cx.now.as_second();
        let filters = json!({ "label": [
            format!("com.docker.compose.project={}", self.project()?), format!("com.docker.compose.service={}", self.service),
        ] });
        let events = match self
            .engine
            .events(now - PAST, now, filters, deadline.min(Instant::now() + Duration::from_secs(1)))
            .await
        {
            Ok(events) => json!(events),
            Err(error) => json!(error.to_string()),
        };
        sources.push(json_file("events.json", &events)?);
        sources.push(json_file("containers.json", &sight.all.iter().map(|one| &one.whole).collect::<Vec<_>>())?);
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx, &key, "evidence", sources)).await??;
        let capture = Some(made(Revision::exact(format!("evidence:{}", manifest.tree.hex())), None, &manifest)?);
        let ails: Vec<String> = sight.all.iter().map(|one| format!("`{}` {}", one.name, one.ails())).collect();
        Ok(Proof { capture, ..Proof::of(format!("{told} log lines; {}", ails.join("; "))) })
    }

    /// What a capture holds, once it was shown to be what it is said to be.
    pub(super) async fn kept(&self, made: Made, to: &Revision) -> Result<Kept, Failure> {
        if let HeldIn::System { .. } = made.held {
            return Err(Failure::never("the capture is not in the vault"));
        }
        let captures = self.captures.clone();
        let read = move || captures.bytes(&manifest(&made)?, SERVICE);
        let bytes = blocking(move |_| read()).await??;
        let kept: Kept = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::never(format!("the captured service cannot be read: {error}")))?;
        let holds = revision(&kept.image, &kept.definition, &self.key);
        match holds == *to {
            true => Ok(kept),
            false => Err(Failure::never(format!("the capture holds {}, not {}", holds.short(), to.short()))
                .advise("choose another capture; was the key for revisions replaced?")),
        }
    }

    /// What to call the image in a file for Compose: its digest where this machine knows it by that, else its id. Never a tag, which
    /// somebody may have moved since.
    pub(super) async fn pinned(&self, kept: &Kept, deadline: Instant) -> Result<String, Failure> {
        if self.engine.image(&kept.image, deadline).await?.is_none() {
            let name = kept.names.first().map(|name| format!(" ({name})")).unwrap_or_default();
            let what = format!("image {}{name} is not on this machine any more", Revision::exact(&kept.image).short());
            return Err(Failure::never(what).advise(match kept.digests.first() {
                Some(digest) => format!("fetch it while there is time: `docker pull {digest}`"),
                None => "it was never in a registry: load it from where it was built (`docker load`)".to_owned(),
            }));
        }
        for digest in &kept.digests {
            let found = self.engine.image(digest, deadline).await?;
            if found.is_some_and(|found| found["Id"] == kept.image.as_str()) {
                return Ok(digest.clone());
            }
        }
        Ok(kept.image.clone())
    }

    /// Lets go of images that no capture in the vault needs.
    pub(super) async fn remove_old(&self, cx: &Cx, before: Timestamp) -> Result<Vec<String>, Failure> {
        let deadline = Instant::now() + cx.limit - cx.limit / 10;
        let project = self.project()?;
        let mut removed = vec![];
        for holder in self.engine.labelled(&[format!("{KEEP}={project}/{}", self.service)], deadline).await? {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let labels = &holder["Config"]["Labels"];
            let made: Option<Timestamp> = text(&holder["Created"]).parse().ok();
            let ran = holder["State"]["Status"] != "created";
            let Ok(snapshot) = serde_json::from_value(labels[SNAPSHOT].clone()) else { continue };
            if ran || made.is_none_or(|at| at >= before) || self.in_vault(snapshot).await? {
                continue;
            }
            self.engine.remove(&text(&holder["Id"]), deadline).await?;
            removed.push(text(&holder["Name"]).trim_start_matches('/').to_owned());
        }
        let held = self.engine.labelled(&[format!("{KEEP}={project}/{}", self.service)], deadline).await?;
        for (tag, image) in self.engine.tags(REPOSITORY, deadline).await? {
            let ours = tag == self.keep_name(&project, &image);
            if !ours || held.iter().any(|holder| holder["Image"] == image.as_str()) {
                continue;
            }
            let found = self.engine.image(&image, deadline).await?.unwrap_or_default();
            let tagged: Option<Timestamp> = found["Metadata"]["LastTagTime"].as_str().and_then(|at| at.parse().ok());
            if tagged.is_none_or(|at| at >= before) {
                continue;
            }
            match self.engine.untag(&format!("{REPOSITORY}:{tag}"), deadline).await {
                Ok(()) => removed.push(format!("{REPOSITORY}:{tag}")),
                // It is in use, by whatever else: then it stays, and so does its name.
                Err(error) => tracing::warn!(%error, tag, "an image is not let go of"),
            }
        }
        Ok(removed)
    }

    async fn in_vault(&self, snapshot: SnapshotId) -> Result<bool, Failure> {
        let captures = self.captures.clone();
        blocking(move |_| captures.vault()?.holds(&snapshot).map_err(|error| vault_failure(&error))).await?
    }
}

fn json_file<T: Serialize>(path: &str, value: &T) -> Result<Source, Failure> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| Failure::never(error.to_string()))?;
    Ok(Source::Bytes { path: path.to_owned(), bytes, mode: 0o600 })
}

/// How many containers a restore makes: as many as there are now, else as many as there were.
pub(super) fn replicas(sight: &Sight, kept: &Kept) -> usize {
    let there = sight.all.iter().filter(|one| one.fares() != Fares::New);
    let numbers: BTreeSet<u32> = there.map(|one| one.number).collect();
    if numbers.is_empty() { kept.replicas.max(1) } else { numbers.len() }
}
