#![no_main]

#[path = "../properties/guard.rs"]
mod properties;

// The fuzzer ends at every panic; that the interpreter's are caught is what a guard promises, so only those that get out count.
libfuzzer_sys::fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| if let Err(panic) = std::panic::catch_unwind(|| properties::judge(data)) {
        let why = panic.downcast_ref::<String>().map_or("a promise is broken", String::as_str);
        let _ = std::io::Write::write_all(&mut std::io::stderr(), why.as_bytes());
        std::process::abort();
    }
);
