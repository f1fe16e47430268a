//! What fuzzing kept, judged as the fuzzer judges it: see `fuzz/README.md`.

#[path = "../../../../fuzz/properties/config.rs"]
mod config;
#[path = "../../../../fuzz/properties/driver.rs"]
mod driver;
#[path = "../../../../fuzz/properties/replay.rs"]
mod replay;
#[path = "../../../../fuzz/properties/scrape.rs"]
mod scrape;

use replay::replay;
use ripcord_adapters::Adapters;

#[test]
fn configurations_are_loaded_or_refused_with_reasons() {
    replay("config", config::judge::<Adapters>);
}

#[test]
fn pages_of_metrics_are_read_whole_or_refused() {
    replay("scrape", scrape::judge);
}

#[test]
fn answers_of_drivers_are_understood_in_one_way() {
    replay("driver", driver::judge);
}
