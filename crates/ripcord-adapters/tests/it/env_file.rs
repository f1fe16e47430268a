//! Files of `KEY=value` lines, re-read by readers that are not ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use ripcord_core::{Action, Holds, Outcome, Revision, Want, Wanted, Wish};
use serde_json::{Value, json};

use crate::contract::{Rig, Site, hex_noise, run_cx};
use crate::support::{inventory, place, proof, step};

pub struct Env;

impl Rig for Env {
    const KIND: &'static str = "env-file";
    fn settings() -> String {
        "path: app.env".to_owned()
    }
    fn good(site: &Path) {
        let text = format!("# shop\nFEATURE=on\nBIG={}\nTOKEN='s3cret-good'", hex_noise(60_000));
        fs::write(site.join("app.env"), text).unwrap();
        fs::set_permissions(site.join("app.env"), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fn bad(site: &Path) {
        fs::write(site.join("app.env"), "FEATURE=off\nTOKEN='s3cret-bad'\nNEW=1\n").unwrap();
        fs::set_permissions(site.join("app.env"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    fn edit(site: &Path) {
        fs::write(site.join("app.env"), "FEATURE=maybe\n").unwrap();
    }
    fn content(site: &Path) -> String {
        crate::contract::listing(&site.join("app.env"))
    }
}

fn set(values: Value) -> ripcord_core::Step {
    let values: BTreeMap<String, Value> = serde_json::from_value(values).unwrap();
    step("set", Action::Set { values })
}

/// A dotenv reader of a few lines, written from the format's description and not from the crate: the first definition wins, as
/// it does in libraries that do not override what is set.
fn dotenv(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let line = line.trim_start().strip_prefix("export ").unwrap_or(line.trim_start());
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let from = rest.find(quote).unwrap() + 1;
                let mut end = from + rest[from..].find(quote).unwrap();
                while quote == '"' && rest[..end].ends_with('\\') {
                    end = end + 1 + rest[end + 1..].find(quote).unwrap();
                }
                let value = rest[from..end].replace(if quote == '"' { "\\\"" } else { "\0" }, "\"");
                (value, rest[end..].split_once('\n').map_or("", |(_, after)| after))
            }
            _ => (value.split(" #").next().unwrap().trim_end().to_owned(), after),
        };
        found.entry(key.trim_end().to_owned()).or_insert(value);
        rest = after;
    }
    found
}

/// What a shell that sources the file has in `key`.
fn shell(path: &Path, key: &str) -> Option<String> {
    let script = format!("set -a; . \"$1\"; if [ -n \"${{{key}+x}}\" ]; then printf 'is%s' \"${key}\"; fi");
    let output = Command::new("sh").env_clear().args(["-c", &script, "sh"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().strip_prefix("is").map(str::to_owned)
}

#[tokio::test]
async fn rf17_every_reader_reads_the_one_value_and_undo_gives_the_original_bytes() {
    let files = [
        "",
        "A=1\n",
        "A=1",
        "X=1\nA=1\nX=2\n",
        "# X=0\nA=1\n",
        "export X=1\n",
        "export X=\"1\" # why\nA=1\n",
        "X='former\nvalue'\nA=1\n",
        "X=\"former\nvalue\"\nA=1",
        "X=a=b\n",
        "X='a # b'\n",
        "A=1\nX=",
    ];
    let values = [
        "false",
        "",
        "a=b",
        "a b # c",
        "it's",
        "say \"no\"",
        "$HOME",
        "a\nb",
        "https://h/p?q=1&r=2",
        "back\\slash",
        "ünï",
    ];
    let site = Site::new("env-file", "path: app.env");
    let path = site.at("app.env");
    let mut run = 1;
    for file in files {
        fs::write(&path, file).unwrap();
        let (id, made) = site.capture(run).await;
        for value in values {
            run += 1;
            let step = set(json!({ "X": value }));
            let done = proof(site.apply(run, &step).await);
            assert!(!format!("{done:?}").contains("former\nvalue"), "no former value is said");
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(dotenv(&text).get("X").map(String::as_str), Some(value), "{file:?} -> {text:?}");
            assert_eq!(shell(&path, "X").as_deref(), Some(value), "{file:?} -> {text:?}");
            assert_eq!(dotenv(&text).get("A"), dotenv(file).get("A"), "{file:?} -> {text:?}");
            let active = text.lines().filter(|line| line.trim_start_matches("export ").starts_with("X=")).count();
            assert_eq!(active, 1, "{file:?} -> {text:?}");
            let held = site.component().holds(&run_cx(run), &step, None).await;
            assert_eq!(held.holds, Holds::Target);
        }
        run += 1;
        proof(site.apply(run, &set(json!({ "X": null }))).await);
        assert_eq!(shell(&path, "X"), None);
        assert_eq!(dotenv(&fs::read_to_string(&path).unwrap()).get("A"), dotenv(file).get("A"));
        run += 1;
        site.restore(run, &id, &made).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), file, "undo gives the original bytes");
        run += 1;
    }
}

#[tokio::test]
async fn rf17_line_ends_mode_link_and_a_read_only_file_are_kept() {
    let site = Site::new("env-file", "path: app.env");
    fs::create_dir(site.at("shared")).unwrap();
    fs::write(site.at("shared/real.env"), "A=1\r\nX=1\r\n").unwrap();
    fs::set_permissions(site.at("shared/real.env"), fs::Permissions::from_mode(0o440)).unwrap();
    symlink("shared/real.env", site.at("app.env")).unwrap();
    proof(site.apply(1, &set(json!({ "X": true, "Y": 7 }))).await);
    assert_eq!(fs::read(site.at("shared/real.env")).unwrap(), b"A=1\r\nX=true\r\nY=7\r\n");
    assert_eq!(fs::metadata(site.at("shared/real.env")).unwrap().mode() & 0o7777, 0o440);
    assert!(fs::symlink_metadata(site.at("app.env")).unwrap().is_symlink());
    assert_eq!(crate::contract::names(&site.at("shared")), ["real.env"]);
}

#[tokio::test]
async fn rf17_a_set_that_cannot_be_read_alike_is_refused_before_anything() {
    let site = Site::new("env-file", "path: app.env");
    fs::write(site.at("app.env"), "X=1\nY=\"open\n").unwrap();
    let Outcome::Failed(failure) = site.apply(1, &set(json!({ "X": "2" }))).await else { panic!() };
    assert_eq!(failure.what, "app.env: line 2 has a quote that is not closed");
    assert_eq!(fs::read_to_string(site.at("app.env")).unwrap(), "X=1\nY=\"open\n");
    let component = site.component();
    let seen = inventory(component.survey(&run_cx(1), &place(), &[]).await);
    for value in [json!("it's $5"), json!({"a": 1}), json!([1])] {
        let wish = Wish { place: place(), want: Want::Values([("X".to_owned(), value)].into()) };
        component.propose(&wish, &seen).unwrap_err();
    }
    let wish = Wish { place: place(), want: Want::Values([("X".to_owned(), json!(false))].into()) };
    let drafts = component.propose(&wish, &seen).unwrap();
    assert_eq!(drafts[0].shown.words, "set X to false in app.env");
}

#[tokio::test]
async fn rf18_a_restart_of_the_readers_is_part_of_the_plan() {
    let site = Site::new("env-file", "path: app.env");
    assert_eq!(site.component().capabilities().readers, ripcord_core::Readers::Restart);
    let hot = Site::new("env-file", "path: app.env\nreaders: hot");
    assert_eq!(hot.component().capabilities().readers, ripcord_core::Readers::Hot);
}

#[tokio::test]
async fn rf29_names_are_said_and_values_never() {
    let site = Site::of::<Env>();
    let (id, made) = site.capture(1).await;
    Env::bad(&site.path());
    let wanted = Wanted { revision: made.revision.clone(), capture: Some(id.clone()) };
    let survey = site.component().survey(&run_cx(1), &place(), &[wanted]).await;
    assert_eq!(survey.facts["keys"], "FEATURE, NEW, TOKEN");
    let differs = survey.facts.iter().find(|(name, _)| name.starts_with("differs from")).unwrap().1;
    assert_eq!(differs, "FEATURE (changed), NEW (added since), TOKEN (changed), BIG (removed since)");
    let done = site.restore(2, &id, &made).await;
    let said = format!("{survey:?} {made:?} {done:?}");
    for secret in ["s3cret-good", "s3cret-bad"] {
        assert!(!said.contains(secret));
        let mut open = vec![site.dir.path().to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.file_name().unwrap() != "app.env" {
                let bytes = fs::read(&path).unwrap();
                assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", path.display());
            }
        }
    }
    // Without the key a guess cannot be tested against the record.
    let Revision::Exact(id) = made.revision else { panic!() };
    assert!(
        id.0.starts_with("hmac:")
            && !id.0.contains(&ripcord_core::Digest::of(&fs::read(site.at("app.env")).unwrap()).hex())
    );
}

#[tokio::test]
async fn a_release_whose_file_lacks_a_required_key_is_not_gone_back_to() {
    let require = "path: app.env\nrequire: [DATABASE_URL, SECRET_KEY, MODE]";
    let site = Site::new("env-file", require);
    let prove = async |file: &str| {
        fs::write(site.at("app.env"), file).unwrap();
        let (id, made) = site.capture(1).await;
        let action = Action::Prove { revision: made.revision.clone(), capture: Some(id) };
        site.apply(2, &step("prove", action)).await
    };
    let lacks = async |file: &str| match prove(file).await {
        Outcome::Failed(failure) => {
            assert!(failure.advice.unwrap().contains("`require`"));
            assert!(!failure.what.contains("s3cret"), "{}", failure.what);
            failure.what
        }
        other => panic!("{file}: {other:?}"),
    };
    let whole = "DATABASE_URL=postgres://s3cret@db/shop\nSECRET_KEY='s3cret'\nMODE=live\nOTHER=\n";
    assert!(matches!(prove(whole).await, Outcome::Done(_)));
    assert_eq!(
        lacks("DATABASE_URL=\nSECRET_KEY=' '\n# MODE=s3cret\nOTHER=s3cret\n").await,
        "the captured app.env: `DATABASE_URL` is empty, `SECRET_KEY` is empty, `MODE` is not there"
    );
    // The last definition is what a reader gets.
    assert_eq!(lacks(&format!("{whole}MODE=\n")).await, "the captured app.env: `MODE` is empty");
    assert_eq!(lacks("DATABASE_URL=\"s3cret\n").await, "the captured app.env: line 1 has a quote that is not closed");
    let away = step("prove", Action::Prove { revision: Revision::Absent, capture: None });
    let Outcome::Failed(failure) = site.apply(2, &away).await else { panic!() };
    assert!(failure.what.starts_with("without app.env: `DATABASE_URL` is not there, "), "{}", failure.what);

    fs::write(site.at("app.env"), "DATABASE_URL=s3cret\nMODE=live\n").unwrap();
    let survey = site.component().survey(&run_cx(1), &place(), &[]).await;
    assert_eq!(survey.facts["required, and lacking"], "`SECRET_KEY` is not there");
    let without = site.with("path: app.env");
    assert!(matches!(without.apply(2, &away).await, Outcome::Done(_)), "nothing is required");
    let survey = without.component().survey(&run_cx(1), &place(), &[]).await;
    assert!(!survey.facts.contains_key("required, and lacking"));
}

#[test]
fn a_required_key_is_a_name() {
    use ripcord_adapters::{Adapters, ComponentSettings};
    use ripcord_config::Kinds;
    let settings = serde_saphyr::from_str("path: app.env\nrequire: [A_1, app.mode, 'A=1', '', 'A B']").unwrap();
    let mistakes = Adapters::check_component(&ComponentSettings::EnvFile(settings));
    let said: Vec<_> = mistakes.into_iter().map(|mistake| (mistake.what, mistake.field.unwrap())).collect();
    let expected = [("`A=1` is no key", "require.2"), ("`` is no key", "require.3"), ("`A B` is no key", "require.4")];
    assert_eq!(said, expected.map(|(what, field)| (what.to_owned(), field.to_owned())));
}

#[tokio::test]
async fn hard_links_are_noted() {
    let site = Site::new("env-file", "path: app.env");
    fs::write(site.at("app.env"), "X=1\n").unwrap();
    fs::hard_link(site.at("app.env"), site.at("other.env")).unwrap();
    let done = proof(site.apply(1, &set(json!({ "X": "2" }))).await);
    assert!(done.found.contains("hard links keep the former content"), "{}", done.found);
    assert_eq!(fs::read_to_string(site.at("other.env")).unwrap(), "X=1\n");
}

/// The reader most files are for: Compose 2 or newer, as `docker-compose` or where `RIPCORD_TEST_COMPOSE` says.
#[cfg(feature = "real")]
#[tokio::test]
async fn rf17_compose_reads_what_was_set() {
    let values = ["false", "a=b", "a b # c", "it's", "say \"no\"", "$HOME", "a\nb", ""];
    let site = Site::new("env-file", "path: app.env");
    fs::write(site.at("compose.yaml"), "services:\n  web:\n    image: x\n    env_file: app.env\n").unwrap();
    for (run, value) in values.into_iter().enumerate() {
        fs::write(site.at("app.env"), "X=\"1\"\nA=1\nX=2").unwrap();
        proof(site.apply(run as u64 + 1, &set(json!({ "X": value }))).await);
        let compose = std::env::var("RIPCORD_TEST_COMPOSE").unwrap_or("docker-compose".to_owned());
        let arguments = ["-f", "compose.yaml", "config", "--format", "json"];
        let output = Command::new(compose).args(arguments).current_dir(site.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config: Value = serde_json::from_slice(&output.stdout).unwrap();
        let read = config["services"]["web"]["environment"]["X"].as_str().unwrap().replace("$$", "$");
        assert_eq!(read, value, "{}", fs::read_to_string(site.at("app.env")).unwrap());
    }
}
