//! `examples/agentic-platform/data.sh` as anybody would run it, with real servers of PostgreSQL, Redis and etcd and the real Alembic.
//!
//! The script asks the servers' own clients after every step, and ends at the first thing that is not as it should be. Here it is seen
//! that it came to its end, what somebody outside found on the way, what was said about it, and that nothing is left of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::bed::ran;

const STORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agentic-platform/data.sh");
const SETTINGS: &str = "config/database/pool_size=10 config/features/planning=on config/redis/max_connections=50";

#[test]
fn data_goes_back_as_far_as_it_must() {
    let dir = tempfile::tempdir().unwrap();
    // PostgreSQL's own user has its data in it.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    // It has times of its own for everything; this is for when it should hang.
    let mut story = Command::new("timeout");
    story.args(["-k", "60", "2400", STORY]).env("RIPCORD", env!("CARGO_BIN_EXE_ripcord")).env("TMPDIR", dir.path());
    story.env_remove("RIPCORD_STATE").env_remove("KEEP").stdin(Stdio::null());
    let story = ran(story.output().unwrap());
    assert_eq!(story.code, Some(0), "{}\n---\n{}", story.out, story.err);

    let outside: Vec<&str> = story.out.lines().filter_map(|line| line.strip_prefix("from outside: ")).collect();
    let found = [
        "v1.0.0 on schema 0001, 300 tasks", // deployed
        "v1.0.0 on schema 0001, 300 tasks", // settings put back
        "v1.0.0 on schema 0002, 300 tasks", // code and cache taken back, the schema left
        "v1.0.0 on schema 0003, 300 tasks", // a migration failed
        "v1.0.0 on schema 0002, 300 tasks", // down by one
        "v1.2.1 on schema 0004, 300 tasks", // fixed forward
        "v1.3.0 on schema 0005, 305 tasks", // results dropped, and written since
        "v1.2.1 on schema 0004, 300 tasks", // the database taken back
        "v1.2.1 on schema 0004, 305 tasks", // and what was salvaged brought back
    ];
    let found = found.map(|what| format!("{what}, 0 of 30 pages failed; {SETTINGS}"));
    assert_eq!(outside, found, "{}\n---\n{}", story.out, story.err);

    // What the screen is too narrow for ends in two dots: these are the beginnings.
    let said = format!("{}{}", story.out, story.err);
    for words in [
        "put 2 keys (database/pool_size, redis/max_connections), delete 1 key (features/turbo), in one transaction",
        "unlink 3 keys at redis://127.0.0.1:",
        "was deployed half way: `./deploy.sh` ended with exit status: 1; changed: `schema`",
        "decided: fix forward; row `failed migration`",
        "take back migration 0003 (tasks have no empty titles): migration 0003 taken back: the database is at 0002",
        "there is no way back over `0005` (results are no longer kept with tasks)",
        "drops column tasks.result: fix forward, or restore the database to a point before it",
        "schema  comes back with `database`, which holds it",
        "error: the plan gives data up, and nobody consented to it",
        "restored to a scratch database and compared",
        "| `database.public.tasks` | 5 | 0 | 0 | 5 |",
    ] {
        assert!(said.contains(words), "`{words}` is not said in\n{}\n---\n{}", story.out, story.err);
    }
    assert!(!said.contains("take back migration 0002"), "v1.0.0 runs on the schema of v1.1.0: {}", story.err);

    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
