//! Topic coherence by normalised pointwise mutual information.
//!
//! For the best words of a topic, the mean over all pairs of
//!
//! NPMI(i, j) = ln((p_ij + ε) / (p_i · p_j)) / −ln(p_ij + ε)
//!
//! where p is the share of windows that hold a word or both. Windows slide over each document's words by one; a
//! document shorter than a window is one window. −1: never together; 0: independent; 1: always together. With
//! sliding windows of 10 this is `c_npmi` (Bouma 2009; Röder, Both and Hinneburg, "Exploring the Space of Topic
//! Coherence Measures", 2015), but for two choices: windows lie over the words that [`Tokens`] holds (stop words are
//! gone), and two words that are in every window score 1, the limit, where the formula's ε gives −1.
//!
//! Only pairs within a topic are counted: a document is reduced to the spans of windows in which each of its topic
//! words lies, and a pair's windows are the overlap of two lists of spans.

use crate::{
    Error, Result,
    words::{
        Tokens,
        vocabulary::{Key, key_of, visit_ngrams},
    },
};
use rayon::prelude::*;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Documents a thread takes at a time.
const CHUNK_ROWS: usize = 1024;

/// How coherence is measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoherenceConfig {
    /// What counts as together. Sliding windows of 10 words by default, as in `c_npmi`.
    pub window: Window,
    /// What is added to the share of common windows. 1e-12 by default, as in `c_npmi`, which scores a pair never
    /// seen together by how rare its words are; with 0 such a pair scores −1.
    pub epsilon: f64,
    /// How many of a topic's words are paired. 10 by default, as is usual.
    pub top_n: usize,
}

impl Default for CoherenceConfig {
    fn default() -> Self {
        Self { window: Window::default(), epsilon: 1e-12, top_n: 10 }
    }
}

/// What counts as together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Within so many consecutive words.
    Sliding(usize),
    /// Within a document.
    Document,
}

impl Default for Window {
    fn default() -> Self {
        Self::Sliding(10)
    }
}

/// The coherence of each topic and of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coherence {
    /// NPMI of each topic, −1 to 1, in the order given; `None` for a topic of fewer than two words.
    pub topics: Vec<Option<f64>>,
    /// The mean over the topics that have one; `None` if none has.
    pub mean: Option<f64>,
}

/// Measures how much the words of each topic occur together in `tokens`.
///
/// `topics` holds each topic's words, best first. A word that no document has is never together with any. A term of
/// several words lies in a window with all of them. Fails if the window is empty or ε is not from 0 up to 0.01.
pub fn npmi<S: AsRef<str>>(
    tokens: &Tokens,
    topics: &[Vec<S>],
    config: &CoherenceConfig,
) -> Result<Coherence> {
    if config.window == Window::Sliding(0) {
        return Err(Error::setting("window", "sliding 0, expected at least 1 word"));
    }
    if !(0.0..=0.01).contains(&config.epsilon) {
        return Err(Error::setting("epsilon", format!("{}, expected 0 to 0.01", config.epsilon)));
    }
    let wanted = Wanted::new(tokens, topics, config.top_n);
    let seen = count(tokens, &wanted, config.window);
    let windows = seen.windows as f64;
    let share = |count: u64| count as f64 / windows;
    let score = |(i, j): (Option<u32>, Option<u32>)| {
        let (Some(i), Some(j)) = (i, j) else { return -1.0 };
        let (i, j) = (i.min(j), i.max(j));
        let together = if i == j { seen.terms[i as usize] } else { seen.pairs[wanted.pair(i, j)] };
        normalized(
            share(together),
            share(seen.terms[i as usize]),
            share(seen.terms[j as usize]),
            config.epsilon,
        )
    };
    let of_topic = |terms: &Vec<Option<u32>>| {
        let pairs: Vec<f64> = terms
            .iter()
            .enumerate()
            .flat_map(|(at, &i)| terms[..at].iter().map(move |&j| (j, i)))
            .map(score)
            .collect();
        (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64)
    };
    let topics: Vec<Option<f64>> = wanted.topics.iter().map(of_topic).collect();
    let measured: Vec<f64> = topics.iter().flatten().copied().collect();
    let mean = (!measured.is_empty()).then(|| measured.iter().sum::<f64>() / measured.len() as f64);
    Ok(Coherence { topics, mean })
}

/// NPMI of two words with shares `p_i` and `p_j`, together `p_ij`.
fn normalized(p_ij: f64, p_i: f64, p_j: f64, epsilon: f64) -> f64 {
    let together = p_ij + epsilon;
    if p_i == 0.0 || p_j == 0.0 || together == 0.0 {
        return -1.0;
    }
    if p_ij == 1.0 {
        return 1.0;
    }
    (together / (p_i * p_j)).ln() / -together.ln()
}

/// The terms and pairs to look for.
struct Wanted {
    /// The terms of each topic, by number; `None` where no document has the term.
    topics: Vec<Vec<Option<u32>>>,
    keys: FxHashMap<Key, u32>,
    /// For each term its later partners, rising, each with the number of their pair.
    partners: Vec<Vec<(u32, u32)>>,
    pairs: usize,
    longest: usize,
}

impl Wanted {
    fn new<S: AsRef<str>>(tokens: &Tokens, topics: &[Vec<S>], top_n: usize) -> Self {
        let mut keys: FxHashMap<Key, u32> = FxHashMap::default();
        let mut number = |term: &S| {
            let key = key_of(term.as_ref(), tokens)?;
            // Terms are at most top_n a topic: far fewer than u32::MAX.
            let next = keys.len() as u32;
            Some(*keys.entry(key).or_insert(next))
        };
        let topics: Vec<Vec<Option<u32>>> =
            topics.iter().map(|terms| terms.iter().take(top_n).map(&mut number).collect()).collect();

        let mut partners: Vec<Vec<u32>> = vec![Vec::new(); keys.len()];
        for terms in &topics {
            let known: Vec<u32> = terms.iter().flatten().copied().collect();
            for &i in &known {
                partners[i as usize].extend(known.iter().filter(|&&j| j > i));
            }
        }
        let mut pairs = 0..;
        let partners: Vec<Vec<(u32, u32)>> = partners
            .into_iter()
            .map(|mut later| {
                later.sort_unstable();
                later.dedup();
                later.into_iter().zip(&mut pairs).collect()
            })
            .collect();
        let longest = keys.keys().map(length).max().unwrap_or(1);
        let pairs = partners.iter().map(Vec::len).sum();
        Self { topics, keys, partners, pairs, longest }
    }

    /// The number of the pair of `i` and a later `j` of one topic.
    fn pair(&self, i: u32, j: u32) -> usize {
        let partners = &self.partners[i as usize];
        match partners.binary_search_by_key(&j, |partner| partner.0) {
            Ok(at) => partners[at].1 as usize,
            Err(_) => unreachable!("all pairs of each topic were numbered"),
        }
    }
}

/// In how many windows terms and pairs lie.
#[derive(Clone)]
struct Seen {
    windows: u64,
    terms: Vec<u64>,
    pairs: Vec<u64>,
}

impl Seen {
    fn none(wanted: &Wanted) -> Self {
        Self { windows: 0, terms: vec![0; wanted.keys.len()], pairs: vec![0; wanted.pairs] }
    }

    fn add(mut self, other: Self) -> Self {
        let add = |to: &mut [u64], from: &[u64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        self.windows += other.windows;
        add(&mut self.terms, &other.terms);
        add(&mut self.pairs, &other.pairs);
        self
    }
}

/// Counts windows on all threads; sums of integers, so in any order.
fn count(tokens: &Tokens, wanted: &Wanted, window: Window) -> Seen {
    (0..tokens.len().div_ceil(CHUNK_ROWS))
        .into_par_iter()
        .map(|chunk| {
            let mut seen = Seen::none(wanted);
            let mut spans = vec![Vec::new(); wanted.keys.len()];
            for row in chunk * CHUNK_ROWS..tokens.len().min((chunk + 1) * CHUNK_ROWS) {
                count_document(tokens, row, wanted, window, &mut spans, &mut seen);
            }
            seen
        })
        .reduce(|| Seen::none(wanted), Seen::add)
}

/// Windows from the first up to (not including) the second, by the word that they begin at.
type Span = (usize, usize);

/// Adds document `row` to `seen`; `spans` (one list a term) comes and goes empty.
fn count_document(
    tokens: &Tokens,
    row: usize,
    wanted: &Wanted,
    window: Window,
    spans: &mut [Vec<Span>],
    seen: &mut Seen,
) {
    let words = tokens.document_words(row).count();
    let size = match window {
        Window::Sliding(size) => size.min(words.max(1)),
        Window::Document => words.max(1),
    };
    let windows = words.max(1) - size + 1;
    let mut present: Vec<u32> = Vec::new();
    visit_ngrams(tokens.document(row), (1, wanted.longest), None, |key, first| {
        let Some(&term) = wanted.keys.get(&key) else { return };
        let last = first + length(&key) - 1;
        let span = ((last + 1).saturating_sub(size), (first + 1).min(windows));
        if span.0 >= span.1 {
            return;
        }
        let spans = &mut spans[term as usize];
        match spans.last_mut() {
            None => {
                present.push(term);
                spans.push(span);
            }
            // Occurrences come in order, so a span can only continue the last one.
            Some(previous) if span.0 <= previous.1 => previous.1 = span.1,
            Some(_) => spans.push(span),
        }
    });
    seen.windows += windows as u64;
    for &i in &present {
        seen.terms[i as usize] += spans[i as usize].iter().map(|span| (span.1 - span.0) as u64).sum::<u64>();
        for &(j, pair) in &wanted.partners[i as usize] {
            seen.pairs[pair as usize] += overlap(&spans[i as usize], &spans[j as usize]);
        }
    }
    for &i in &present {
        spans[i as usize].clear();
    }
}

/// How many windows two lists of spans share; each list is rising and without overlaps.
fn overlap(a: &[Span], b: &[Span]) -> u64 {
    let (mut i, mut j, mut sum) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        sum += a[i].1.min(b[j].1).saturating_sub(a[i].0.max(b[j].0)) as u64;
        if a[i].1 <= b[j].1 { i += 1 } else { j += 1 }
    }
    sum
}

/// How many words a term has.
fn length(key: &Key) -> usize {
    key.iter().filter(|&&id| id != 0).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{StopWords, VocabularyConfig};

    fn tokens(texts: &[String]) -> Tokens {
        let config = VocabularyConfig { stop_words: StopWords::None, ..Default::default() };
        Tokens::read(texts, &config).unwrap()
    }

    /// The definition, window by window, for terms of one or more words.
    fn naive(texts: &[String], terms: &[&str], size: Option<usize>, epsilon: f64) -> f64 {
        let mut windows: Vec<Vec<&str>> = Vec::new();
        for text in texts {
            let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
            let size = size.unwrap_or(words.len()).min(words.len()).max(1);
            if words.is_empty() {
                windows.push(Vec::new());
            }
            windows.extend(words.windows(size).map(<[&str]>::to_vec));
        }
        let holds = |window: &Vec<&str>, term: &str| {
            let term: Vec<&str> = term.split(' ').collect();
            window.windows(term.len()).any(|words| words == term)
        };
        let share = |terms: &[&str]| {
            windows.iter().filter(|window| terms.iter().all(|term| holds(window, term))).count() as f64
                / windows.len() as f64
        };
        let mut scores = Vec::new();
        for (at, i) in terms.iter().enumerate() {
            for j in &terms[..at] {
                let p = share(&[i, j]) + epsilon;
                let score = if p == 0.0 { -1.0 } else { (p / (share(&[i]) * share(&[j]))).ln() / -p.ln() };
                scores.push(score);
            }
        }
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    /// Texts of 0 to 39 of 12 words, seeded.
    fn random_texts() -> Vec<String> {
        let mut state = 9u64;
        let mut next = move |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        (0..300)
            .map(|_| {
                (0..next(40))
                    .map(|_| format!("w{}", char::from(b'a' + next(12) as u8)))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[test]
    fn scores_equal_those_of_every_window_looked_at() {
        let texts = random_texts();
        let topics =
            vec![vec!["wa", "wb", "wc"], vec!["wd", "wa", "we", "wf"], vec!["wa wb", "wc", "wb wc wd", "we"]];
        for (window, size) in
            [(Window::Sliding(10), Some(10)), (Window::Sliding(2), Some(2)), (Window::Document, None)]
        {
            for epsilon in [1e-12, 0.0] {
                let config = CoherenceConfig { window, epsilon, top_n: 10 };
                let found = npmi(&tokens(&texts), &topics, &config).unwrap();
                for (topic, found) in topics
                    .iter()
                    .zip(&found.topics)
                    .filter(|(t, _)| size != Some(2) || !t.contains(&"wb wc wd"))
                {
                    let expected = naive(&texts, topic, size, epsilon);
                    assert!(
                        (found.unwrap() - expected).abs() < 1e-12,
                        "{window:?} {epsilon} {topic:?}: {found:?} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn words_always_together_score_one_and_words_never_together_minus_one() {
        let texts = ["red blue", "red blue", "green", ""].map(String::from);
        let config = CoherenceConfig { epsilon: 0.0, ..Default::default() };
        let topics = vec![vec!["red", "blue"], vec!["red", "green"], vec!["red", "absent"], vec!["red"]];
        let found = npmi(&tokens(&texts), &topics, &config).unwrap();
        let rounded: Vec<Option<i32>> =
            found.topics.iter().map(|t| t.map(|score| (score * 1e9).round() as i32)).collect();
        assert_eq!(rounded, [Some(1_000_000_000), Some(-1_000_000_000), Some(-1_000_000_000), None]);
        assert!((found.mean.unwrap() + 1.0 / 3.0).abs() < 1e-9);
        let everywhere = ["red blue", "blue red"].map(String::from);
        assert_eq!(npmi(&tokens(&everywhere), &[vec!["red", "blue"]], &config).unwrap().mean, Some(1.0));
    }

    #[test]
    fn a_term_longer_than_the_window_lies_in_none() {
        let texts = ["red blue sea"].map(String::from);
        let config = CoherenceConfig { window: Window::Sliding(1), ..Default::default() };
        assert_eq!(npmi(&tokens(&texts), &[vec!["red blue", "sea"]], &config).unwrap().mean, Some(-1.0));
    }

    #[test]
    fn only_the_best_words_are_paired() {
        let texts = random_texts();
        let config = CoherenceConfig { top_n: 2, ..Default::default() };
        let tokens = tokens(&texts);
        let of = |words: Vec<&str>| npmi(&tokens, &[words], &config).unwrap();
        assert_eq!(of(vec!["wa", "wb", "wc"]), of(vec!["wa", "wb"]));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let tokens = tokens(&[]);
        let empty = CoherenceConfig { window: Window::Sliding(0), ..Default::default() };
        let negative = CoherenceConfig { epsilon: -1.0, ..Default::default() };
        assert!(
            npmi::<&str>(&tokens, &[], &empty).is_err() && npmi::<&str>(&tokens, &[], &negative).is_err()
        );
    }
}
