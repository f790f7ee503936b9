//! Reads JSON where it lies: the head of a request body, and single values of a reply. Structure is checked
//! strictly; what stands inside strings that nobody reads is passed over. It builds no trees.

mod cursor;
mod elsewhere;
mod head;
mod value;

#[cfg(test)]
mod tests;

pub use head::Head;
pub(super) use value::{Members, Value, unescape};
