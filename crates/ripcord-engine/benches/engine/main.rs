//! Speed and size of what carries a rollback out: on a real disk, in real time, where it says so with the real binary.
//!
//! `engine WHAT [ARGUMENTS]` prints one line for each figure: name, figure, what is wanted, and the ratio of the two, separated by
//! tabs; everything else goes to standard error. Nothing is asserted here: `benches/run.sh` runs all of it and prints the table.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has to stop")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are printed")]

mod chain; // what a step costs beside its two commits
mod child; // the real binary, run and timed
mod detect; // from a fault to a decision
mod figures; // medians and lines of the table
mod restore; // a rollback beside its critical path
mod server; // an application to be watched
mod status; // how things stand, after 10,000 events
mod watch; // what watching costs
mod world; // an application in memory, a record on disk

use std::path::PathBuf;

const USE: &str = "\
use: engine chain [STEPS=1000] [ROUNDS=9]   a chain of empty steps, and bare commits
     engine chain-once STEPS                the chain alone, for counting its fsyncs
     engine commits-once STEPS              two bare commits a step alone, for counting theirs
     engine restore [ROUNDS=5]              a rollback of 12 components
     engine detect RIPCORD [RUNS=30]        from a fault to a decision
     engine watch RIPCORD [SECONDS=60]      1,000 triggers over 20 signals
     engine status RIPCORD [RUNS=20]        `ripcord status` over 10,000 events";

fn main() {
    // `cargo bench` adds `--bench`, which says nothing here.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let number = |n: usize, default: usize| words.get(n).map_or(default, |word| word.parse().expect("a number"));
    let ripcord = || PathBuf::from(words.get(1).expect("where the binary is"));
    match words.first().map(String::as_str) {
        Some("chain") => chain::compare(number(1, 1000), number(2, 9)),
        Some("chain-once") => chain::chain_once(number(1, 1000)),
        Some("commits-once") => chain::commits_once(number(1, 1000)),
        Some("restore") => restore::measure(number(1, 5)),
        Some("detect") => detect::measure(&ripcord(), number(2, 30)),
        Some("watch") => watch::measure(&ripcord(), number(2, 60)),
        Some("status") => status::measure(&ripcord(), number(2, 20)),
        // Both need nothing but this program.
        None => {
            chain::compare(1000, 9);
            restore::measure(5);
        }
        Some(_) => {
            eprintln!("{USE}");
            std::process::exit(2);
        }
    }
}
