//! Labellers: from what is known of a topic to a name that people read.
//!
//! [`keywords`] needs no model and no network: it makes a name of the topic's own words. It computes, so it is a
//! plain function. Labellers that ask a language model wait for answers instead, so they will be asynchronous; a
//! trait over both comes with the second of them.

pub mod keywords;

pub use keywords::{KeywordsConfig, TopicName, bertopic_name, keyword_names};
