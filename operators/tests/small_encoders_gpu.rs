//! Small encoders with numbers made up here, on GPUs (emulated ones or real): folders of every kind, many packs, and
//! what is refused.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../../kernels/tests/support/emulator.rs"]
mod emulator;

use kernels::layout::mix64;
use kernels::quantize::{Ranges, Rule};
use kernels::{Device, Matrix};
use operators::Kind;
use operators::encoders::{Encoder, EncoderOptions, WeightPrecision, resolve};
use operators::quantize::{Precision, Quantizer};
use serde_json::{Value, json};
use std::path::Path;

/// A BERT, and what its folder says beside.
struct Small {
    hidden: usize,
    heads: usize,
    intermediate: usize,
    pooling: Value,
    /// Outputs of a dense layer after pooling.
    dense: Option<usize>,
    prompts: Value,
    /// A word whose embedding is more than float16 holds.
    beyond: Option<u32>,
}

const LAYERS: usize = 2;
const VOCABULARY: usize = 30_522;

impl Default for Small {
    fn default() -> Self {
        Self {
            hidden: 64,
            heads: 2,
            intermediate: 128,
            pooling: json!({ "pooling_mode_mean_tokens": true }),
            dense: None,
            prompts: json!({}),
            beyond: None,
        }
    }
}

impl Small {
    /// Writes the folder, with the tokenizer of a real one.
    fn write(&self) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let real =
            resolve("sentence-transformers/all-MiniLM-L6-v2").expect("scripts/fetch-encoder.sh fetches it");
        std::fs::copy(real.join("tokenizer.json"), at.join("tokenizer.json")).unwrap();
        let Self { hidden, heads, intermediate, .. } = *self;
        let module = |path: &str, kind: &str| json!({ "path": path, "type": kind });
        let mut modules = vec![module("", "Transformer"), module("1_Pooling", "Pooling")];
        if let Some(outputs) = self.dense {
            modules.push(module("2_Dense", "Dense"));
            let inputs = 2 * hidden;
            write_json(
                &at.join("2_Dense/config.json"),
                &json!({ "in_features": inputs, "out_features": outputs }),
            );
            self.write_weights(
                &at.join("2_Dense/model.safetensors"),
                &[("linear.weight".into(), vec![outputs, inputs]), ("linear.bias".into(), vec![outputs])],
            );
        }
        modules.push(module("3_Normalize", "Normalize"));
        write_json(&at.join("modules.json"), &json!(modules));
        write_json(&at.join("1_Pooling/config.json"), &self.pooling);
        write_json(&at.join("config_sentence_transformers.json"), &json!({ "prompts": self.prompts }));
        write_json(&at.join("sentence_bert_config.json"), &json!({ "max_seq_length": 64 }));
        let config = json!({
            "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": LAYERS,
            "num_attention_heads": heads, "intermediate_size": intermediate, "max_position_embeddings": 64,
            "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        });
        write_json(&at.join("config.json"), &config);
        let mut tensors = vec![
            ("embeddings.word_embeddings.weight".into(), vec![VOCABULARY, hidden]),
            ("embeddings.position_embeddings.weight".into(), vec![64, hidden]),
            ("embeddings.token_type_embeddings.weight".into(), vec![2, hidden]),
            ("embeddings.LayerNorm.weight".into(), vec![hidden]),
            ("embeddings.LayerNorm.bias".into(), vec![hidden]),
        ];
        for layer in 0..LAYERS {
            let layer = |name: &str| format!("encoder.layer.{layer}.{name}");
            for (name, outputs, inputs) in [
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", intermediate, hidden),
                ("output.dense", hidden, intermediate),
            ] {
                tensors.push((layer(&format!("{name}.weight")), vec![outputs, inputs]));
                tensors.push((layer(&format!("{name}.bias")), vec![outputs]));
            }
            for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
                tensors.push((layer(&format!("{name}.weight")), vec![hidden]));
                tensors.push((layer(&format!("{name}.bias")), vec![hidden]));
            }
        }
        self.write_weights(&at.join("model.safetensors"), &tensors);
        folder
    }

    /// Writes tensors in the format of safetensors: the header's length (u64), the header (JSON), the numbers.
    fn write_weights(&self, path: &Path, tensors: &[(String, Vec<usize>)]) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, shape) in tensors {
            let start = data.len();
            let noise = |at: usize| (mix64((start + at) as u64) >> 40) as f32 * 2f32.powi(-23) - 1.0;
            for at in 0..shape.iter().product::<usize>() {
                let number = match shape.as_slice() {
                    [..] if name.contains("word_embeddings") && self.is_beyond(at / shape[1]) => 1e6,
                    [_, inputs] if !name.contains("embeddings") => noise(at) * (3.0 / *inputs as f32).sqrt(),
                    [_, _] => noise(at),
                    _ if name.ends_with("LayerNorm.weight") => 1.0 + 0.1 * noise(at),
                    _ => 0.1 * noise(at),
                };
                data.extend_from_slice(&number.to_le_bytes());
            }
            header.insert(
                name.clone(),
                json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }),
            );
        }
        let header = Value::from(header).to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        std::fs::write(path, bytes).unwrap();
    }

    fn is_beyond(&self, word: usize) -> bool {
        self.beyond.is_some_and(|beyond| beyond as usize == word)
    }
}

fn write_json(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, value.to_string()).unwrap();
}

fn all_gpus() -> Device {
    emulator::load();
    Device::open("cuda").unwrap()
}

/// The GPUs one by one: the emulator's are of different kinds.
fn gpus() -> Vec<Device> {
    let Device::Cuda(all) = all_gpus() else { unreachable!("cuda is no processor") };
    all.into_iter().map(|gpu| Device::Cuda(vec![gpu])).collect()
}

/// Loads with packs of 128 tokens, the fewest.
fn load(folder: &tempfile::TempDir, options: &EncoderOptions, device: &Device) -> Encoder {
    Encoder::load_for_packs(128, folder.path(), options, device).unwrap()
}

/// 40 texts of 1 to 37 words: more than four packs.
fn texts() -> Vec<String> {
    let words =
        ["graph", "topic", "language", "model", "protein", "galaxy", "market", "vote", "river", "song"];
    let word = |i: usize| words[(mix64(i as u64) % 10) as usize];
    (0..40).map(|i| (0..1 + i * 7 % 37).map(|j| word(31 * i + j)).collect::<Vec<_>>().join(" ")).collect()
}

/// Fails where a row is further from its like than roundings to float16 take it, all of length 1.
///
/// As in `encoder_gpu.rs`: twelve roundings a layer, each of u / √3 on average (u = 2⁻¹¹), and half as much again.
/// (Measured: 0.3 to 0.5 of that.)
fn assert_near(found: &Matrix<f32>, expected: &Matrix<f32>, what: &str) {
    assert_eq!((found.rows(), found.cols()), (expected.rows(), expected.cols()), "{what}");
    let bound = 1.5 * (12.0 * LAYERS as f64 / 3.0).sqrt() * 2f64.powi(-11);
    let distance =
        |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let far = found.iter_rows().zip(expected.iter_rows()).map(distance).fold(0.0, f64::max);
    assert!(far <= bound, "{what}: {far}, expected at most {bound}");
}

#[test]
fn many_packs_on_all_gpus_come_in_their_order() {
    let folder = Small::default().write();
    let (texts, options) = (texts(), EncoderOptions::default());
    let expected = load(&folder, &options, &Device::cpu()).encode(&texts).unwrap();
    assert!(expected.tokens > 4 * 128, "{} tokens", expected.tokens);
    let found = load(&folder, &options, &all_gpus()).encode(&texts).unwrap();
    assert_eq!(found.tokens, expected.tokens);
    assert_near(&found.vectors, &expected.vectors, "all");
    for device in gpus() {
        let encoder = load(&folder, &options, &device);
        let found = encoder.encode(&texts).unwrap().vectors;
        let whole = Encoder::load(folder.path(), &options, &device).unwrap();
        assert!(found == whole.encode(&texts).unwrap().vectors, "{device}: another result in one pack");
        let ranges = Ranges::of(&found).unwrap();
        let quantizer = Quantizer::try_new(Precision::Uint8, Rule::Clipped, Some(ranges), 64).unwrap();
        let (codes, _) = encoder.encode_codes(&texts, quantizer.code().unwrap()).unwrap();
        let codes = quantizer.column_of_codes(codes).unwrap();
        assert!(codes == quantizer.column(found).unwrap(), "{device}: other codes");
    }
}

#[test]
fn two_poolings_a_dense_layer_fewer_dimensions_and_a_prompt_are_those_of_the_processor() {
    let pooling = json!({
        "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true, "include_prompt": false,
    });
    let prompts = json!({ "query": "find the topic of: " });
    let folder = Small { pooling, dense: Some(40), prompts, ..Small::default() }.write();
    let options = |prompt: Option<&str>, truncate_dim| EncoderOptions {
        prompt: prompt.map(Into::into),
        truncate_dim,
        ..EncoderOptions::default()
    };
    let texts = texts();
    let plain = load(&folder, &options(None, Some(24)), &Device::cpu()).encode(&texts).unwrap().vectors;
    for options in [options(Some("query"), Some(24)), options(Some("query"), None)] {
        let expected = load(&folder, &options, &Device::cpu()).encode(&texts).unwrap().vectors;
        assert_eq!(expected.cols(), options.truncate_dim.unwrap_or(40));
        assert!(expected != plain, "the prompt changes vectors");
        for device in gpus() {
            let encoder = load(&folder, &options, &device);
            assert!(!encoder.makes_codes());
            let found = encoder.encode(&texts).unwrap().vectors;
            assert_near(&found, &expected, &format!("{device} {:?}", options.truncate_dim));
        }
    }
}

#[test]
fn networks_that_the_kernels_cannot_run_are_refused_when_they_are_loaded() {
    let options = EncoderOptions::default();
    for (hidden, heads, intermediate, expected) in [
        (96, 2, 128, "hidden_size 96 in 2 heads makes each 48 wide, on a GPU one is 32 or 64"),
        (1088, 17, 128, "hidden_size is 1088, on a GPU it is at most 1024"),
        (64, 1, 100, "intermediate_size is 100, on a GPU it is a multiple of 8"),
    ] {
        let folder = Small { hidden, heads, intermediate, ..Small::default() }.write();
        for device in gpus() {
            let error = Encoder::load(folder.path(), &options, &device).err().unwrap().to_string();
            assert!(error.contains("config.json") && error.contains(expected), "{error}");
            assert!(error.contains("use --device cpu"), "{error}");
        }
        if hidden == 96 {
            Encoder::load(folder.path(), &options, &Device::cpu()).unwrap().encode(&["a word"]).unwrap();
        }
    }
    let folder = Small { hidden: 64, heads: 1, intermediate: 104, ..Small::default() }.write();
    let options = EncoderOptions { weights: Some(WeightPrecision::Float8), ..options };
    let error = Encoder::load(folder.path(), &options, &gpus()[0]).err().unwrap();
    let expected = "intermediate_size is 104, in float8 it is a multiple of 16; use float16";
    assert!(error.to_string().contains(expected) && error.kind() == Kind::User, "{error}");
}

#[test]
fn a_vector_that_is_no_number_makes_no_codes_and_its_row_is_named() {
    let options = EncoderOptions::default();
    let word =
        load(&Small::default().write(), &options, &Device::cpu()).tokenize(&["planet"]).unwrap().ids[1];
    let folder = Small { beyond: Some(word), ..Small::default() }.write();
    let mut texts = texts();
    for device in gpus() {
        let encoder = load(&folder, &options, &device);
        let quantizer = Quantizer::try_new(Precision::Ubinary, Rule::Clipped, None, 64).unwrap();
        encoder.encode_codes(&texts, quantizer.code().unwrap()).unwrap();
        // Not of the first pack.
        texts[33].push_str(" planet");
        let error = encoder.encode_codes(&texts, quantizer.code().unwrap()).unwrap_err().to_string();
        assert!(error.contains("row 33, column 0") && error.contains("not a finite number"), "{error}");
        texts.clone_from(&self::texts());
    }
}
