//! What is on the wire, in the four protocols: the head of a request, edits in place, what a reply says about usage
//! and its end, errors and model lists. It sends nothing, and knows no vendor's addresses or credentials.

pub mod chat_completions;
pub mod error;
pub mod fuzz;
pub mod generate_content;
pub mod json;
mod left;
mod mark;
pub mod messages;
pub mod meter;
pub mod models;
mod reading;
pub mod responses;
pub mod scan;
pub mod splice;
pub mod sse;
pub mod usage_chunk;

pub use error::{
    ErrorKind, MODEL_BYTES_MAX, ProtocolError, check_model, client_status, error_body, truncation_event,
};
pub use json::Head;
pub use left::{Left, left_headers};
pub use meter::{Meter, ReplyForm};
pub use reading::{Opening, Reading};
pub use splice::{Edits, Splice};
pub use usage_chunk::UsageChunkFilter;
