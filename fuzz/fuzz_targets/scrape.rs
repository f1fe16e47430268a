#![no_main]

#[path = "../properties/scrape.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::judge(data));
