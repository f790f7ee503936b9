//! Replies: what is read does not depend on how the bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| relayd::fuzz::meter(bytes));
