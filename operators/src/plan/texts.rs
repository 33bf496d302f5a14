//! What a fit's memory and time depend on in its texts, measured on the first of them.

use crate::Result;
use crate::words::{Tokens, VocabularyConfig, vocabulary::visit_ngrams};
use rustc_hash::FxHashSet;
use serde::Serialize;

/// Sizes of a row's texts, on average, and how fast new words come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextSizes {
    /// Rows that this was measured on.
    pub rows: usize,
    /// Bytes of the text that words are counted in.
    pub text_bytes: f64,
    /// Bytes of the text that is shown.
    pub shown_bytes: f64,
    /// Bytes of the name.
    pub id_bytes: f64,
    /// Numbers that [`Tokens`] keep of a text: its words, and the breaks between them.
    pub tokens: f64,
    /// Terms of a text, each as often as it occurs.
    pub occurrences: f64,
    /// Different words.
    pub words: Growth,
    /// Different terms.
    pub terms: Growth,
}

/// How many different things there are in so many texts, by Heaps' law: `distinct` · (texts / `texts`)^`exponent`.
///
/// (Heaps, "Information Retrieval: Computational and Theoretical Aspects", 1978.) The exponent falls as texts become
/// many, so that this is rather too much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    /// Texts that were looked at.
    pub texts: f64,
    /// Different things in them.
    pub distinct: f64,
    /// How the number grows: 0 not at all, 1 with the texts.
    pub exponent: f64,
}

impl TextSizes {
    /// Measures rows; each list holds one value a row.
    ///
    /// Fails where `vocabulary` names stop words of an unknown language.
    pub fn measure(
        texts: &[String],
        shown: &[String],
        ids: &[String],
        vocabulary: &VocabularyConfig,
    ) -> Result<Self> {
        let half = texts.len() / 2;
        let (all, first) = (
            Tokens::read(texts, vocabulary)?,
            Tokens::read(&texts[..half.max(1).min(texts.len())], vocabulary)?,
        );
        let tokens: usize = (0..all.len()).map(|row| all.document(row).len()).sum();
        let (few, in_few) = (first.len(), terms(&first, vocabulary.ngrams).0);
        let (many, (in_many, occurrences)) = (all.len(), terms(&all, vocabulary.ngrams));
        Ok(Self {
            rows: texts.len(),
            text_bytes: mean_bytes(texts),
            shown_bytes: mean_bytes(shown),
            id_bytes: mean_bytes(ids),
            tokens: tokens as f64 / texts.len().max(1) as f64,
            occurrences: occurrences as f64 / many.max(1) as f64,
            words: Growth::of((few, first.words().len()), (many, all.words().len())),
            terms: Growth::of((few, in_few), (many, in_many)),
        })
    }
}

impl Growth {
    /// Takes two numbers of texts, the second larger, and how many different things were in them.
    pub fn of((few, in_few): (usize, usize), (many, in_many): (usize, usize)) -> Self {
        let (few, in_few) = (few.max(1) as f64, in_few.max(1) as f64);
        let (many, in_many) = (many.max(1) as f64, in_many.max(1) as f64);
        // One text says nothing of growth: all words are then taken to be new ones.
        let exponent = if many > few { (in_many / in_few).ln() / (many / few).ln() } else { 1.0 };
        Self { texts: many, distinct: in_many, exponent: exponent.clamp(0.0, 1.0) }
    }

    /// How many different things there are in so many texts.
    pub fn distinct(&self, texts: f64) -> f64 {
        self.distinct * (texts / self.texts).powf(self.exponent)
    }
}

fn mean_bytes(texts: &[String]) -> f64 {
    texts.iter().map(String::len).sum::<usize>() as f64 / texts.len().max(1) as f64
}

/// How many different terms there are, and how many in all.
fn terms(tokens: &Tokens, ngrams: (usize, usize)) -> (usize, usize) {
    let (mut seen, mut occurrences) = (FxHashSet::default(), 0);
    for row in 0..tokens.len() {
        visit_ngrams(tokens.document(row), ngrams, None, |key, _| {
            seen.insert(key);
            occurrences += 1;
        });
    }
    (seen.len(), occurrences)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(texts: &[&str]) -> TextSizes {
        let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
        TextSizes::measure(&texts, &texts, &texts, &VocabularyConfig::default()).unwrap()
    }

    #[test]
    fn texts_that_repeat_themselves_bring_no_new_words() {
        let found = measure(&["red sky", "red sky", "red sky", "red sky"]);
        assert_eq!((found.words.distinct(1e6), found.terms.distinct(1e6)), (2.0, 3.0));
        assert_eq!((found.text_bytes, found.tokens, found.occurrences), (7.0, 2.0, 3.0));
    }

    #[test]
    fn texts_of_new_words_bring_as_many_as_there_are_texts() {
        let found = measure(&["red", "blue", "green", "black"]);
        assert!((found.words.distinct(1000.0) - 1000.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn the_root_law_is_found_again() {
        // 100 words in 25 texts, 200 in 100.
        let growth = Growth::of((25, 100), (100, 200));
        assert!((growth.distinct(10_000.0) - 2000.0).abs() < 1e-6, "{growth:?}");
    }
}
