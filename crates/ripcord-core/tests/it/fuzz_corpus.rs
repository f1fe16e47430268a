//! What fuzzing kept, judged as the fuzzer judges it: see `fuzz/README.md`.

#[path = "../../../../fuzz/properties/guard.rs"]
mod guard;
#[path = "../../../../fuzz/properties/redactor.rs"]
mod redactor;
#[expect(clippy::disallowed_methods, reason = "the test reads the corpus; the core still reads no files")]
#[path = "../../../../fuzz/properties/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn conditions_have_one_answer() {
    replay("guard", guard::judge);
}

#[test]
fn no_form_of_a_secret_is_left() {
    replay("redactor", redactor::judge);
}
