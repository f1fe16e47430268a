//! What fuzzing kept, judged as the fuzzer judges it, with the kinds made for tests: see `fuzz/README.md`.

#[path = "../../../../fuzz/properties/config.rs"]
mod config;
#[path = "../../../../fuzz/properties/replay.rs"]
mod replay;

use crate::toy::Toy;

#[test]
fn configurations_are_loaded_or_refused_with_reasons() {
    replay::replay("config", config::judge::<Toy>);
}
