//! Types whose JSON is their text form: what they print is what they are written as, and what parses is read.

/// Serialises by `Display` and deserialises by `FromStr`.
macro_rules! json_by_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        $crate::domain::text::read_by_text!($type);
    };
}

/// Deserialises by `FromStr`.
macro_rules! read_by_text {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(super) use {json_by_text, read_by_text};
