//! The flags that say how topic words are found, for each command that finds them.

use super::{Context, input::load_encoder};
use crate::{Error, Result};
use clap::Args;
use operators::encoders::Encoder;
use operators::fit::FitConfig;
use operators::model::{EncoderConfig, Model};
use operators::words::{KeybertConfig, MinDf, MmrConfig, Refinement, StopWords, TokenPattern, WordsConfig};
use std::sync::Arc;

/// How topic words are found.
#[derive(Debug, Args)]
#[command(next_help_heading = "Topic words")]
pub struct WordsSettings {
    /// What chooses words by their meaning, one after the other: keybert, mmr, or keybert,mmr; none for c-TF-IDF alone
    #[arg(long, value_name = "CHAIN", value_delimiter = ',', value_parser = ["keybert", "mmr", "none"])]
    then: Option<Vec<String>>,
    /// How unlike each other mmr's words are [default: 0.1]
    #[arg(long, value_name = "0..1")]
    diversity: Option<f64>,
    /// What embeds words, where the vectors come from a column: the encoder that made those
    #[arg(long, value_name = "DIR|NAME")]
    words_encoder: Option<String>,
    /// Words left out: those of a language (en, de, ...), sklearn, or none [default: en]
    #[arg(long, value_name = "LIST")]
    stop_words: Option<String>,
    /// Shortest and longest n-gram: 1..2 [default: 1..2]
    #[arg(long, value_name = "A..B", value_parser = parse_ngrams)]
    ngrams: Option<(usize, usize)>,
    /// How many texts must have a word: a number, or a share such as 0.01 [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_min_df)]
    min_df: Option<MinDf>,
    /// What a word is: unicode, or sklearn for that library's tokens [default: unicode]
    #[arg(long, value_name = "PATTERN", value_parser = ["unicode", "sklearn"])]
    tokens: Option<String>,
    /// Words of a topic [default: 10]
    #[arg(long, value_name = "N")]
    top_n_words: Option<usize>,
    /// Weighs words as BM25 does
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    bm25: Option<bool>,
    /// Lowers the weight of frequent words [default: true]
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    reduce_frequent_words: Option<bool>,
}

impl WordsSettings {
    /// Whether any flag is given.
    pub(super) fn is_given(&self) -> bool {
        let Self { then, diversity, words_encoder, stop_words, ngrams, min_df, tokens, top_n_words, .. } =
            self;
        then.is_some()
            || diversity.is_some()
            || words_encoder.is_some()
            || stop_words.is_some()
            || ngrams.is_some()
            || min_df.is_some()
            || tokens.is_some()
            || top_n_words.is_some()
            || self.bm25.is_some()
            || self.reduce_frequent_words.is_some()
    }

    /// Fills in the flags.
    pub(super) fn fill(&self, words: &mut WordsConfig) -> Result<()> {
        if let Some(chain) = &self.then {
            words.then = chain
                .iter()
                .filter_map(|name| match name.as_str() {
                    "keybert" => Some(Refinement::Keybert(KeybertConfig::default())),
                    "mmr" => Some(Refinement::Mmr(MmrConfig::default())),
                    _ => None,
                })
                .collect();
        }
        if let Some(diversity) = self.diversity {
            let mut chosen = words.then.iter_mut().filter_map(|refinement| match refinement {
                Refinement::Mmr(config) => Some(config),
                Refinement::Keybert(_) => None,
            });
            let missing =
                || Error::setting("--diversity", "is mmr's, which is not asked for: add --then mmr");
            chosen.next().ok_or_else(missing)?.diversity = diversity;
        }
        if let Some(place) = &self.words_encoder {
            words.encoder = Some(EncoderConfig { name: Some(place.clone()), ..EncoderConfig::default() });
        }
        if let Some(list) = &self.stop_words {
            words.vocabulary.stop_words = match list.as_str() {
                "none" => StopWords::None,
                "sklearn" => StopWords::Sklearn,
                code => StopWords::Language(code.into()),
            };
            words.vocabulary.stop_words.to_set()?;
        }
        words.vocabulary.ngrams = self.ngrams.unwrap_or(words.vocabulary.ngrams);
        words.vocabulary.min_df = self.min_df.unwrap_or(words.vocabulary.min_df);
        if let Some(pattern) = &self.tokens {
            words.vocabulary.token_pattern =
                if pattern == "sklearn" { TokenPattern::Sklearn } else { TokenPattern::Unicode };
        }
        words.ctfidf.top_n_words = self.top_n_words.unwrap_or(words.ctfidf.top_n_words);
        words.ctfidf.bm25_weighting = self.bm25.unwrap_or(words.ctfidf.bm25_weighting);
        words.ctfidf.reduce_frequent_words =
            self.reduce_frequent_words.unwrap_or(words.ctfidf.reduce_frequent_words);
        Ok(())
    }
}

/// What embeds words: `own`, the encoder of the vectors, or the one that the words' settings name; none where nothing
/// is to be embedded.
///
/// # Errors
/// `Setting` where words are to be embedded and nothing can.
pub(super) async fn words_encoder(
    context: &Context,
    words: &WordsConfig,
    needed: bool,
    own: Option<Arc<Encoder>>,
) -> Result<Option<Arc<Encoder>>> {
    match (&words.encoder, own) {
        _ if !needed => Ok(None),
        (Some(config), _) => Ok(Some(Arc::new(load_encoder(context, config).await?))),
        (None, Some(own)) => Ok(Some(own)),
        (None, None) => Err(operators::describe::needs_encoder().into()),
    }
}

/// What embeds words of a model that was fitted: its own encoder, or the one that `config` names; none where nothing is
/// to be embedded.
///
/// # Errors
/// As [`words_encoder`].
pub(super) async fn own_words_encoder(
    context: &Context,
    model: &Model,
    config: &FitConfig,
) -> Result<Option<Arc<Encoder>>> {
    let needed = !config.words.then.is_empty();
    let own = match &model.encoder {
        Some(_) if needed && config.words.encoder.is_none() => {
            Some(Arc::new(load_encoder(context, &model.settings.encoder).await?))
        }
        _ => None,
    };
    words_encoder(context, &config.words, needed, own).await
}

fn parse_ngrams(text: &str) -> std::result::Result<(usize, usize), String> {
    let wrong = || format!("\"{text}\" is no range of lengths, expected A..B such as 1..2");
    let (shortest, longest) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse().map_err(|_| wrong());
    Ok((number(shortest)?, number(longest)?))
}

fn parse_min_df(text: &str) -> std::result::Result<MinDf, String> {
    match (text.parse(), text.parse()) {
        (Ok(documents), _) => Ok(MinDf::Documents(documents)),
        (_, Ok(share)) => Ok(MinDf::Share(share)),
        _ => Err(format!("\"{text}\" is neither a number of texts nor a share of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_shares_are_read() {
        assert_eq!(parse_ngrams("1..3"), Ok((1, 3)));
        assert!(parse_ngrams("2").is_err() && parse_ngrams("a..2").is_err());
        assert_eq!(parse_min_df("5"), Ok(MinDf::Documents(5)));
        assert_eq!(parse_min_df("0.01"), Ok(MinDf::Share(0.01)));
        assert!(parse_min_df("few").is_err());
    }
}
