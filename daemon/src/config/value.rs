//! A value of the configuration: which ones a key takes, and how they are written.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use toml::Spanned;
use toml::de::DeValue;

use super::{ForeignFreeze, OnFailure, Strictness};

/// What a key is set to. Displays as TOML, and serializes as what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// Seconds.
    Number(u64),
    /// A path, or one of several words.
    Text(String),
    /// Paths, or names.
    List(Vec<String>),
}

/// Which values a key takes. Displays as the end of the sentence "it must be …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// Whole seconds.
    Seconds(RangeInclusive<u64>),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An absolute path whose name ends so.
    Path(&'static str),
    /// Mount points: absolute paths.
    MountPoints,
    /// Types of file systems.
    Types,
    /// Devices: nodes, names or numbers.
    Devices,
    /// Processes: names, or paths of executables.
    Processes,
}

/// What is wrong with a value: where in the text, if that is not the whole of it, and what.
pub(super) type Wrong = (Option<usize>, String);

impl Kind {
    /// Takes a value of a file.
    ///
    /// # Errors
    /// What is wrong with it, each fault on its own.
    pub(super) fn take(&self, value: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Wrong>> {
        let wrong = || vec![(None, format!("is {}", described(value.get_ref())))];
        match (self, value.get_ref()) {
            (Self::Flag, DeValue::Boolean(flag)) => Ok(Value::Flag(*flag)),
            (Self::Seconds(bounds), DeValue::Integer(number)) => {
                let seconds = u64::from_str_radix(number.as_str(), number.radix()).ok();
                match seconds.filter(|seconds| bounds.contains(seconds)) {
                    Some(seconds) => Ok(Value::Number(seconds)),
                    None => Err(wrong()),
                }
            }
            (Self::Choice(words), DeValue::String(text)) if words.contains(&text.as_ref()) => {
                Ok(Value::Text(text.clone().into_owned()))
            }
            (Self::Path(suffix), DeValue::String(text))
                if is_place(text) && text.ends_with(suffix) =>
            {
                Ok(Value::Text(text.clone().into_owned()))
            }
            (
                Self::MountPoints | Self::Types | Self::Devices | Self::Processes,
                DeValue::Array(elements),
            ) => {
                let mut wrong = Vec::new();
                let mut list = Vec::new();
                for element in elements {
                    match element.get_ref() {
                        DeValue::String(text) if self.takes_element(text) => {
                            list.push(text.clone().into_owned());
                        }
                        other => wrong.push((
                            Some(element.span().start),
                            format!("has the element {}", described(other)),
                        )),
                    }
                }
                if wrong.is_empty() {
                    Ok(Value::List(list))
                } else {
                    Err(wrong)
                }
            }
            _ => Err(wrong()),
        }
    }

    fn takes_element(&self, text: &str) -> bool {
        let is_name = |text: &str| {
            !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        match self {
            Self::MountPoints => is_place(text),
            Self::Types => is_name(text) && !text.contains('/'),
            Self::Processes if text.contains('/') => is_place(text),
            _ => !text.is_empty() && !text.contains(char::is_control),
        }
    }
}

/// An absolute path that a mount table could have.
fn is_place(text: &str) -> bool {
    let path = Path::new(text);
    path.is_absolute()
        && !text.contains('\0')
        && !path
            .components()
            .any(|component| component == Component::ParentDir)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("true or false"),
            Self::Seconds(bounds) => write!(
                f,
                "a whole number of seconds from {} to {}",
                bounds.start(),
                bounds.end()
            ),
            Self::Choice(words) => {
                for (index, word) in words.iter().enumerate() {
                    let before = match index {
                        0 => "",
                        _ if index + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}\"{word}\"")?;
                }
                Ok(())
            }
            Self::Path("") => f.write_str("an absolute path without \"..\""),
            Self::Path(suffix) => {
                write!(
                    f,
                    "an absolute path without \"..\" that ends in \"{suffix}\""
                )
            }
            Self::MountPoints => f.write_str("a list of absolute paths without \"..\""),
            Self::Types => f.write_str("a list of file system types, such as \"ext4\""),
            Self::Devices => f.write_str("a list of devices, such as \"/dev/sdb1\""),
            Self::Processes => f.write_str(
                "a list of names of processes and absolute paths of executables, such as \"pv\"",
            ),
        }
    }
}

/// What was written, for an error: on one line, and not endless.
fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => match text.char_indices().nth(60) {
            Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
            None => format!("{text:?}"),
        },
        DeValue::Integer(number) if number.as_str().len() <= 40 => number.to_string(),
        DeValue::Integer(_) => "a longer number".to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Float(_) => "a number with a fraction".to_owned(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => quote(text, f),
            Self::List(elements) => {
                f.write_str("[")?;
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    quote(element, f)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A basic string of TOML.
pub(super) fn quote(text: &str, f: &mut impl fmt::Write) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A field of the configuration that a value can be put into and taken from. `None`: it is not set.
pub(super) trait Field: Sized {
    fn from_value(value: Value) -> Option<Self>;
    fn to_value(&self) -> Option<Value>;
}

impl Field for bool {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Flag(*self))
    }
}

impl Field for u64 {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }
}

impl Field for PathBuf {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text.into()),
            _ => None,
        }
    }

    fn to_value(&self) -> Option<Value> {
        self.to_str().map(|text| Value::Text(text.to_owned()))
    }
}

impl Field for Vec<String> {
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    fn to_value(&self) -> Option<Value> {
        Some(Value::List(self.clone()))
    }
}

impl Field for Vec<PathBuf> {
    fn from_value(value: Value) -> Option<Self> {
        Vec::<String>::from_value(value).map(|list| list.into_iter().map(PathBuf::from).collect())
    }

    fn to_value(&self) -> Option<Value> {
        let texts = self.iter().map(|path| Some(path.to_str()?.to_owned()));
        texts.collect::<Option<_>>().map(Value::List)
    }
}

impl<T: Field> Field for Option<T> {
    fn from_value(value: Value) -> Option<Self> {
        T::from_value(value).map(Some)
    }

    fn to_value(&self) -> Option<Value> {
        self.as_ref()?.to_value()
    }
}

/// A field that is one of several words.
macro_rules! words {
    ($type:ident, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// The words, the default first.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// As the configuration names it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Field for $type {
            fn from_value(value: Value) -> Option<Self> {
                match value {
                    Value::Text(text) => match text.as_str() {
                        $($word => Some(Self::$variant),)+
                        _ => None,
                    },
                    _ => None,
                }
            }

            fn to_value(&self) -> Option<Value> {
                Some(Value::Text(self.word().to_owned()))
            }
        }
    };
}

words!(
    Strictness,
    Normal = "normal",
    Strict = "strict",
    FlushOnly = "flush-only"
);
words!(ForeignFreeze, Fail = "fail", Accept = "accept");
words!(OnFailure, Abort = "abort", Continue = "continue");
