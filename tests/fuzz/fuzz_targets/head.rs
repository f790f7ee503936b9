//! Request bodies: what is accepted stays JSON when it is edited.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| relayd::fuzz::head(bytes));
