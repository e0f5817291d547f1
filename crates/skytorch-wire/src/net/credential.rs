//! Tokens, certificates and keys: given, or in files.
//!
//! It is not a cache: a file is read anew for each use, so that it may be replaced while the process runs. What a
//! credential holds never shows in `Debug`, and so in no log.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use http::HeaderValue;

use crate::error::{Result, WireError};

/// See the module.
#[derive(Clone)]
pub enum Credential {
    /// The thing itself.
    Given(Vec<u8>),
    /// Where it is.
    File(PathBuf),
}

impl Credential {
    /// What it holds now. `what` names it in an error.
    pub(crate) fn read(&self, what: &str) -> Result<Cow<'_, [u8]>> {
        match self {
            Credential::Given(bytes) => Ok(Cow::Borrowed(bytes)),
            Credential::File(path) => std::fs::read(path).map(Cow::Owned).map_err(|e| {
                WireError::argument(format!("the file of the {what}, {}, cannot be read: {e}", path.display()))
            }),
        }
    }

    /// The token that it holds now: never an empty one, and without the white space around it.
    pub(crate) fn token(&self) -> Result<Vec<u8>> {
        let bytes = self.read("token")?;
        let token = bytes.trim_ascii();
        if token.is_empty() {
            let place =
                if let Credential::File(path) = self { format!(" in {}", path.display()) } else { String::new() };
            return Err(WireError::argument(format!("the token{place} is empty; give a long random one")));
        }
        Ok(token.to_vec())
    }

    /// The token as the value of an `authorization` header.
    pub(crate) fn bearer(&self) -> Result<HeaderValue> {
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", &self.token()?[..]].concat()).map_err(|_| {
            WireError::argument("the token holds characters that a header cannot carry; use plain ASCII")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Given(_) => f.write_str("Given(..)"),
            Credential::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl<T: Into<Vec<u8>>> From<T> for Credential {
    fn from(given: T) -> Credential {
        Credential::Given(given.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_in_debug() {
        assert_eq!(format!("{:?}", Some(Credential::from("hunter2"))), "Some(Given(..))");
    }

    #[test]
    fn a_token_is_trimmed_and_never_empty() {
        assert_eq!(Credential::from(" a\n").token().unwrap(), b"a");
        for nothing in ["", "\n"] {
            assert!(Credential::from(nothing).token().unwrap_err().message.contains("empty"));
        }
        let missing = Credential::File("/nowhere/token".into());
        assert!(missing.bearer().unwrap_err().message.contains("/nowhere/token"));
    }
}
