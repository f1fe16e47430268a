//! Captures read back and pruned, what was set aside tidied away: with a real vault, in real time, a little faster.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ripcord_core::*;
use ripcord_engine::{Pace, Shelf};
use ripcord_vault::{Label, Source, Vault, VaultKey};

use crate::stage::Stage;
use crate::universe::name;

const PACE: Pace = Pace {
    first: Duration::from_millis(10),
    look: Duration::from_millis(50),
    prove: Duration::from_secs(3600),
    prune: Duration::from_secs(3600),
    tidy: Duration::from_secs(3600),
    again: Duration::from_secs(3600),
};

struct Kept {
    stage: Stage,
    vault: Vault,
    directory: tempfile::TempDir,
}

/// A good release and the live one, each with a capture in the vault that was only written, and one that nothing needs.
async fn kept(configure: impl FnOnce(&mut Application)) -> Kept {
    let mut stage = Stage::empty(configure).await;
    // What the vault holds has the time of the host.
    stage.world.clock = ripcord_engine::Clock::System;
    stage.open().await;
    let directory = tempfile::tempdir().unwrap();
    let key = VaultKey::from_text(&"0123456789abcdef".repeat(4)).unwrap();
    let vault = Vault::open_or_create(&directory.path().join("vault"), &key).unwrap();
    let kept = Kept { stage, vault, directory };
    let captures = [kept.capture("one").await, kept.capture("two").await, kept.capture("three").await];
    let release = |seq: Seq, version: &str, capture: &CaptureId, verdict, standing| Release {
        id: ReleaseId::at(seq),
        version: version.into(),
        origin: Origin::Observed,
        map: BTreeMap::from([(
            code(),
            Recorded {
                revision: Revision::exact(version),
                label: None,
                capture: Some(capture.clone()),
                flowing: false,
            },
        )]),
        config: Digest::ZERO,
        verdict,
        standing,
        at: kept.stage.world.clock.now(),
    };
    kept.write(|seq, entry| {
        let good = Verdict::Good { by: "test".into(), at: entry.at() };
        let old = release(seq, "good", &captures[0], good, Standing::Superseded);
        let new = release(seq.next(), "live", &captures[1], Verdict::Undecided, Standing::Live);
        entry.event(None, None, Body::Recorded { release: Box::new(old) });
        entry.event(None, None, Body::Recorded { release: Box::new(new) });
    })
    .await;
    kept
}

fn code() -> Place {
    Place::local(name("code"))
}

impl Kept {
    async fn write(&self, draft: impl FnOnce(Seq, &mut ripcord_engine::Entry)) {
        self.stage.desk().write(draft).await.unwrap();
    }

    /// Takes a capture and puts it on the record.
    async fn capture(&self, content: &str) -> CaptureId {
        let label = Label {
            app: self.stage.world.app().to_string(),
            capture: content.to_owned(),
            component: "code".into(),
            release: None,
            why: "test".into(),
        };
        // Nothing that compresses to the same few bytes.
        let bytes = Digest::of(content.as_bytes()).to_string().repeat(50).into_bytes();
        let source = Source::Bytes { path: "page".into(), bytes, mode: 0o644 };
        let manifest = self.vault.capture(&label, vec![source]).unwrap();
        let made = Made {
            revision: Revision::exact(content),
            label: None,
            held: HeldIn::Vault { manifest: serde_json::to_value(&manifest).unwrap() },
            bytes: manifest.bytes,
            proof: ProofLevel::Written,
            content: manifest.tree,
        };
        let mut id = None;
        self.write(|seq, entry| {
            let capture = CaptureId::at(seq);
            id = Some(capture.clone());
            let (of, purpose, made) = (code(), CapturePurpose::Protective, Box::new(made));
            entry.event(None, None, Body::Captured { capture, of, purpose, release: None, step: None, made });
        })
        .await;
        id.unwrap()
    }

    fn keep_up(&mut self, pace: Pace) {
        let environments = vec![self.stage.world.app().environment.clone()];
        let shelf = Shelf { vault: self.vault.clone(), environments };
        self.stage.holding.as_mut().unwrap().keep_up(shelf, pace);
    }

    async fn captures(&self) -> Vec<CaptureRow> {
        self.stage.store.captures(self.stage.world.app()).await.unwrap()
    }

    async fn noted(&self, words: &str) -> usize {
        let events = self.stage.events().await;
        events.iter().filter(|event| matches!(&event.body, Body::Noted { text, .. } if text.contains(words))).count()
    }

    /// Whatever is in the vault's packs is not what it was.
    fn damage(&self) {
        let mut open = vec![self.directory.path().join("vault/repository/data")];
        while let Some(path) = open.pop() {
            match path.is_dir() {
                true => open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path())),
                false => flip(&path),
            }
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    let mut permissions = std::fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(path, permissions).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Waits for something, for a time that no slow machine needs.
async fn so(what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !seen().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_one_goes_back_to_is_read_back_and_that_is_on_the_record() {
    let mut kept = kept(|_| {}).await;
    kept.keep_up(PACE);
    so("both are proven", async || {
        kept.captures().await.iter().filter(|row| row.made.proof == ProofLevel::ReadBack).count() == 2
    })
    .await;
    let rows = kept.captures().await;
    assert_eq!(rows[2].made.proof, ProofLevel::Written, "nobody relies on the third");
    assert!(rows.iter().all(|row| row.spoiled.is_none() && !row.pruned));
}

#[tokio::test]
async fn what_is_found_spoiled_is_on_the_record_pages_and_closes_the_way_back() {
    let mut kept = kept(|_| {}).await;
    kept.damage();
    kept.keep_up(PACE);
    so("both are found", async || kept.captures().await.iter().filter(|row| row.spoiled.is_some()).count() == 2).await;
    so("people are told", async || kept.stage.pager.about(About::Incident).len() == 2).await;
    let told = kept.stage.pager.about(About::Incident);
    assert!(told.iter().any(|message| message.body.contains("good (rel-")), "{told:?}");
    assert_eq!(told[0].severity, Some(Severity(1)), "as urgent as can be");
    let ready = ripcord_engine::readiness(&kept.stage.world).await.unwrap();
    assert!(!ready.is_ready() && ready.blockers.iter().any(|why| why.contains("relied on")), "{:?}", ready.blockers);
    // Known to be spoiled they are not read, and nobody is told, again.
    tokio::time::sleep(PACE.look * 4).await;
    assert_eq!(kept.stage.pager.about(About::Incident).len(), 2);
}

#[tokio::test]
async fn what_nothing_needs_is_forgotten() {
    let mut kept = kept(|app| app.policy.keep_captures = Duration::from_millis(1)).await;
    kept.keep_up(PACE);
    so("the third is gone", async || kept.captures().await[2].pruned).await;
    let rows = kept.captures().await;
    assert!(!rows[0].pruned && !rows[1].pruned, "the way back is pinned");
    assert_eq!(kept.vault.list().unwrap().len(), 2);
}

#[tokio::test]
async fn a_capture_that_is_in_no_journal_yet_is_not_forgotten() {
    let mut kept = kept(|app| app.policy.keep_captures = Duration::from_millis(1)).await;
    let (app, component) = ("another".to_owned(), "code".to_owned());
    let label = Label { app, capture: "x".into(), component, release: None, why: "test".into() };
    let source = Source::Bytes { path: "page".into(), bytes: b"on its way".to_vec(), mode: 0o644 };
    let on_its_way = kept.vault.capture(&label, vec![source]).unwrap();
    kept.keep_up(PACE);
    so("the third is gone", async || kept.captures().await[2].pruned).await;
    kept.vault.verify(&on_its_way).unwrap();
}

#[tokio::test]
async fn a_vault_that_cannot_be_read_is_told_once_and_blames_no_capture() {
    let mut kept = kept(|_| {}).await;
    std::fs::remove_dir_all(kept.directory.path().join("vault/repository/index")).unwrap();
    std::fs::remove_file(kept.directory.path().join("vault/repository/config")).unwrap();
    kept.keep_up(Pace { again: Duration::from_millis(1), ..PACE });
    so("it is told", async || !kept.stage.pager.about(About::Blind).is_empty()).await;
    tokio::time::sleep(PACE.look * 6).await;
    assert_eq!(kept.noted("cannot be read back").await, 1);
    assert_eq!(kept.stage.pager.about(About::Blind).len(), 1);
    assert!(kept.captures().await.iter().all(|row| row.spoiled.is_none()));
    // Nor by the next process.
    kept.stage.holding.take().unwrap().finish("restarted").await;
    kept.stage.open().await;
    kept.keep_up(PACE);
    tokio::time::sleep(PACE.look * 6).await;
    assert_eq!(kept.noted("cannot be read back").await, 1);
}

#[tokio::test]
async fn what_was_set_aside_is_tidied_away_and_what_cannot_be_is_told() {
    let mut kept = kept(|_| {}).await;
    kept.stage.universe.with(|truth| {
        truth.aside.insert(code(), Ok(vec!["releases/v1-failed-run-1".into()]));
        truth.aside.insert(Place::local(name("flags")), Err("permission denied".into()));
    });
    kept.keep_up(PACE);
    so("it is on the record", async || kept.noted("releases/v1-failed-run-1").await == 1).await;
    so("and so is what failed", async || kept.noted("`flags` cannot be tidied: permission denied").await == 1).await;
}

#[tokio::test]
async fn nothing_is_done_while_a_deployment_is_under_way_and_everything_after_it() {
    let mut kept = kept(|_| {}).await;
    let live = kept.stage.ledger().await.live().unwrap().id.clone();
    let stands = |standing| Body::Stands { release: live.clone(), standing };
    kept.write(|_, entry| entry.event(None, None, stands(Standing::Deploying))).await;
    kept.keep_up(PACE);
    tokio::time::sleep(PACE.look * 6).await;
    assert!(kept.captures().await.iter().all(|row| row.made.proof == ProofLevel::Written));
    kept.write(|_, entry| entry.event(None, None, stands(Standing::Live))).await;
    so("it is made up for", async || {
        kept.captures().await.iter().filter(|row| row.made.proof == ProofLevel::ReadBack).count() == 2
    })
    .await;
}
