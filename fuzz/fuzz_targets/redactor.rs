#![no_main]

#[path = "../properties/redactor.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::judge(data));
