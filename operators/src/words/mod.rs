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
//! | words chosen by what they mean | [`mod@refine`]: [`keybert`], [`mmr`] |
//! | how near texts lie to topics, by their terms | [`topic_space`] |
//! | how a term is written in the texts | [`spelling`] |

pub mod counts;
pub mod ctfidf;
pub mod keybert;
pub mod mmr;
pub mod refine;
pub mod representatives;
pub mod spelling;
pub mod stop_words;
pub mod term_counter;
pub mod tokens;
pub mod topic_space;
pub mod vocabulary;

pub use counts::TermCounts;
pub use ctfidf::{Ctfidf, CtfidfConfig, TopicWords, ctfidf};
pub use keybert::KeybertConfig;
pub use mmr::MmrConfig;
pub use refine::{Embed, Refinement};
pub use representatives::{Representative, TopicRepresentatives, representatives};
pub use spelling::Spellings;
pub use stop_words::StopWords;
pub use term_counter::{Cells, TermCounter};
pub use tokens::{TokenPattern, Tokenizer, Tokens};
pub use topic_space::{DistributionConfig, TopicSpace};
pub use vocabulary::{MinDf, VocabularyConfig};

use crate::Result;
use crate::model::EncoderConfig;
use serde::{Deserialize, Serialize};

/// How topic words are found: the `words` part of a job.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WordsConfig {
    /// Which terms there are.
    pub vocabulary: VocabularyConfig,
    /// How terms are weighted.
    pub ctfidf: CtfidfConfig,
    /// What chooses other words after that, one after the other; needs an encoder. None by default: c-TF-IDF words
    /// need none.
    pub then: Vec<Refinement>,
    /// What embeds words, where the vectors come from a column: the encoder that made those. Absent: the fit's encoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderConfig>,
}

impl WordsConfig {
    /// Fails with the setting that cannot be, and what would do.
    pub fn check(&self) -> Result<()> {
        self.vocabulary.check()?;
        self.ctfidf.check()?;
        self.then.iter().try_for_each(Refinement::check)
    }
}
