//! A configuration, whatever is in it, is loaded or refused with reasons that can be shown.

use std::path::Path;

use ripcord_config::{Kinds, Level, Loaded, Report, load_bytes};

/// For a file of a few kilobytes; a report of more would be read by nobody.
const REPORT: usize = 1 << 20;

pub fn judge<K: Kinds>(data: &[u8]) {
    let environments = match one::<K>(data, None) {
        Some(loaded) => loaded.environments,
        None => vec![],
    };
    for environment in environments.iter().take(4) {
        one::<K>(data, Some(environment.as_str()));
    }
    assert!(one::<K>(data, Some("no such environment")).is_none());
}

fn one<K: Kinds>(data: &[u8], environment: Option<&str>) -> Option<Loaded<K>> {
    let load = || load_bytes::<K>("ripcord.yaml", data, Path::new("."), environment);
    match (load(), load()) {
        (Ok(loaded), Ok(again)) => {
            assert_eq!(loaded.application, again.application);
            assert_eq!(loaded.warnings, again.warnings);
            assert_eq!(loaded.warnings.errors(), 0, "{}", loaded.warnings);
            shown(&loaded.warnings);
            Some(loaded)
        }
        (Err(report), Err(again)) => {
            assert_eq!(report, again);
            assert!(report.errors() > 0, "refused without a reason");
            shown(&report);
            None
        }
        _ => panic!("it is loaded once and refused once"),
    }
}

fn shown(report: &Report) {
    for diagnostic in &report.diagnostics {
        assert!(matches!(diagnostic.level, Level::Error | Level::Warning) && !diagnostic.what.is_empty());
        assert!(diagnostic.spot.as_ref().is_none_or(|at| at.line > 0 && at.column > 0 && at.width > 0));
    }
    let plain = report.render(false);
    assert!(plain.len() <= REPORT, "a report of {} bytes", plain.len());
    let steers = plain.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(steers, None, "the report steers the terminal it is shown on: {plain:?}");
    report.render(true);
}
