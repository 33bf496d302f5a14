//! Keys and other values that come from the environment or from a file, and that nothing prints.

use crate::{Error, Result};
use reqwest::header::HeaderValue;
use std::fmt;

/// A key.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl Secret {
    /// Checks that `place` says where a key is, and is none itself.
    pub fn check(name: &str, place: &str) -> Result<()> {
        match place.strip_prefix("file:").is_some_and(|path| !path.is_empty()) || variable(place).is_some() {
            true => Ok(()),
            // What stands there may be the key: it is not shown.
            false => {
                Err(Error::setting(name, "says not where the key is, expected ${VARIABLE} or file:PATH"))
            }
        }
    }

    /// Reads the key from its place.
    pub fn read(name: &str, place: &str) -> Result<Self> {
        Self::check(name, place)?;
        let key = match place.strip_prefix("file:") {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Error::setting(name, format!("{path} cannot be read: {e}")))?,
            None => expanded(name, place)?,
        };
        let key = key.trim();
        if key.is_empty() {
            return Err(Error::setting(name, format!("{place} is empty, expected a key")));
        }
        if HeaderValue::from_str(key).is_err() {
            return Err(Error::setting(
                name,
                format!("{place} holds what no key has: a line's end or the like"),
            ));
        }
        Ok(Self(key.to_string()))
    }

    /// The key itself, for a client that takes nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What a request says it in.
    pub(super) fn bearer(&self) -> HeaderValue {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0));
        // Checked when it was read.
        let mut value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    /// `text` without the key: endpoints repeat it in their errors.
    pub(super) fn hide(&self, text: &str) -> String {
        text.replace(&self.0, "(the key)")
    }
}

/// The variable that `${VARIABLE}` names.
fn variable(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("${")?.strip_suffix('}')?;
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some(name)
}

/// `text`, or the value of the variable that it names.
pub fn expanded(name: &str, text: &str) -> Result<String> {
    match variable(text) {
        None => Ok(text.to_string()),
        Some(variable) => std::env::var(variable)
            .map_err(|_| Error::setting(name, format!("the environment has no {variable}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_written_where_its_place_belongs() {
        for place in ["sk-abcdef", "", "$KEY", "${}", "${A B}", "file:"] {
            let error = Secret::check("endpoint.key", place).unwrap_err().to_string();
            assert!(error.contains("${VARIABLE}") && !error.contains("abcdef"), "{error}");
        }
        Secret::check("endpoint.key", "${OPENAI_API_KEY}").unwrap();
        let error = Secret::read("endpoint.key", "${THEMA_NO_SUCH_VARIABLE}").unwrap_err().to_string();
        assert_eq!(error, "endpoint.key: the environment has no THEMA_NO_SUCH_VARIABLE");
    }

    #[test]
    fn a_key_is_read_from_a_file_and_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-abcdef\n").unwrap();
        let key = Secret::read("endpoint.key", &format!("file:{}", path.display())).unwrap();
        assert_eq!(key.bearer().to_str().unwrap(), "Bearer sk-abcdef");
        assert!(!format!("{key:?} {:?}", key.bearer()).contains("abcdef"));
        assert_eq!(key.hide("wrong key: sk-abcdef."), "wrong key: (the key).");
        std::fs::write(&path, "sk\nabc").unwrap();
        let error =
            Secret::read("endpoint.key", &format!("file:{}", path.display())).unwrap_err().to_string();
        assert!(error.contains("no key has") && !error.contains("abc\""), "{error}");
    }
}
