#![no_main]

#[path = "../properties/config.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::judge::<ripcord_adapters::Adapters>(data));
