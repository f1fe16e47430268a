//! The demonstration's shop: a process that serves, stopped and started around its release.

use crate::bed::Bed;

fn shop(bed: &Bed, args: &[&str]) -> String {
    let mut all = vec!["shop"];
    all.extend(args);
    all.extend(["--dir", "shop"]);
    bed.ok(&all)
}

#[test]
fn a_process_is_stopped_and_started_around_its_release() {
    let exe = env!("CARGO_BIN_EXE_ripcord");
    let config = format!(
        r#"
application: shop
components:
  code: {{ directory: {{ path: shop/current, releases: shop/releases }} }}
  web:
    command:
      start: [{exe}, shop, start, --dir, shop, --port, "0"]
      stop: [{exe}, shop, stop, --dir, shop]
      instance: [sh, -c, "{exe} shop instance --dir shop || true"]
    needs: [code]
policy: {{ watch: 100ms }}
"#
    );
    let bed = Bed::with(&config);
    shop(&bed, &["init"]);
    for version in ["1.0.0", "1.1.0"] {
        shop(&bed, &["release", "--version", version]);
    }
    shop(&bed, &["switch", "--version", "1.0.0"]);
    shop(&bed, &["start", "--port", "0"]);
    bed.ok(&["release", "record", "1.0.0"]);
    bed.ok(&["release", "mark", "1.0.0", "--good", "--why", "it sold"]);
    shop(&bed, &["stop"]);
    shop(&bed, &["switch", "--version", "1.1.0"]);
    shop(&bed, &["start", "--port", "0"]);
    bed.ok(&["release", "record", "1.1.0"]);
    let before = shop(&bed, &["instance"]);
    let ran = bed.run(&["rollback", "--yes"]);
    let after = bed.run(&["shop", "instance", "--dir", "shop"]);
    bed.run(&["shop", "stop", "--dir", "shop"]);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(after.code == Some(0) && after.out != before, "another process runs: {before} {after:#?}");
    assert!(ran.err.contains("done stop/web") && ran.err.contains("done start/web"), "{ran:#?}");
    let link = std::fs::read_link(bed.path("shop/current")).unwrap();
    assert!(link.ends_with("1.0.0"), "{link:?}");
}
