//! Stop words: the words of a language that carry grammar and no topic.
//!
//! Lists come from the crate `stop-words` (NLTK's list of a language, else the list of stopwords-iso), or are
//! scikit-learn's English list, kept beside this file for parity with models fitted by its `CountVectorizer`.

use crate::{Error, Result};
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

/// scikit-learn's `ENGLISH_STOP_WORDS`, one a line: 318 words collected by the Glasgow Information Retrieval Group,
/// as scikit-learn 1.9 distributes them (Copyright (c) The scikit-learn developers, BSD-3-Clause).
const SKLEARN_ENGLISH: &str = include_str!("sklearn_english.txt");

/// Which words are left out of every vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StopWords {
    /// None.
    None,
    /// Those of a language, by its two-letter ISO 639-1 code.
    Language(String),
    /// scikit-learn's English list. It holds words that name topics ("system", "fire", "bill"): for parity only.
    Sklearn,
    /// Exactly these.
    Words(Vec<String>),
}

impl Default for StopWords {
    /// English: most texts are, and its stop words do no harm to texts in another language.
    fn default() -> Self {
        Self::Language("en".into())
    }
}

impl StopWords {
    /// Returns the words, lower-cased, with straight apostrophes.
    ///
    /// Fails for a language without a list, naming those that have one.
    pub fn to_set(&self) -> Result<FxHashSet<String>> {
        let tidy = |word: &str| word.to_lowercase().replace('’', "'");
        Ok(match self {
            Self::None => FxHashSet::default(),
            Self::Language(code) => {
                let words = stop_words::lookup(code).ok_or_else(|| {
                    let known = stop_words::available_languages().join(", ");
                    Error::setting(
                        "stop_words",
                        format!("no list for language \"{code}\", expected one of {known}"),
                    )
                })?;
                words.iter().map(|word| tidy(word)).collect()
            }
            Self::Sklearn => SKLEARN_ENGLISH.lines().map(String::from).collect(),
            Self::Words(words) => words.iter().map(|word| tidy(word)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_holds_its_own_words() {
        let english = StopWords::default().to_set().unwrap();
        assert!(english.contains("the") && english.contains("don't") && !english.contains("system"));
        let german = StopWords::Language("de".into()).to_set().unwrap();
        assert!(german.contains("und") && !german.contains("the"));
        let japanese = StopWords::Language("ja".into()).to_set().unwrap();
        assert!(!japanese.is_empty());
        let sklearn = StopWords::Sklearn.to_set().unwrap();
        assert!(sklearn.len() == 318 && sklearn.contains("system"));
    }

    #[test]
    fn an_unknown_language_is_refused_with_the_choices() {
        let error = StopWords::Language("xx".into()).to_set().unwrap_err().to_string();
        assert!(error.contains("\"xx\"") && error.contains("en, "), "{error}");
    }
}
