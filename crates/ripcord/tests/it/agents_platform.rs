//! `examples/agents-platform` as somebody runs it: PostgreSQL, Redis and Alembic, five bad releases, and each taken back by its own
//! procedure. What it finds from outside it checks by itself, and ends with an error where it is not so.

use std::process::{Command, Stdio};

use crate::bed::ran;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/agents-platform");

#[test]
fn the_agents_platform_is_taken_back_by_each_of_its_procedures() {
    let mut command = Command::new("timeout");
    // Every wait in it has an end of its own; this is for when it should hang. At its end everything it started is stopped, which a
    // signal does not keep it from.
    command.args(["-k", "60", "2400", "./run.sh"]).current_dir(EXAMPLE).stdin(Stdio::null());
    command.env("RIPCORD", env!("CARGO_BIN_EXE_ripcord")).env_remove("RIPCORD_STATE").env_remove("KEEP");
    // Made once: it takes a network.
    command.env("VENV", concat!(env!("CARGO_TARGET_TMPDIR"), "/agents-platform-venv"));
    let ran = ran(command.output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let words = [
        // One feature.
        "set /features/summaries to false in flags.json",
        r#"{"detail": "Feature disabled"}"#,
        // Code, and a schema that is left alone.
        "it only adds or loosens: column agents.model",
        // A migration down one step: what is in the way by its keys, and what is given up in figures.
        "2 rows of public.agents have the same tenant, name: id",
        "take back migration 0003",
        "rows of schema.public.task_costs",
        // The database, with consent to so many rows of each table.
        "rows of database.public.tasks",
        // Everything.
        "stop/worker stop/api",
        "start/api start/worker",
        "tasks given while the worker stood still: all done",
    ];
    for word in words {
        assert!(ran.out.contains(word), "{word}: {ran:#?}");
    }
}
