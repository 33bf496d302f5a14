//! Topic words: from texts and their topics to the terms that set each topic apart.
//!
//! One idea: everything is computed from integers. Texts become [`Tokens`] (words as numbers), tokens and labels
//! become [`TermCounts`] (how often each term occurs in each topic), and every weight, name and merge is a function
//! of those counts. Counts add up exactly, so shards, merges and hierarchies give the same words as one pass would.
//!
//! | step | file |
//! |---|---|
//! | text to words | [`tokens`], [`stop_words`] |
//! | words to terms (n-grams) and their counts per topic | [`vocabulary`], [`counts`] |
//! | counts to weighted words | [`mod@ctfidf`] |
//! | the documents that show a topic best | [`mod@representatives`] |
//! | how a term is written in the texts | [`spelling`] |

pub mod counts;
pub mod ctfidf;
pub mod representatives;
pub mod spelling;
pub mod stop_words;
pub mod tokens;
pub mod vocabulary;

pub use counts::TermCounts;
pub use ctfidf::{Ctfidf, CtfidfConfig, TopicWords, ctfidf};
pub use representatives::{Representative, TopicRepresentatives, representatives};
pub use spelling::Spellings;
pub use stop_words::StopWords;
pub use tokens::{TokenPattern, Tokenizer, Tokens};
pub use vocabulary::{MinDf, VocabularyConfig};

use serde::{Deserialize, Serialize};

/// How topic words are found: the `words` part of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WordsConfig {
    /// Which terms there are.
    pub vocabulary: VocabularyConfig,
    /// How terms are weighted.
    pub ctfidf: CtfidfConfig,
}
