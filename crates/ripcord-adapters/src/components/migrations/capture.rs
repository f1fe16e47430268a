//! What is kept of a release: the files that made its schema, what the schema is, and what each migration was found to be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::{Available, Before, CaptureId, Cx, Failure, Made, Proof, Wanted};
use ripcord_vault::{Manifest, Source};
use serde::{Deserialize, Serialize};

use super::classes::Judged;
use super::graph::Graph;
use super::record::Tool;
use super::schema::Schema;
use super::{Inner, layout};
use crate::components::files::blocking;
use crate::components::files::captures::{self, vault_failure};

/// Where things lie in a capture.
const ABOUT: &str = "about.json";
const TREE: &str = "tree";

/// What a capture says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct About {
    pub(super) tool: Tool,
    /// What the database said was applied.
    pub(super) marks: BTreeSet<String>,
    pub(super) schema: Schema,
    pub(super) graph: Graph,
    pub(super) judged: BTreeMap<String, Judged>,
}

impl Inner {
    pub(super) async fn capture(self: &Arc<Self>, cx: &Cx, before: &Before, limit: Duration) -> Result<Proof, Failure> {
        let looked = self.look(&self.live).await?;
        if let Some(why) = looked.record.dirty {
            return Err(Failure::never(format!("the schema is no revision: {why}")).advise(DIRTY));
        }
        let graph = layout::graph(self.tool, &self.python, &self.directory, limit).await?;
        let marks = looked.record.marks;
        let unknown = graph.applied(self.tool, &marks).and_then(|applied| {
            match applied.iter().find(|id| !graph.0.contains_key(*id) && !self.is_foreign(&graph, id)) {
                None => Ok(()),
                Some(id) => Err(format!("they do not know `{id}`")),
            }
        });
        let mut judged: BTreeMap<String, Judged> = graph.0.iter().map(|(id, one)| (id.clone(), one.judged())).collect();
        // A run that takes something back has no time for it, and changes nothing that was known before.
        let rehearsed = match self.rehearsal.as_ref().filter(|_| cx.run.is_none()) {
            Some(rehearsal) => Some(self.rehearse(rehearsal, &graph, &marks, &mut judged, limit).await?),
            None => None,
        };
        let revision = self.tool.revision(&marks);
        let label = self.tool.label(&marks);
        let about = About { tool: self.tool, marks, schema: looked.schema, graph, judged };
        let fingerprint = about.schema.fingerprint().short();
        let bytes = serde_json::to_vec(&about).map_err(|error| Failure::never(error.to_string()))?;
        let sources = vec![
            Source::Bytes { path: ABOUT.to_owned(), bytes, mode: 0o600 },
            Source::Tree { path: TREE.to_owned(), root: self.directory.clone(), except: self.except.clone() },
        ];
        let (captures, cx, key) = (self.captures.clone(), cx.clone(), before.key.clone());
        let manifest = blocking(move |_| captures.store(&cx, &key, "the present state", sources)).await??;
        let made = captures::made(revision, Some(label.clone()), &manifest)?;
        let mut found = format!(
            "{label}, {} tables, fingerprint {fingerprint}; files captured and read back",
            about.schema.tables()
        );
        if let Err(why) = unknown {
            found.push_str(&format!("; the files are not those that made it: {why}"));
        }
        if let Some(rehearsed) = rehearsed {
            found.push_str(&format!("; {rehearsed}"));
        }
        Ok(Proof { capture: Some(made), ..Proof::of(found) })
    }

    /// Whether a migration is of an application of Django's that is not part of the project, such as `auth`.
    fn is_foreign(&self, graph: &Graph, id: &str) -> bool {
        let app = |id: &str| id.split_once('.').map(|(app, _)| app.to_owned());
        self.tool == Tool::Django && !graph.0.keys().any(|known| app(known) == app(id))
    }

    /// What a capture says, once it was shown to be what it is said to be.
    pub(super) async fn about(&self, id: &CaptureId) -> Result<About, Failure> {
        let made = self.captures.record(id);
        let made =
            made.ok_or_else(|| Failure::never(format!("the record knows no capture `{id}`")).advise("choose another"))?;
        self.about_made(made).await
    }

    pub(super) async fn about_made(&self, made: Made) -> Result<About, Failure> {
        let (captures, tool) = (self.captures.clone(), self.tool);
        blocking(move |_| {
            let bytes = captures.bytes(&captures::manifest(&made)?, ABOUT)?;
            let about: About = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::never(format!("the capture cannot be read: {error}")))?;
            let is = about.tool.revision(&about.marks);
            match is == made.revision && about.tool == tool {
                true => Ok(about),
                false => {
                    Err(Failure::never(format!("the capture holds {}, not {}", is.short(), made.revision.short())))
                }
            }
        })
        .await?
    }

    pub(super) async fn available(&self, wanted: &Wanted) -> Available {
        let (captures, asked) = (self.captures.clone(), wanted.clone());
        let looked = blocking(move |_| captures.available(&asked)).await;
        looked.unwrap_or_else(|failure| Available::Missing { why: failure.what })
    }

    /// The files of a capture, in a directory of their own.
    pub(super) async fn unpacked(&self, id: &CaptureId) -> Result<Files, Failure> {
        let made = self.captures.record(id);
        let made = made.ok_or_else(|| Failure::never(format!("the record knows no capture `{id}`")))?;
        let captures = self.captures.clone();
        blocking(move |_| {
            let scratch =
                tempfile::tempdir().map_err(|error| Failure::never(format!("no temporary directory: {error}")))?;
            let into = scratch.path().join("capture");
            let manifest: Manifest = captures::manifest(&made)?;
            crate::components::disk::room(scratch.path(), "the captured migrations", made.bytes, 1000)?;
            captures.vault()?.restore(&manifest, &into).map_err(|error| vault_failure(&error))?;
            Ok(Files { root: into.join(TREE), _scratch: Some(scratch) })
        })
        .await?
    }
}

/// What to do about a migration that was begun and not finished.
pub(super) const DIRTY: &str = "see what the migration did and finish or undo it by hand, then set the tool's record right: \
    Ripcord never does, because nobody but you can know";

/// Migrations as they lie on a disk; a scratch directory is gone when this is dropped.
pub(super) struct Files {
    pub(super) root: PathBuf,
    _scratch: Option<tempfile::TempDir>,
}

impl Files {
    pub(super) fn on_disk(directory: &Path) -> Self {
        Self { root: directory.to_owned(), _scratch: None }
    }
}
