//! What `init` writes is what the loader reads.

use std::path::Path;

use ripcord_config::{Draft, init, load_bytes};

use crate::toy::Toy;

fn in_a_directory(files: &[(&str, &[u8])]) -> Draft {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("Web Shop");
    std::fs::create_dir(&directory).unwrap();
    for (name, bytes) in files {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let draft = init::<Toy>(&directory).unwrap();
    match load_bytes::<Toy>("ripcord.yaml", draft.text.as_bytes(), Path::new("."), None) {
        Ok(loaded) => assert!(loaded.warnings.is_empty(), "{}\n{}", draft.text, loaded.warnings),
        Err(report) => panic!("{}\n{report}", draft.text),
    }
    draft
}

const SQLITE: &[u8] = b"SQLite format 3\0 and what follows";

#[test]
fn everything_found_is_in_the_file_or_hinted_at() {
    let draft = in_a_directory(&[
        (".git/HEAD", b"ref: refs/heads/main\n"),
        (".env", b"A=b\n"),
        (".env.example", b"A=\n"),
        ("flags.json", b"{}"),
        ("data/orders.db", SQLITE),
        ("thumbs.db", b"something else"),
        ("package.json", br#"{ "name": "@acme/Web-Shop" }"#),
        ("docker-compose.yml", b"services: {}\n"),
        ("alembic.ini", b""),
    ]);
    insta::assert_snapshot!(draft.text);
    let found: Vec<_> = draft.found.iter().map(|f| (f.path.as_str(), f.component.as_deref())).collect();
    assert_eq!(
        found,
        [
            (".", Some("code")),
            (".env", Some("settings")),
            // These kinds do not know `json-file`: it is found, and not used.
            ("flags.json", None),
            ("data/orders.db", Some("orders")),
            ("docker-compose.yml", None),
            ("package.json", None),
            ("alembic.ini", None),
        ]
    );
}

#[test]
fn an_empty_directory_gets_an_example() {
    let draft = in_a_directory(&[]);
    assert!(draft.found.is_empty());
    assert!(draft.text.contains("application: web-shop"), "{}", draft.text);
    assert!(draft.text.contains("to be replaced"), "{}", draft.text);
}

#[test]
fn only_data_gets_a_level_that_names_it() {
    let draft = in_a_directory(&[("orders.db", SQLITE), ("Orders.sqlite", SQLITE)]);
    assert!(draft.text.contains("restore: [orders, orders-2]"), "{}", draft.text);
}

#[test]
fn strange_names_are_quoted_or_left_out() {
    in_a_directory(&[
        (".env.a: b # c", b""),
        (".env.${X}", b""),
        ("ü\".db", SQLITE),
        ("1.5.db", SQLITE),
        ("pyproject.toml", b"name = \"\xc3\xa4\""),
    ]);
}
