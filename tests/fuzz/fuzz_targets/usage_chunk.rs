//! Chat Completions streams: a filtered stream is part of what came, however it was cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| relayd::fuzz::usage_chunk(bytes));
