//! Labellers: from what is known of a topic to a name that people read.
//!
//! [`keywords`] needs no model and no network: it makes a name of the topic's own words, and every topic has such a one.
//! [`llm`] asks a language model for a better one, and waits for its answers.

pub mod keywords;
pub mod llm;
pub mod subjects;

pub use keywords::{KeywordsConfig, TopicName, bertopic_name, keyword_names};
pub use llm::NamerConfig;

use crate::Result;
use serde::{Deserialize, Serialize};

/// A labeller as the job file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LabellerConfig {
    /// Names of the topic's own words.
    Keywords(KeywordsConfig),
    /// Names by a language model; those of words where it gives none.
    Llm(Box<NamerConfig>),
}

impl LabellerConfig {
    /// Checks every setting that no network is needed for.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Keywords(_) => Ok(()),
            Self::Llm(llm) => llm.check(),
        }
    }

    /// How names of words are made.
    pub fn keywords(&self) -> KeywordsConfig {
        match self {
            Self::Keywords(keywords) => keywords.clone(),
            Self::Llm(_) => KeywordsConfig::default(),
        }
    }
}

impl Default for LabellerConfig {
    /// Keywords: they need no model and no network.
    fn default() -> Self {
        Self::Keywords(KeywordsConfig::default())
    }
}
