//! Labellers: from what is known of a topic to a name that people read.
//!
//! [`keywords`] needs no model and no network: it makes a name of the topic's own words. It computes, so it is a
//! plain function. Labellers that ask a language model wait for answers instead, so they will be asynchronous; a
//! trait over both comes with the second of them.

pub mod keywords;

pub use keywords::{KeywordsConfig, TopicName, bertopic_name, keyword_names};

use serde::{Deserialize, Serialize};

/// A labeller as the job file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum LabellerConfig {
    /// Names of the topic's own words.
    Keywords(KeywordsConfig),
}

impl Default for LabellerConfig {
    /// Keywords: they need no model and no network.
    fn default() -> Self {
        Self::Keywords(KeywordsConfig::default())
    }
}
