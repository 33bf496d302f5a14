//! Tokens: from texts to the ids that a network reads, by the folder's own `tokenizer.json`.

use super::folder::Folder;
use crate::{Error, Result};
use rayon::prelude::*;
use std::borrow::Cow;
use tokenizers::{Tokenizer, TruncationDirection};

/// The tokens of some texts, one text after another, without padding.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenBatch {
    /// All token ids.
    pub ids: Vec<u32>,
    /// Text `i` holds the ids `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<usize>,
    /// Texts that were longer than the maximal length.
    pub truncated_texts: u64,
    /// Tokens that were cut off from them.
    pub truncated_tokens: u64,
}

impl TokenBatch {
    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The ids of text `i`.
    pub fn text(&self, i: usize) -> &[u32] {
        &self.ids[self.offsets[i]..self.offsets[i + 1]]
    }

    /// Cuts the batch into runs of up to `texts` whole texts of about `tokens` tokens, at least one text each.
    pub(super) fn packs(&self, tokens: usize, texts: usize) -> Vec<TokenBatch> {
        let mut packs = Vec::new();
        let mut first = 0;
        while first < self.texts() {
            let start = self.offsets[first];
            let mut last = first + 1;
            let fits = |next: usize| next - first < texts && self.offsets[next + 1] - start <= tokens;
            while last < self.texts() && fits(last) {
                last += 1;
            }
            packs.push(TokenBatch {
                ids: self.ids[start..self.offsets[last]].to_vec(),
                offsets: self.offsets[first..=last].iter().map(|o| o - start).collect(),
                ..Self::default()
            });
            first = last;
        }
        packs
    }
}

/// The tokenizer of a folder, with its prompt and its longest text.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_length: usize,
    special_tokens: usize,
    prompt: String,
    lower_case: bool,
    path: std::path::PathBuf,
}

impl TextTokenizer {
    pub(super) fn load(folder: &Folder) -> Result<Self> {
        let path = folder.path.join("tokenizer.json");
        let broken =
            |e: tokenizers::Error| Error::model(&path, format!("cannot be read as a tokenizer: {e}"));
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(broken)?;
        // Cutting is done below, so that what is cut off can be counted; ragged batches need no padding.
        tokenizer.with_truncation(None).map_err(broken)?;
        tokenizer.with_padding(None);
        let special_tokens = tokenizer.encode_fast("", true).map_err(broken)?.len()
            - tokenizer.encode_fast("", false).map_err(broken)?.len();
        if folder.max_length <= special_tokens {
            return Err(Error::setting(
                "max_length",
                format!("{} leaves no room beside {special_tokens} special tokens", folder.max_length),
            ));
        }
        if let Some(largest) = tokenizer.get_vocab(true).values().max()
            && *largest as usize >= folder.vocab_size
        {
            return Err(Error::model(
                &path,
                format!("has token id {largest}, but the model's vocab_size is {}", folder.vocab_size),
            ));
        }
        Ok(Self {
            tokenizer,
            max_length: folder.max_length,
            special_tokens,
            prompt: folder.prompt.clone(),
            lower_case: folder.lower_case,
            path,
        })
    }

    pub(super) fn max_length(&self) -> usize {
        self.max_length
    }

    /// Tokens that the prompt puts before each text, the leading special tokens included.
    pub(super) fn prompt_tokens(&self) -> Result<usize> {
        if self.prompt.is_empty() {
            return Ok(0);
        }
        let encoding = self.tokenizer.encode_fast(self.prompt.as_str(), true).map_err(|e| self.broken(&e))?;
        // The last one is the separator, which comes after the text.
        Ok(encoding.len().saturating_sub(1))
    }

    pub(super) fn tokenize<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<TokenBatch> {
        let encoded: Vec<(Vec<u32>, usize)> =
            texts.par_iter().map(|text| self.encode(text.as_ref())).collect::<Result<_>>()?;
        let mut batch = TokenBatch { offsets: vec![0], ..TokenBatch::default() };
        batch.ids.reserve(encoded.iter().map(|(ids, _)| ids.len()).sum());
        for (ids, cut) in encoded {
            batch.ids.extend(ids);
            batch.offsets.push(batch.ids.len());
            batch.truncated_texts += u64::from(cut > 0);
            batch.truncated_tokens += cut as u64;
        }
        Ok(batch)
    }

    /// The ids of one text, and how many were cut off.
    fn encode(&self, text: &str) -> Result<(Vec<u32>, usize)> {
        let mut text = Cow::Borrowed(text);
        if !self.prompt.is_empty() {
            text = Cow::Owned(format!("{}{text}", self.prompt));
        }
        if self.lower_case {
            text = Cow::Owned(text.to_lowercase());
        }
        let mut encoding = self.tokenizer.encode_fast(text.as_ref(), false).map_err(|e| self.broken(&e))?;
        let cut = (encoding.len() + self.special_tokens).saturating_sub(self.max_length);
        if cut > 0 {
            encoding.truncate(self.max_length - self.special_tokens, 0, TruncationDirection::Right);
            // The pieces cut off would be given special tokens too.
            encoding.take_overflowing();
        }
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(|e| self.broken(&e))?;
        Ok((encoding.get_ids().to_vec(), cut))
    }

    fn broken(&self, error: &tokenizers::Error) -> Error {
        Error::model(&self.path, format!("failed on a text: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_hold_whole_texts_in_order_and_one_at_least() {
        let batch =
            TokenBatch { ids: (0..10).collect(), offsets: vec![0, 3, 5, 5, 10], ..TokenBatch::default() };
        let packs = batch.packs(5, 9);
        assert_eq!(packs.len(), 2);
        assert_eq!((packs[0].offsets.clone(), packs[1].offsets.clone()), (vec![0, 3, 5, 5], vec![0, 5]));
        assert_eq!(packs[1].ids, [5, 6, 7, 8, 9]);
        assert_eq!(batch.packs(100, 3)[0].offsets, [0, 3, 5, 5], "no more texts than may be");
        assert_eq!(batch.packs(1, 9).len(), 4, "a text longer than a pack stays whole");
        assert_eq!(batch.packs(1, 9)[0].ids, [0, 1, 2]);
    }
}
