//! What the user's files come to, as Compose reads them: what somebody would put there next.
//!
//! For people, beside what runs; and for a start that takes up what the files say now, which asks anew. An answer is kept for all
//! services of the project until a file is written that it was made from. Where the files name others that only Compose knows to
//! find, it is kept for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ripcord_core::Failure;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::cli::{Cli, Common, Commons, With};
use crate::components::files::Stop;

/// How long what the files say is taken to be so where not all that is read is known.
const FRESH: Duration = Duration::from_secs(3);

static KNOWN: Commons<Common, Mutex<Option<Known>>> = Commons::new();

/// What the files on disk come to.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OnDisk {
    #[serde(default)]
    services: BTreeMap<String, ServiceOnDisk>,
    /// The whole text, for people.
    #[serde(skip)]
    pub(super) text: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ServiceOnDisk {
    #[serde(default)]
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) environment: Option<BTreeMap<String, Option<String>>>,
}

impl OnDisk {
    pub(super) fn service(&self, name: &str) -> Option<&ServiceOnDisk> {
        self.services.get(name)
    }
}

/// Each file's inode, length and time of change; none where there is none.
type Standing = Vec<Option<(u64, u64, i64, i64)>>;

/// What was said of the files on disk, while they stood so and when.
#[derive(Debug)]
struct Known {
    standing: Standing,
    /// Whether nothing else was read than what is in `standing`.
    whole: bool,
    at: Instant,
    answer: Result<Arc<OnDisk>, Failure>,
}

impl Known {
    fn holds(&self, standing: &Standing) -> bool {
        self.standing == *standing && (self.at.elapsed() < FRESH || (self.whole && self.answer.is_ok()))
    }
}

impl Cli {
    /// The files that say what is on disk, as they stand: whether one was written since an answer was given. And whether they are all
    /// that is read.
    fn standing(&self) -> (Standing, bool) {
        let mut paths: BTreeSet<PathBuf> = self.files().unwrap_or_default().into_iter().collect();
        let named: Vec<Option<BTreeSet<PathBuf>>> = paths.iter().map(|file| self.named_by(file)).collect();
        let whole = named.iter().all(Option::is_some);
        paths.extend(named.into_iter().flatten().flatten());
        paths.extend(self.env_files.iter().cloned().chain([self.directory.join(".env")]));
        let meta = |path: PathBuf| {
            fs::metadata(path).ok().map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        (paths.into_iter().map(meta).collect(), whole)
    }

    /// The env files that a Compose file names. None where it names other files, or in a way that only Compose knows to read.
    fn named_by(&self, file: &Path) -> Option<BTreeSet<PathBuf>> {
        let read: Value = serde_saphyr::from_str(&fs::read_to_string(file).ok()?).ok()?;
        let mut named = vec![];
        env_files_of(&read, &mut named)?;
        Some(named.into_iter().map(|path| self.directory.join(path)).collect())
    }

    /// What the files on disk come to; asked once for all services of a project, until one of the files is written.
    pub(super) async fn on_disk(&self, project: &str, limit: Duration) -> Result<Arc<OnDisk>, Failure> {
        let known = KNOWN.of(self.common(project, &With::Theirs)?);
        // Held while asking: whoever comes second gets the same answer.
        let mut known = known.lock().await;
        let (standing, whole) = self.standing();
        if let Some(known) = known.as_ref().filter(|known| known.holds(&standing)) {
            return known.answer.clone();
        }
        let at = Instant::now();
        let answer = self.on_disk_now(project, limit).await.map(Arc::new);
        *known = Some(Known { standing, whole, at, answer: answer.clone() });
        answer
    }

    /// What the files on disk come to at this moment.
    pub(super) async fn on_disk_now(&self, project: &str, limit: Duration) -> Result<OnDisk, Failure> {
        match self.run(project, &With::Theirs, &["config".to_owned()], limit).await {
            Ok(output) if output.cut => Err(Failure::never("what `config` prints is too long to be read")),
            Ok(output) => match serde_saphyr::from_str::<OnDisk>(&output.stdout) {
                Ok(read) => Ok(OnDisk { text: output.stdout, ..read }),
                Err(error) => Err(Failure::never(format!("what `config` prints cannot be read: {error}"))),
            },
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Unknown(why)) => Err(Failure::later(why)),
        }
    }
}

/// The values of every `env_file` in a Compose file. None where it has others in it, or where a name depends on a variable.
fn env_files_of(value: &Value, found: &mut Vec<String>) -> Option<()> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| env_files_of(item, found)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match key.as_str() {
            "include" => None,
            "extends" if value.get("file").is_some() => None,
            "env_file" | "label_file" => {
                let one = |value: &Value| {
                    let path = value.as_str().or_else(|| value["path"].as_str())?;
                    (!path.contains('$')).then(|| path.to_owned())
                };
                match value {
                    Value::Array(items) => found.extend(items.iter().map(one).collect::<Option<Vec<_>>>()?),
                    value => found.push(one(value)?),
                }
                Some(())
            }
            _ => env_files_of(value, found),
        }),
        _ => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_are_found_where_a_file_names_them_and_nothing_else() {
        let named = |text: &str| {
            let mut found = vec![];
            env_files_of(&serde_saphyr::from_str::<Value>(text).unwrap(), &mut found).map(|()| found)
        };
        let plain = "x-all: &all\n  env_file: common.env\nservices:\n  api:\n    <<: *all\n    image: api:1\n";
        assert!(named(plain).unwrap().iter().all(|path| path == "common.env"));
        let several = "services:\n  api:\n    env_file: [a.env, { path: b.env, required: false }]\n";
        assert_eq!(named(several).unwrap(), ["a.env", "b.env"]);
        assert_eq!(named("services:\n  api:\n    extends: web\n").unwrap(), Vec::<String>::new());
        for other in [
            "include: [other.yaml]\n",
            "services:\n  api:\n    extends: { file: common.yaml, service: web }\n",
            "services:\n  api:\n    env_file: \"${STAGE}.env\"\n",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn what_every_version_prints_is_read() {
        let old = "services:\n  api:\n    environment:\n      ODD: 1e3\n      UNSET: null\n    image: shop/api:1\nversion: '2.4'\n";
        let read: OnDisk = serde_saphyr::from_str(old).unwrap();
        let api = read.service("api").unwrap();
        assert_eq!(api.image.as_deref(), Some("shop/api:1"));
        let environment = api.environment.as_ref().unwrap();
        assert_eq!((environment["ODD"].as_deref(), environment["UNSET"].as_deref()), (Some("1e3"), None));
        let new = "name: shop\nservices:\n  api:\n    command: null\n    image: shop/api:1\n    networks:\n      default: null\n";
        let read: OnDisk = serde_saphyr::from_str(new).unwrap();
        assert!(read.service("api").unwrap().environment.is_none() && read.service("web").is_none());
    }
}
