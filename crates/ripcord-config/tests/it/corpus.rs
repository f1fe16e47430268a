//! Files that are right: what they come to, that the schema agrees, and that nothing done to them brings the loader down.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use ripcord_config::{Level, Loaded, Report, load, load_bytes, schema};
use ripcord_core::{Call, Clear, Condition, Hold, Means, Name, SecretRef, Severity, Within};

use crate::toy::Toy;

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(directory);
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn shop(environment: Option<&str>) -> Loaded<Toy> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus/shop.yaml");
    load(&path, environment).unwrap_or_else(|report| panic!("{report}"))
}

fn text(text: &str) -> Result<Loaded<Toy>, Report> {
    load_bytes("ripcord.yaml", text.as_bytes(), Path::new("."), None)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn every_file_of_the_corpus_loads_without_a_word() {
    for path in files("corpus") {
        let loaded = load::<Toy>(&path, None).unwrap_or_else(|report| panic!("{}\n{report}", path.display()));
        assert!(loaded.warnings.is_empty(), "{}\n{}", path.display(), loaded.warnings);
    }
}

#[test]
fn the_smallest_file_has_sensible_defaults() {
    let loaded =
        text("application: shop\ncomponents:\n  code: { git: {} }\n  orders: { sqlite: { path: o.db } }\n").unwrap();
    insta::assert_json_snapshot!(loaded.application, { ".config" => "[digest]" });
    assert_eq!(loaded.vault.directory, Path::new(".ripcord/vault"));
    assert_eq!(loaded.vault.key, SecretRef::File(".ripcord/vault.key".into()));
    assert_eq!(loaded.environments, [name("production")]);
}

#[test]
fn a_block_stands_for_a_component_of_each_name() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus/each.yaml");
    let loaded = load::<Toy>(&path, None).unwrap_or_else(|report| panic!("{report}"));
    let specs = &loaded.application.components;
    let told = |(id, spec): (&ripcord_core::ComponentId, &ripcord_core::ComponentSpec)| {
        let needs: Vec<&str> = spec.needs.iter().map(|need| need.as_str()).collect();
        format!("{id}: {} {:?} {needs:?}", spec.kind, spec.layer)
    };
    let expected = ["api: git Code []", "site: git Ui [\"api\"]", "worker: git Code [\"api\"]"];
    assert_eq!(specs.iter().map(told).collect::<Vec<_>>(), expected);
    let staging = load::<Toy>(&path, Some("staging")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(staging.application.components.len(), 2, "an environment takes one away");
}

#[test]
fn a_whole_file_becomes_an_application() {
    let loaded = shop(None);
    let app = &loaded.application;
    assert_eq!(app.id.to_string(), "shop/production");
    assert!(app.production);
    let web = &app.components[&"web".parse().unwrap()];
    assert_eq!(web.needs.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["code", "settings"]);
    assert_eq!(web.health.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["check-web-1", "check-web-2"]);

    let rate = &app.triggers[&"error-rate".parse().unwrap()];
    assert_eq!(rate.condition, Condition::Above(0.05));
    assert_eq!(rate.hold, Hold::For { at_least: Duration::from_secs(180) });
    assert_eq!(rate.clear, Some(Clear { at: 0.01, at_least: Duration::from_secs(60) }));
    assert_eq!((rate.at_least, rate.interval, rate.severity), (Some(50.0), Duration::from_secs(1), Severity(1)));
    assert_eq!(app.triggers[&"down".parse().unwrap()].condition, Condition::Above(0.0));
    assert_eq!(app.triggers[&"silent".parse().unwrap()].condition, Condition::Absent);
    assert_eq!(app.triggers[&"slow".parse().unwrap()].condition, Condition::AboveBaseline { times: 3.0, floor: 0.2 });
    assert_eq!(app.triggers[&"oom".parse().unwrap()].condition, Condition::Above(5e8));

    // A figure is a signal under another name, or under its own.
    assert_eq!(app.figures[&name("error-share")].as_str(), "errors");
    assert_eq!(app.figures[&name("latency")].as_str(), "latency");
    let outage = &app.matrix.rows[0].ruling;
    assert_eq!((outage.call, outage.within, outage.automatic), (Call::Rollback, Within::Immediate, true));
    assert_eq!(outage.strategy, Some(name("standard")));

    let ladder = &app.strategies[&name("standard")];
    assert_eq!(ladder.iter().map(|rung| rung.level).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(matches!(&ladder[0].means, Means::Set { values } if values.len() == 1));
    assert_eq!(ladder[1].budget, Duration::from_secs(15 * 60));

    // A check written in place brings its signal along.
    assert!(loaded.signals.contains_key(&"front-page".parse().unwrap()));
    assert_eq!(app.checks[&"front-page".parse().unwrap()].assert.text(), "value == 0");
    assert_eq!(app.signals.len(), loaded.signals.len());
}

#[test]
fn an_environment_is_laid_over_the_file() {
    let (production, staging) = (shop(None), shop(Some("staging")));
    let (there, here) = (&production.application, &staging.application);
    assert!(!here.production);
    assert_eq!((here.policy.bake, here.policy.suspect_for), (Duration::from_secs(300), there.policy.suspect_for));
    assert!(!here.components.contains_key(&"orders".parse().unwrap()));
    assert!(here.components[&"web".parse().unwrap()].health.is_empty());
    assert_eq!(here.triggers[&"error-rate".parse().unwrap()].condition, Condition::Above(0.05));
    assert_eq!(here.triggers[&"error-rate".parse().unwrap()].hold, Hold::For { at_least: Duration::from_secs(10) });
    assert_ne!(here.config, there.config);
}

#[test]
fn hosts_and_groups_become_places() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus/hosts.yaml");
    let loaded: Loaded<Toy> = load(&path, None).unwrap_or_else(|report| panic!("{report}"));
    let places: Vec<String> = loaded.application.places().iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        ["api@web1", "api@web2", "api@db", "code@web1", "code@web2", "here", "orders@db"],
        "each host once, in the order written"
    );
    let host = |name: &str| &loaded.hosts[&name.parse().unwrap()];
    assert_eq!((host("web1").ssh.port, host("web1").calls, host("web2").calls), (Some(2222), 8, 2));
    assert_eq!(loaded.signal_hosts[&"page".parse().unwrap()].as_str(), "web2");
    assert_eq!(host("web2").components.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["api", "code"]);
    // A host may ask for what its own components and signals name, and for nothing else.
    let token = SecretRef::Env("API_TOKEN".into());
    assert_eq!(host("web1").secrets, [token.clone()].into());
    assert_eq!(host("web2").secrets, [token, SecretRef::File("secrets/page".into())].into());
    assert_eq!(loaded.text, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn what_is_wrong_in_another_environment_is_a_warning_there_and_an_error_here() {
    let file = "application: shop\ncomponents:\n  code: { git: {} }\nenvironments:\n  production: {}\n  staging: { policy: { bake: 5 } }\n";
    let loaded = text(file).unwrap();
    assert_eq!(loaded.warnings.diagnostics.len(), 1);
    assert_eq!(loaded.warnings.diagnostics[0].level, Level::Warning);
    let report = load_bytes::<Toy>("f", file.as_bytes(), Path::new("."), Some("staging")).err().unwrap();
    assert_eq!(report.errors(), 1);
    let report = load_bytes::<Toy>("f", file.as_bytes(), Path::new("."), Some("stagin")).err().unwrap();
    assert_eq!(report.diagnostics[0].help.as_deref(), Some("did you mean `staging`?"));
}

#[test]
fn the_digest_is_of_what_counts_not_of_how_it_is_written() {
    let digest = |file: &str| text(file).unwrap().application.config;
    let one = digest("application: shop\ncomponents:\n  code: { git: { path: . } }\n");
    assert_eq!(one, digest("# a comment\ncomponents: { code: { git: { path: '.' } } }\napplication: \"shop\"\n"));
    // Another environment's section is not part of this one's configuration.
    let file = "application: shop\ncomponents: { code: { git: { path: . } } }\nenvironments: { production: {}, test: { policy: { bake: 1s } } }\n";
    assert_eq!(one, digest(file));
    assert_ne!(one, digest("application: shop\ncomponents:\n  code: { git: { path: app } }\n"));
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_said_and_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ripcord.yaml");
    let report = load::<Toy>(&path, None).err().unwrap();
    assert!(report.diagnostics[0].what.starts_with("cannot be read: "), "{report}");
    assert_eq!(report.diagnostics[0].help.as_deref(), Some("`ripcord init` writes one"));
    std::fs::write(&path, "# ".repeat(1 << 20)).unwrap();
    assert_eq!(load::<Toy>(&path, None).err().unwrap().diagnostics[0].what, "the file is larger than 1 MiB");
    assert_eq!(
        load::<Toy>(Path::new("/dev/zero"), None).err().unwrap().diagnostics[0].what,
        "the file is larger than 1 MiB"
    );
}

#[test]
fn of_very_many_mistakes_the_first_are_told_and_the_rest_counted() {
    let wrong: String = (0..500).map(|i| format!("  k{i}: {{ gut: 5 }}\n")).collect();
    let report = text(&format!("application: x\ncomponents:\n{wrong}")).err().unwrap();
    assert_eq!(report.diagnostics.len(), 101);
    assert_eq!(report.diagnostics[100].what, "there are 400 more mistakes");
}

#[test]
fn rf29_a_secret_written_by_mistake_is_not_shown() {
    let file =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/broken/secret-in-clear.yaml")).unwrap();
    let report = load_bytes::<Toy>("ripcord.yaml", &file, Path::new("."), None).err().unwrap();
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("hunter2") && !report.render(true).contains("hunter2"), "{json}");
}

#[test]
fn a_report_is_data_too() {
    let report = text("application: shop\ncomponents:\n  web: { git: {}, need: [] }\n").err().unwrap();
    insta::assert_json_snapshot!(report);
}

/// A file as the JSON that an editor would check.
fn as_json(bytes: &[u8]) -> Option<serde_json::Value> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_slice_with_options(bytes, options).ok()
}

#[test]
fn the_schema_accepts_what_loads_and_the_examples_of_all_kinds() {
    let schema = schema::<Toy>();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for path in files("corpus") {
        let value = as_json(&std::fs::read(&path).unwrap()).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
    let mistakes = [
        "unknown-key",
        "unknown-section",
        "unknown-kind",
        "no-kind",
        "wrong-type",
        "secret-in-clear",
        "time-without-unit",
    ];
    for name in mistakes {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/broken/{name}.yaml"));
        let value = as_json(&std::fs::read(path).unwrap()).unwrap();
        assert!(!validator.is_valid(&value), "{name} is valid");
    }
}

#[test]
fn the_reference_names_every_key_and_kind() {
    let reference = ripcord_config::reference::<Toy>();
    insta::assert_snapshot!(reference);
    for kind in ["command", "directory", "env-file", "git", "sqlite", "http", "scrape", "terminal", "webhook"] {
        assert!(reference.contains(&format!("### `{kind}`")), "{kind}");
    }
}

/// Loads whatever is given; that it returns, and renders, is the point.
fn survives(bytes: &[u8]) {
    if let Err(report) = load_bytes::<Toy>("f", bytes, Path::new("."), None) {
        assert!(!report.is_empty() && report.diagnostics.len() <= 101);
        let shown = report.to_string();
        assert!(shown.len() < 4 << 20, "{} bytes of mistakes", shown.len());
        for spot in report.diagnostics.iter().filter_map(|d| d.spot.as_ref()) {
            assert!(spot.line >= 1 && spot.column >= 1 && spot.width >= 1, "{spot:?}");
        }
    }
}

#[test]
fn bombs_end_quickly() {
    let wide: String = (0..20_000).map(|i| format!("k{i}: {{ git: {{}}, needs: [k{}] }}\n", i + 1)).collect();
    survives(format!("application: x\ncomponents:\n  {}", wide.replace('\n', "\n  ")).as_bytes());
    let chain: String = (0..4_000).map(|i| format!("  k{i}: {{ git: , needs: [k{}] }}\n", (i + 1) % 4_000)).collect();
    survives(format!("application: x\ncomponents:\n{chain}").as_bytes());
    survives("[".repeat(100_000).as_bytes());
    survives("{a: ".repeat(100_000).as_bytes());
    survives("- ".repeat(100_000).as_bytes());
    survives("a:\n".repeat(100_000).as_bytes());
    survives(format!("application: {}", "x".repeat(900_000)).as_bytes());
    let merges: String =
        (1..200).map(|i| format!("m{i}: &m{i} {{ <<: [*m{}, *m{}], k{i}: 1 }}\n", i - 1, i - 1)).collect();
    survives(format!("m0: &m0 {{ k: 1 }}\n{merges}").as_bytes());
    let wrong: String = (0..5_000).map(|i| format!("  k{i}: {{ gut: 5 }}\n")).collect();
    survives(format!("application: x\ncomponents:\n{wrong}").as_bytes());
    let rows = |n: usize| -> String {
        (0..n)
            .map(|i| {
                format!(
                    "    - {{ name: r{i}, {}: '> {i}%', {}: '<= {i}%', call: {}, severity: p{} }}\n",
                    ["a", "b"][i % 2],
                    ["c", "d"][i % 2],
                    ["monitor", "evaluate"][i / 7 % 2],
                    i % 3
                )
            })
            .collect()
    };
    let signals: String = ["a", "b", "c", "d"]
        .iter()
        .map(|s| format!("  {s}: {{ scrape: {{ url: http://h, ratio: {{ of: a, to: b }} }} }}\n"))
        .collect();
    for n in [13, 300] {
        let rows = rows(n);
        survives(format!("application: x\ncomponents: {{ a: {{ git: }} }}\nsignals:\n{signals}matrix:\n  otherwise: {{ call: evaluate, severity: p2 }}\n  rows:\n{rows}").as_bytes());
    }
    let list = "[{}], ".repeat(4_000);
    survives(format!("application: x\ncomponents: {{ a: {{ command: {{ start: [{list}] }} }} }}").as_bytes());
}

/// A valid file with pieces of itself, of others and of YAML's own signs put into it.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let sources: Vec<Vec<u8>> =
        files("corpus").into_iter().chain(files("broken")).map(|path| std::fs::read(path).unwrap()).collect();
    let pieces = [
        "", "\t", "&a ", "*a", "${X}", "!!str ", "- ", ": ", "{", "}", "[", "]", "\"", "|\n", "~", "é", "\u{0}", "-1",
        "1e999", "5%", "null",
    ];
    let edit = (any::<prop::sample::Index>(), 0usize..12, prop::sample::select(pieces.to_vec()));
    (prop::sample::select(sources), prop::collection::vec(edit, 1..6)).prop_map(|(mut bytes, edits)| {
        for (at, length, piece) in edits {
            let at = if bytes.is_empty() { 0 } else { at.index(bytes.len()) };
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_brings_it_down(bytes in mutated()) {
        survives(&bytes);
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&bytes);
    }

    #[test]
    fn no_value_brings_it_down(key in "[a-z-]{1,12}", value in "\\PC{0,40}") {
        survives(format!("application: x\ncomponents: {{ a: {{ git: {{}} }} }}\n{key}: {value}\n").as_bytes());
        survives(format!(
            "application: x\ncomponents: {{ a: {{ git: {{}}, health: [ {{ http: {{ url: http://h }}, assert: {} }} ] }} }}\n",
            serde_json::Value::from(value)
        ).as_bytes());
    }
}
