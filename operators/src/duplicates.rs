//! Near duplicates: of rows that say almost the same only one is fitted, with a weight.
//!
//! Two rows are near duplicates if their texts are and their vectors are:
//!
//! - |A ∩ B| / |A ∪ B| ≥ `jaccard`, where A and B are the texts' sets of shingles: any 5 consecutive words (of Unicode
//!   Annex 29, so ideographs are words), lower-cased. (Shingles are compared by 64-bit hashes.)
//! - a·b / (|a| |b|) ≥ `cosine`, where a and b are the vectors; one of zeros is near to others of zeros only. This
//!   guards vectors that tell apart what the texts do not, such as those of a column.
//! - A text of fewer words than a shingle says too little: its duplicates have the same words and the same vector, but
//!   for rounding. One without words is nobody's duplicate.
//!
//! Pairs are found by MinHash: for a random function the least value over A is that over B with a probability of the
//! texts' Jaccard similarity s. The least values of 120 functions are cut into b bands of r, and only rows with an
//! equal band are compared, exactly: a pair is missed with probability (1 − s^r)^b. From `jaccard` follows r: the most
//! for which a pair at the threshold is missed with at most 1 %, as each more spares comparisons. For 0.8 this is 20
//! bands of 6, which miss 0.2 % of pairs of 0.8 and 3 in 10 million of those of 0.9; for 0.9 it is 12 of 10, for 0.5
//! 40 of 3. (Below 0.038 even 120 bands of 1 miss more than 1 %.)
//!
//! Kept are 4 bytes per row and band (80 per row at 0.8), and 10 to 20 more per representative and band.
//!
//! Broder 1997, "On the resemblance and containment of documents"; Indyk and Motwani 1998, "Approximate nearest
//! neighbors: towards removing the curse of dimensionality" (bands); Lee et al. 2022, "Deduplicating training data
//! makes language models better".

use crate::{Error, Result};
use kernels::Matrix;
use rayon::prelude::*;
use rustc_hash::{FxBuildHasher, FxHashMap};
use serde::{Deserialize, Serialize};
use std::cmp::{Ordering, Reverse};
use std::hash::BuildHasher;
use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

/// Words in a shingle, as Lee et al. have it: fewer are shared by texts that only have phrases in common, and of more
/// each changed word spoils as many.
const SHINGLE_WORDS: usize = 5;

/// The cosine of vectors that are the same but for rounding: 384 products of floats are off by less.
const SAME: f64 = 1.0 - 1e-5;

/// Hash functions of a signature: enough for 20 bands of 6, and divisible by most numbers of rows that a band may have.
const FUNCTIONS: usize = 120;

/// Functions that go through a text at a time: their least values stay in registers. Divides [`FUNCTIONS`].
const LANES: usize = 24;

/// How likely a pair at the threshold may be missed.
const MISSED: f64 = 0.01;

/// The most representatives of a bucket that are looked at, and the most that a row's shingles are compared with.
/// Boilerplate puts thousands of distinct texts in one bucket; a near duplicate is found by its other bands, too.
const MOST: usize = 100;

/// From as many candidates on they are compared on all threads: about 50 microseconds' work.
const FEW: usize = 8;

/// Rows whose bands are computed between two questions whether to go on: about a tenth of a second.
const BLOCK_ROWS: usize = 8192;

/// Rows that are compared between two questions whether to go on: a second even if each has [`MOST`] candidates.
const ASK_ROWS: u32 = 512;

/// Stands for no row.
const NONE: u32 = u32::MAX;

/// When rows are near duplicates, and whether they collapse before a fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DuplicatesConfig {
    /// Whether of near duplicates only one is fitted; `true` by default, as copies make topics of their own that are
    /// dense without being about anything.
    pub collapse: bool,
    /// The least Jaccard similarity of texts; 0.8 by default, which is that of Lee et al.: in a text of 150 words about
    /// three words changed.
    pub jaccard: f64,
    /// The least cosine of vectors; 0.96 by default: of 258 abstracts of papers with words changed and a Jaccard
    /// similarity of 0.8 or more, all were as near to the original by all-MiniLM-L6-v2 (97 % to 0.98), and no two papers
    /// nearer than 0.73.
    pub cosine: f64,
}

impl Default for DuplicatesConfig {
    fn default() -> Self {
        Self { collapse: true, jaccard: 0.8, cosine: 0.96 }
    }
}

impl DuplicatesConfig {
    /// Fails unless both similarities are above 0 and at most 1.
    pub fn check(&self) -> Result<()> {
        for (setting, share) in
            [("fit.duplicates.jaccard", self.jaccard), ("fit.duplicates.cosine", self.cosine)]
        {
            if !(share > 0.0 && share <= 1.0) {
                return Err(Error::setting(
                    setting,
                    format!("{share}, expected a number above 0, at most 1"),
                ));
            }
        }
        Ok(())
    }

    /// Bands of hash functions by which pairs are found.
    pub(crate) fn bands(&self) -> usize {
        FUNCTIONS / band_rows(self.jaccard)
    }
}

/// Returns for each row the one that stands for it: the first earlier representative of which it is a near duplicate,
/// else itself. `None` if `go_on`, asked now and then, says no.
///
/// Row i of `vectors` is that of `texts[i]`; there are fewer than 2³² rows. `collapse` is the caller's question, not
/// looked at here. Rows are compared with representatives only: ten thousand copies take linear time, and what is near
/// a member is not drawn in unless near its representative. The same at any number of threads.
pub fn representatives<S: AsRef<str> + Sync>(
    texts: &[S],
    vectors: &Matrix<f32>,
    config: &DuplicatesConfig,
    go_on: &dyn Fn() -> bool,
) -> Option<Vec<u32>> {
    let mut index = Index::read(texts, config.jaccard, go_on)?;
    let (mut own, mut other) = (Shingles::default(), Shingles::default());
    let mut representatives = Vec::with_capacity(texts.len());
    for (row, text) in (0u32..).zip(texts) {
        if row.is_multiple_of(ASK_ROWS) && !go_on() {
            return None;
        }
        let (text, vector) = (text.as_ref(), vectors.row(row as usize));
        let least = match text.unicode_words().take(SHINGLE_WORDS).count() {
            0 => {
                representatives.push(row);
                continue;
            }
            SHINGLE_WORDS => config.cosine,
            _ => SAME.max(config.cosine),
        };
        let near = |candidate: u32| cosine(vector, vectors.row(candidate as usize)) >= least;
        let candidates = index.candidates(row, near);
        if !candidates.is_empty() {
            own.read_set(text);
        }
        let is_duplicate = |other: &mut Shingles, candidate: u32| {
            let candidate = texts[candidate as usize].as_ref();
            candidate == text || {
                other.read_set(candidate);
                jaccard(&own.hashes, &other.hashes) >= config.jaccard
            }
        };
        let place = if candidates.len() < FEW {
            candidates.iter().position(|candidate| is_duplicate(&mut other, *candidate))
        } else {
            let duplicates = candidates
                .par_iter()
                .map_init(Shingles::default, |other, candidate| is_duplicate(other, *candidate));
            duplicates.position_first(|is_duplicate| is_duplicate)
        };
        let found = place.map(|place| candidates[place]);
        if found.is_none() {
            index.insert(row);
        }
        representatives.push(found.unwrap_or(row));
    }
    Some(representatives)
}

/// Returns the rows that stand for themselves, rising, and how many rows each stands for, itself among them; takes
/// what [`representatives`] returned.
pub fn weights(representatives: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut counts = vec![0; representatives.len()];
    representatives.iter().for_each(|representative| counts[*representative as usize] += 1);
    (0u32..).zip(counts).filter(|(_, count)| *count > 0).unzip()
}

/// Finds representatives by their bands.
struct Index {
    /// Per band the newest representative of each bucket.
    buckets: Vec<FxHashMap<u32, u32>>,
    /// Per row and band the hash; of a representative instead the one before it in the bucket, or [`NONE`].
    hashes: Vec<u32>,
}

impl Index {
    /// Hashes the bands of each text, on all threads.
    fn read<S: AsRef<str> + Sync>(texts: &[S], jaccard: f64, go_on: &dyn Fn() -> bool) -> Option<Self> {
        let band_rows = band_rows(jaccard);
        let bands = FUNCTIONS / band_rows;
        let mut hashes = vec![0; texts.len() * bands];
        for (texts, hashes) in texts.chunks(BLOCK_ROWS).zip(hashes.chunks_mut(BLOCK_ROWS * bands)) {
            if !go_on() {
                return None;
            }
            let rows = texts.par_iter().zip(hashes.par_chunks_mut(bands));
            rows.for_each_init(Shingles::default, |shingles, (text, hashes)| {
                shingles.read(text.as_ref());
                let signature = signature(&shingles.hashes);
                for (hash, band) in hashes.iter_mut().zip(signature.chunks_exact(band_rows)) {
                    *hash = FxBuildHasher.hash_one(band) as u32; // The low half: pairs are verified.
                }
            });
        }
        Some(Self { buckets: vec![FxHashMap::default(); bands], hashes })
    }

    /// Returns the representatives that share a band with `row` and are `near` it, rising; of more than [`MOST`] those
    /// that share most bands, then the newest, as copies tend to follow each other.
    fn candidates(&self, row: u32, near: impl Fn(u32) -> bool) -> Vec<u32> {
        let bands = self.buckets.len();
        let mut found = Vec::new();
        for (band, bucket) in self.buckets.iter().enumerate() {
            let hash = self.hashes[row as usize * bands + band];
            let mut next = bucket.get(&hash).copied().unwrap_or(NONE);
            for _ in 0..MOST {
                if next == NONE {
                    break;
                }
                found.push(next);
                next = self.hashes[next as usize * bands + band];
            }
        }
        found.sort_unstable();
        let found = found.chunk_by(|a, b| a == b).map(|same| (same[0], same.len()));
        let mut found: Vec<(u32, usize)> = found.filter(|(candidate, _)| near(*candidate)).collect();
        if found.len() > MOST {
            found.sort_unstable_by_key(|(candidate, shared)| Reverse((*shared, *candidate)));
            found.truncate(MOST);
            found.sort_unstable();
        }
        found.into_iter().map(|(candidate, _)| candidate).collect()
    }

    /// Makes `row` a representative.
    fn insert(&mut self, row: u32) {
        let start = row as usize * self.buckets.len();
        for (hash, bucket) in self.hashes[start..].iter_mut().zip(&mut self.buckets) {
            *hash = bucket.insert(*hash, row).unwrap_or(NONE);
        }
    }
}

/// Returns the most rows of a band for which a pair of this similarity is missed with at most [`MISSED`]; else 1.
fn band_rows(jaccard: f64) -> usize {
    let missed = |rows: usize| (1.0 - jaccard.powf(rows as f64)).powf((FUNCTIONS / rows) as f64);
    (1..=FUNCTIONS).rev().find(|rows| missed(*rows) <= MISSED).unwrap_or(1)
}

/// The shingles of a text, and what they are read with.
#[derive(Default)]
struct Shingles {
    /// The words, lower-cased, a blank after each.
    words: String,
    /// Where each word starts; the end.
    starts: Vec<usize>,
    /// The shingles' hashes.
    hashes: Vec<u64>,
}

impl Shingles {
    /// Reads the shingles in their order.
    fn read(&mut self, text: &str) {
        let Self { words, starts, hashes } = self;
        words.clear();
        starts.clear();
        hashes.clear();
        for word in text.unicode_words() {
            let start = words.len();
            starts.push(start);
            if word.is_ascii() {
                words.push_str(word);
                words[start..].make_ascii_lowercase();
            } else {
                words.push_str(&word.to_lowercase());
            }
            words.push(' ');
        }
        let length = starts.len().min(SHINGLE_WORDS);
        starts.push(words.len());
        if length > 0 {
            let shingles = starts.windows(length + 1).map(|ends| &words[ends[0]..ends[length]]);
            hashes.extend(shingles.map(|shingle| xxh3_64(shingle.as_bytes())));
        }
    }

    /// Reads them as a set: sorted, each once.
    fn read_set(&mut self, text: &str) {
        self.read(text);
        self.hashes.sort_unstable();
        self.hashes.dedup();
    }
}

/// Returns per function the least value over `shingles`: a·x + b modulo 2³², of the low half x of each hash.
fn signature(shingles: &[u64]) -> [u32; FUNCTIONS] {
    const FACTORS: [(u32, u32); FUNCTIONS] = factors();
    let mut least = [u32::MAX; FUNCTIONS];
    for (least, factors) in least.chunks_exact_mut(LANES).zip(FACTORS.chunks_exact(LANES)) {
        let (mut a, mut b, mut lanes) = ([0; LANES], [0; LANES], [u32::MAX; LANES]);
        for lane in 0..LANES {
            (a[lane], b[lane]) = factors[lane];
        }
        for shingle in shingles {
            let x = *shingle as u32; // The low half.
            for lane in 0..LANES {
                lanes[lane] = lanes[lane].min(a[lane].wrapping_mul(x).wrapping_add(b[lane]));
            }
        }
        least.copy_from_slice(&lanes);
    }
    least
}

/// Draws (a, b) of each function by splitmix64; a is odd, so that no two values of x meet.
const fn factors() -> [(u32, u32); FUNCTIONS] {
    let mut factors = [(0, 0); FUNCTIONS];
    let mut state = 0u64;
    let mut function = 0;
    while function < FUNCTIONS {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        factors[function] = (z as u32 | 1, (z >> 32) as u32); // Both halves.
        function += 1;
    }
    factors
}

/// Returns |A ∩ B| / |A ∪ B| of two sorted sets, not both empty.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut shared) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let order = a[i].cmp(&b[j]);
        shared += usize::from(order == Ordering::Equal);
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    shared as f64 / (a.len() + b.len() - shared) as f64
}

/// Returns the cosine of two vectors; 1 where they are equal (two of zeros, too), 0 where one is of zeros.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a == b {
        return 1.0; // Rounding must not part equal vectors where the threshold is 1.
    }
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        (ab, aa, bb) = (ab + a * b, aa + a * a, bb + b * b);
    }
    if aa == 0.0 || bb == 0.0 { 0.0 } else { ab / (aa * bb).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::HashSet;

    /// Numbers that look random (splitmix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((z ^ (z >> 27)) >> 16) as usize % n
        }

        fn words(&mut self, n: usize) -> Vec<String> {
            (0..n).map(|_| format!("word{}", self.below(5000))).collect()
        }
    }

    /// The definition, without hashes.
    fn reference(a: &str, b: &str) -> f64 {
        let set = |text: &str| -> HashSet<Vec<String>> {
            let words: Vec<String> = text.unicode_words().map(str::to_lowercase).collect();
            words.windows(words.len().min(5)).map(<[_]>::to_vec).collect()
        };
        let (a, b) = (set(a), set(b));
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    fn found<S: AsRef<str> + Sync>(texts: &[S], vectors: &[[f32; 2]], jaccard: f64) -> Vec<u32> {
        let vectors = Matrix::try_from_vec(texts.len(), 2, vectors.concat()).unwrap();
        let config = DuplicatesConfig { jaccard, ..DuplicatesConfig::default() };
        config.check().unwrap();
        representatives(texts, &vectors, &config, &|| true).unwrap()
    }

    fn found_in_texts<S: AsRef<str> + Sync>(texts: &[S], jaccard: f64) -> Vec<u32> {
        found(texts, &vec![[1.0, 2.0]; texts.len()], jaccard)
    }

    #[test]
    fn of_a_doubled_corpus_each_text_is_left_once_with_weight_two() {
        let mut random = Random(1);
        let mut texts: Vec<String> = (0..500).map(|row| random.words(1 + row % 40).join(" ")).collect();
        texts.sort();
        texts.dedup();
        let distinct = texts.len();
        texts.extend(texts.clone());
        for end in (1..texts.len()).rev() {
            texts.swap(end, random.below(end + 1));
        }
        let (rows, weights) = weights(&found_in_texts(&texts, 0.8));
        assert!(rows.is_sorted());
        assert_eq!(weights, vec![2; distinct]);
        assert_eq!(rows.iter().map(|row| &texts[*row as usize]).collect::<HashSet<_>>().len(), distinct);
    }

    #[test]
    fn pairs_around_the_threshold_are_found_as_they_are_defined() {
        for threshold in [0.6, 0.8, 0.9, 1.0] {
            let mut random = Random(2);
            let mut texts = Vec::new();
            for pair in 0..2000 {
                let mut words = random.words(100);
                texts.push(words.join(" "));
                for _ in 0..pair % 8 {
                    words[random.below(100)] = "Changed".into();
                }
                texts.push(words.join(", "));
            }
            let (mut near, mut reported) = (0, 0);
            for (pair, rows) in found_in_texts(&texts, threshold).chunks(2).enumerate() {
                let (first, is_near) =
                    (2 * pair as u32, reference(&texts[2 * pair], &texts[2 * pair + 1]) >= threshold);
                assert!(rows == [first, first] || rows == [first, first + 1]);
                assert!(is_near || rows[1] != first, "pair {pair} is reported at {threshold}");
                near += u32::from(is_near);
                reported += u32::from(rows[1] == first);
            }
            assert!((250..2000).contains(&near), "{near} pairs of 2000 are near at {threshold}");
            assert!(reported * 100 >= near * 98, "{reported} of {near} found at {threshold}");
        }
    }

    #[test]
    fn a_similarity_of_just_the_threshold_is_enough() {
        // 9 shingles each, 8 shared: 8 of 10.
        let (a, b) = ("a b c d e f g h i j k l m", "z b c d e f g h i j k l m");
        assert_eq!(reference(a, b), 0.8);
        assert_eq!(found_in_texts(&[a, b], 0.8), [0, 0]);
        assert_eq!(found_in_texts(&[a, b], 0.81), [0, 1]);
    }

    #[test]
    fn equal_texts_with_far_vectors_stay_apart() {
        let vectors = [[1.0, 0.0], [0.0, 1.0], [3.0, 0.1], [0.0, 0.0], [0.0, 0.0], [-1.0, 0.0]];
        assert_eq!(found(&["the same text for all"; 6], &vectors, 0.8), [0, 1, 0, 3, 3, 5]);
    }

    #[test]
    fn texts_of_few_words_are_duplicates_by_equal_vectors_only() {
        let vectors = [[1.0, 0.0], [3.0, 0.1], [2.0, 0.0], [2.0, 0.0]];
        assert_eq!(
            found(&["the same text", "the same text", "The same text!", "other text"], &vectors, 0.8),
            [0, 1, 0, 3]
        );
    }

    #[test]
    fn chains_do_not_run_on() {
        let mut words = Random(3).words(100);
        let a = words.join(" ");
        words[20] = "changed".into();
        words[40] = "changed".into();
        let b = words.join(" ");
        words[60] = "changed".into();
        words[80] = "changed".into();
        let c = words.join(" ");
        assert!(reference(&a, &b) > 0.8 && reference(&b, &c) > 0.8 && reference(&a, &c) < 0.8);
        assert_eq!(found_in_texts(&[&a, &b, &c], 0.8), [0, 0, 2]);
        assert_eq!(found_in_texts(&[&a, &c, &b], 0.8), [0, 1, 0], "the first, not the nearest");
    }

    #[test]
    fn texts_without_words_are_nobodys_duplicates() {
        let texts = ["", "", " ?!", " ?!", "Yes!", "yes", "no", "yes no"];
        assert_eq!(found_in_texts(&texts, 0.8), [0, 1, 2, 3, 4, 4, 6, 7]);
        assert!(found::<&str>(&[], &[], 0.8).is_empty());
    }

    #[test]
    fn chinese_texts_are_compared_by_ideographs() {
        let text = "机器学习是人工智能的一个分支,研究计算机怎样模拟人类的学习行为以获取新的知识";
        let (edited, other) =
            (text.replace("新的知识", "新的技能"), "今天天气很好,我们去公园散步,然后一起吃饭");
        assert!(reference(text, &edited) >= 0.8);
        assert_eq!(found_in_texts(&[text, other, &edited], 0.8), [0, 1, 0]);
    }

    #[test]
    fn groups_are_the_same_in_any_order_and_at_any_number_of_threads() {
        let mut random = Random(4);
        let mut rows: Vec<(usize, String)> = Vec::new();
        for group in 0..300 {
            let words = random.words(80);
            rows.extend((0..group % 5).map(|copy| (group, format!("{} {copy}", words.join(" ")))));
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let texts: Vec<&String> = rows.iter().map(|(_, text)| text).collect();
            let found = pool.install(|| found_in_texts(&texts, 0.8));
            assert_eq!(found, found_in_texts(&texts, 0.8));
            for (row, representative) in found.iter().enumerate() {
                let first = rows.iter().position(|(group, _)| *group == rows[row].0).unwrap();
                assert_eq!(*representative as usize, first);
            }
            rows.reverse();
        }
    }

    #[test]
    fn a_near_duplicate_is_found_in_spite_of_boilerplate() {
        // All texts share 116 of 140 shingles: a quarter of a text's bands are in a bucket of some 250 others.
        let mut random = Random(5);
        let boilerplate = random.words(120).join(" ");
        let mut texts: Vec<String> =
            (0..1000).map(|_| format!("{boilerplate} {}", random.words(24).join(" "))).collect();
        texts.extend_from_within(..500);
        let found = found_in_texts(&texts, 0.8);
        let expected: Vec<u32> = (0..1000).chain(0..500).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_search_that_is_stopped_finds_nothing() {
        let texts = vec!["some text of few words"; 2000];
        let vectors = Matrix::try_from_vec(texts.len(), 1, vec![1.0; texts.len()]).unwrap();
        for allowed in 0..4u32 {
            let left = Cell::new(allowed);
            let go_on = || left.replace(left.get().saturating_sub(1)) > 0;
            assert_eq!(representatives(&texts, &vectors, &DuplicatesConfig::default(), &go_on), None);
        }
    }

    #[test]
    fn bands_are_as_wide_as_the_threshold_allows() {
        let widths = [(0.01, 1), (0.5, 3), (0.8, 6), (0.9, 10), (1.0, 120)];
        widths.iter().for_each(|(jaccard, rows)| assert_eq!(band_rows(*jaccard), *rows, "at {jaccard}"));
    }

    #[test]
    fn similarities_that_cannot_be_are_named() {
        let config = DuplicatesConfig::default();
        assert!(config.check().is_ok());
        for share in [0.0, -0.5, 1.01, f64::NAN] {
            let error = DuplicatesConfig { jaccard: share, ..config }.check().unwrap_err().to_string();
            assert!(error.starts_with("fit.duplicates.jaccard: "), "{error}");
            let error = DuplicatesConfig { cosine: share, ..config }.check().unwrap_err().to_string();
            assert!(error.starts_with("fit.duplicates.cosine: "), "{error}");
        }
    }
}
