//! Every file under `broken/` has the mistake it is named after. What is said about it is a feature, so it is kept whole.

use std::path::Path;

use ripcord_config::load_bytes;

use crate::toy::Toy;

#[test]
fn every_mistake_is_told_with_its_line_and_what_to_do() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/broken");
    let mut names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 30, "{} files", names.len());
    let mut helpless = vec![];
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let report = match load_bytes::<Toy>("ripcord.yaml", &bytes, Path::new("."), None) {
            Err(report) => report,
            Ok(loaded) => loaded.warnings,
        };
        assert!(!report.is_empty(), "{name} is not wrong");
        helpless.extend(report.diagnostics.iter().filter(|d| d.help.is_none()).map(|d| format!("{name}: {}", d.what)));
        insta::with_settings!({ snapshot_path => "snapshots/broken", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, report.to_string());
        });
    }
    assert!(helpless.is_empty(), "without help: {helpless:#?}");
}
