//! What a fit asks of endpoints: tokens, and money where prices are known.

use super::Workload;
use crate::Result;
use crate::endpoint::Budget;
use crate::labellers::LabellerConfig;
use crate::labellers::llm::NamerConfig;
use crate::labellers::subjects::Cut;
use crate::llm::ChatConfig;
use crate::llm::prompts::{Prompt, Prompts};
use crate::model::EncoderConfig;
use crate::taxonomy::llm::TaxonomyConfig;
use serde::Serialize;

/// Bytes a token has at least, nearly, as budgets count them: what is planned is rather too much.
const BYTES_PER_TOKEN: f64 = 3.0;

/// Bytes of a word and what stands between words.
const WORD_BYTES: f64 = 10.0;

/// Bytes of a topic as a taxonomy's questions list it: number, name, size, six words.
const TOPIC_BYTES: f64 = 120.0;

/// Tokens of an answer: of a name, and of a topic's place and definition in a taxonomy.
const NAME_TOKENS: f64 = 15.0;
const PLACE_TOKENS: f64 = 70.0;

/// What a step asks of its endpoint, if no answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Asked {
    /// The step: vectors, names or taxonomy.
    pub step: &'static str,
    /// Tokens of questions and answers.
    pub tokens: f64,
    /// Money, in the currency of the prices; nothing where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
}

impl Asked {
    fn of(step: &'static str, (input, output): (f64, f64), budget: &Budget) -> Self {
        Self { step, tokens: (input + output).round(), money: budget.price_of(input, output) }
    }
}

impl Workload<'_> {
    /// What the steps of a fit ask of endpoints, in their order; `encoder` makes its vectors.
    ///
    /// # Errors
    /// `Setting` for prompts that cannot be read.
    pub fn asked(&self, encoder: &EncoderConfig) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        if let Some(remote) = &encoder.remote {
            let most = remote.max_characters.map_or(f64::INFINITY, |most| most as f64);
            let tokens = self.rows as f64 * self.texts.text_bytes.min(most) / BYTES_PER_TOKEN;
            asked.push(Asked::of("vectors", (tokens, 0.0), &remote.endpoint.budget));
        }
        if let LabellerConfig::Llm(namer) = &self.config.labeller {
            asked.push(self.names_asked(namer)?);
        }
        if let TaxonomyConfig::Llm(chat) = &self.config.taxonomy {
            asked.push(self.taxonomy_asked(chat)?);
        }
        Ok(asked)
    }

    fn names_asked(&self, config: &NamerConfig) -> Result<Asked> {
        use crate::labellers::llm::NameMode::{Label, Rated, Words};
        let prompts = Prompts::load(config.chat.prompts.as_deref())?;
        let prompt = match config.mode {
            Label => &prompts.label,
            Words => &prompts.words,
            Rated => &prompts.rated,
        };
        let cut = match config.examples.cut {
            Cut::Characters(most) => most as f64,
            Cut::Tokens(most) => most as f64 * WORD_BYTES,
        };
        let words = config.keywords as f64 + 6.0 * config.siblings as f64;
        let examples = config.examples.count as f64 * self.texts.shown_bytes.min(cut);
        let bytes = prompt_bytes(prompt) + WORD_BYTES * words + examples;
        let topics = self.topics();
        let tokens = (topics * bytes / BYTES_PER_TOKEN, topics * NAME_TOKENS);
        Ok(Asked::of("names", tokens, &config.chat.endpoint.budget))
    }

    /// One question lists all topics, and one a class lists those of the class again.
    fn taxonomy_asked(&self, chat: &ChatConfig) -> Result<Asked> {
        let prompts = Prompts::load(chat.prompts.as_deref())?;
        let topics = self.topics();
        let classes = topics.sqrt().ceil();
        let bytes = prompt_bytes(&prompts.taxonomy)
            + classes * prompt_bytes(&prompts.definitions)
            + 2.0 * topics * TOPIC_BYTES;
        let tokens = (bytes / BYTES_PER_TOKEN, topics * PLACE_TOKENS);
        Ok(Asked::of("taxonomy", tokens, &chat.endpoint.budget))
    }
}

/// The bytes of a prompt without its values.
fn prompt_bytes(prompt: &Prompt) -> f64 {
    (prompt.system.len() + prompt.user.fill(|_| None).len()) as f64
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TEXTS, workload};
    use super::*;
    use crate::clusterers::ClustererConfig;
    use crate::clusterers::kmeans::KMeansConfig;
    use crate::endpoint::EndpointConfig;
    use crate::endpoint::embeddings::RemoteConfig;
    use crate::fit::FitConfig;

    #[test]
    fn what_is_asked_grows_with_texts_and_topics_and_has_its_price() {
        let budget = Budget { input_price: Some(2.0), output_price: Some(10.0), ..Budget::default() };
        let endpoint = EndpointConfig { budget, ..EndpointConfig::default() };
        let remote =
            RemoteConfig { endpoint: endpoint.clone(), max_characters: Some(600), ..RemoteConfig::default() };
        let encoder = EncoderConfig { remote: Some(Box::new(remote)), ..EncoderConfig::default() };
        let of = |n_clusters| {
            let mut namer = NamerConfig::default();
            namer.chat.endpoint = endpoint.clone();
            let config = FitConfig {
                clusterer: ClustererConfig::Kmeans(KMeansConfig { n_clusters, ..KMeansConfig::default() }),
                labeller: LabellerConfig::Llm(Box::new(namer)),
                taxonomy: TaxonomyConfig::Llm(Box::default()),
                ..FitConfig::default()
            };
            workload(&config, 1_000).asked(&encoder).unwrap()
        };
        let [vectors, names, taxonomy] = of(10)[..] else { panic!("three steps ask") };
        assert_eq!((vectors.step, vectors.tokens, vectors.money), ("vectors", 200_000.0, Some(0.4)));
        // Ten texts of 80 bytes, ten words and three times six, and the prompt.
        let least = 10.0 * (10.0 * TEXTS.shown_bytes + 280.0) / 3.0;
        assert!(names.tokens > least && names.tokens < 3.0 * least, "{names:?}");
        assert!(names.money.is_some_and(|money| money > 2e-6 * least), "{names:?}");
        assert_eq!(taxonomy.money, None);
        let [_, more, _] = of(20)[..] else { panic!("three steps ask") };
        assert!((more.tokens - 2.0 * names.tokens).abs() <= 1.0, "whole tokens");
        assert_eq!(workload(&FitConfig::default(), 1_000).asked(&EncoderConfig::default()).unwrap(), []);
    }
}
