//! A sentence-transformers folder: which modules it has and what their files say, in the old dialect and the new.
//!
//! Only JSON, safetensors and tokenizer.json are read; code that a folder may bring is never run.

use super::weights::Weights;
use crate::bundle::hex;
use crate::similarity::Similarity;
use crate::{Error, Result};
use kernels::Device;
use kernels::gemm::Packed;
use kernels::gpu::float8;
use kernels::pool::Pooling;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// What a user may change of an encoder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderOptions {
    /// The longest text in tokens. Absent: what the folder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Keeps the first dimensions only (for models trained so). Absent: what the folder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate_dim: Option<usize>,
    /// The name of one of the folder's prompts. Absent: the folder's default prompt, which most folders lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// In which numbers the layers compute. Absent: float32 on a processor, float16 on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightPrecision>,
}

/// In which numbers an encoder's linear layers and its attention compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightPrecision {
    /// On a processor, as the model was trained; with AMX to 2⁻¹⁶ of each product ([`kernels::halves`]).
    #[default]
    Float32,
    /// On a processor: weights as 8-bit codes per output, inputs quantized per token. Several times faster, vectors
    /// nearly the same.
    Int8,
    /// On a GPU: activations and weights to 2⁻¹¹, sums in f32.
    Float16,
    /// On a GPU: to 2⁻⁸, for models whose activations are beyond what float16 holds.
    Bfloat16,
    /// On a GPU of compute capability 9.0: dense layers as 8-bit floats, weights scaled per output, inputs per token; all
    /// else as in float16 ([`kernels::gpu::float8`]).
    Float8,
}

impl WeightPrecision {
    /// Its name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Int8 => "int8",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Float8 => "float8",
        }
    }

    /// The precision to compute in on `device`: the wanted one, or the most exact that is fast there.
    pub(super) fn on(wanted: Option<Self>, device: &Device) -> Result<Self> {
        match (device, wanted) {
            (Device::Cpu(_), Some(Self::Int8)) => Ok(Self::Int8),
            // Between these two a device takes its own: models fitted on one label on the other.
            (Device::Cpu(_), None | Some(Self::Float32 | Self::Float16)) => Ok(Self::Float32),
            (Device::Cuda(_), None | Some(Self::Float32 | Self::Float16)) => Ok(Self::Float16),
            (Device::Cuda(_), Some(Self::Bfloat16)) => Ok(Self::Bfloat16),
            (Device::Cuda(gpus), Some(Self::Float8)) if gpus.iter().all(|gpu| float8::serve(gpu)) => {
                Ok(Self::Float8)
            }
            (_, Some(wanted)) => {
                let has = match (device, wanted) {
                    (Device::Cpu(_), _) => {
                        "a processor computes in float32 or int8; leave it out, or use a GPU"
                    }
                    (Device::Cuda(_), Self::Float8) => {
                        "it needs GPUs of compute capability 9.0 (H100, H200); use float16, or --device cuda:N for one"
                    }
                    (Device::Cuda(_), _) => "a GPU computes in float16, bfloat16 or float8; use --device cpu",
                };
                Err(Error::setting("weights", format!("{} is not for device {device}: {has}", wanted.name())))
            }
        }
    }

    /// Whether vectors are those of float32 but for rounding that no label shows.
    fn is_nearly_exact(self) -> bool {
        matches!(self, Self::Float32 | Self::Float16)
    }
}

impl FromStr for WeightPrecision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::Float32, Self::Int8, Self::Float16, Self::Bfloat16, Self::Float8];
        all.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let choices = all.map(Self::name).join(", ");
            Error::setting("weights", format!("unknown \"{name}\", expected one of {choices}"))
        })
    }
}

/// What makes an encoder the one it is: two encoders of equal identity give equal vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The folder's name, or that of a remote model.
    pub name: String,
    /// sha256 of `model.safetensors`; of a remote model, of its name.
    pub weights_sha256: String,
    /// sha256 of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// sha256 of what follows the network: `modules.json` and each module's configuration and weights.
    pub modules_sha256: String,
    /// Dimensions of a vector.
    pub dim: usize,
    /// The longest text in tokens; 0 where a remote model does not say it.
    pub max_length: usize,
    /// Text put before each text.
    pub prompt: String,
    /// Whether vectors have length 1.
    pub normalised: bool,
    /// In which numbers the layers compute.
    #[serde(default)]
    pub weight_precision: WeightPrecision,
}

impl Identity {
    /// Says in which properties `other` differs from this one, but for the folder's name.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let told = |what: &str, here: String, there: String| {
            (here != there).then(|| format!("{what} {there}, expected {here}"))
        };
        // A model fitted on a processor labels on a GPU, and the other way round.
        let of = |identity: &Self| match identity.weight_precision {
            precision if precision.is_nearly_exact() => WeightPrecision::Float32,
            precision => precision,
        };
        let hash = |hash: &str| format!("sha256 {}...", hash.get(..12).unwrap_or(hash));
        let all = [
            told("dimensions", self.dim.to_string(), other.dim.to_string()),
            told("max length", self.max_length.to_string(), other.max_length.to_string()),
            told("prompt", format!("{:?}", self.prompt), format!("{:?}", other.prompt)),
            told("normalised", self.normalised.to_string(), other.normalised.to_string()),
            told("weights in", of(self).name().into(), of(other).name().into()),
            told("weights", hash(&self.weights_sha256), hash(&other.weights_sha256)),
            told("tokenizer", hash(&self.tokenizer_sha256), hash(&other.tokenizer_sha256)),
            told("modules", hash(&self.modules_sha256), hash(&other.modules_sha256)),
        ];
        all.into_iter().flatten().collect()
    }
}

/// An opened folder.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) model_type: String,
    pub(super) vocab_size: usize,
    pub(super) max_length: usize,
    pub(super) pooling: Vec<Pooling>,
    pub(super) include_prompt: bool,
    pub(super) normalise: bool,
    pub(super) prompt: String,
    pub(super) weight_precision: WeightPrecision,
    pub(super) truncate_dim: Option<usize>,
    pub(super) similarity: Similarity,
    dense: Vec<PathBuf>,
    /// Every module's folder, in order.
    modules: Vec<PathBuf>,
    pub(super) lower_case: bool,
}

/// A dense layer after pooling.
pub(super) struct Dense {
    pub(super) weight: Packed,
    pub(super) bias: Vec<f32>,
    pub(super) tanh: bool,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    r#type: String,
}

#[derive(Deserialize, Default)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Deserialize, Default)]
struct Prompts {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
    truncate_dim: Option<usize>,
    similarity_fn_name: Option<String>,
}

#[derive(Deserialize)]
struct BaseConfig {
    model_type: String,
    vocab_size: usize,
    max_position_embeddings: usize,
}

#[derive(Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "with_bias")]
    bias: bool,
    #[serde(default)]
    activation_function: Option<String>,
}

/// sentence-transformers' default.
fn with_bias() -> bool {
    true
}

impl Folder {
    pub(super) fn open(path: &Path, options: &EncoderOptions, device: &Device) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::model(path, "is no folder"));
        }
        let base: BaseConfig = required(path, "config.json")?;
        let modules: Vec<Module> = required(path, "modules.json")?;
        let prompts: Prompts = optional(path, "config_sentence_transformers.json")?.unwrap_or_default();
        let sentence: SentenceConfig = optional(path, "sentence_bert_config.json")?.unwrap_or_default();

        let mut folder = Self {
            path: path.into(),
            model_type: base.model_type,
            vocab_size: base.vocab_size,
            max_length: 0,
            pooling: Vec::new(),
            include_prompt: true,
            normalise: false,
            prompt: prompt(path, &prompts, options)?,
            weight_precision: WeightPrecision::on(options.weights, device)?,
            truncate_dim: options.truncate_dim.or(prompts.truncate_dim),
            similarity: similarity(path, &prompts)?,
            dense: Vec::new(),
            modules: Vec::new(),
            lower_case: sentence.do_lower_case,
        };
        for module in &modules {
            let inside = Path::new(&module.path).components().all(|c| matches!(c, Component::Normal(_)));
            if !inside {
                let reason = format!("names the path \"{}\", which leaves the folder", module.path);
                return Err(Error::model(path.join("modules.json"), reason));
            }
            let at = path.join(&module.path);
            folder.modules.push(at.clone());
            // The last component names the module in every dialect.
            match module.r#type.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => folder.read_pooling(&at)?,
                "Dense" => folder.dense.push(at),
                "Normalize" => folder.normalise = true,
                other => {
                    return Err(Error::model(
                        path.join("modules.json"),
                        format!(
                            "unknown module \"{other}\", expected \"Transformer\", \"Pooling\", \"Dense\" or \"Normalize\""
                        ),
                    ));
                }
            }
        }
        if folder.pooling.is_empty() {
            return Err(Error::model(path.join("modules.json"), "names no Pooling module"));
        }
        let positions = base.max_position_embeddings;
        folder.max_length =
            options.max_length.or(sentence.max_seq_length).unwrap_or(model_max_length(path)?.min(positions));
        if folder.max_length > positions {
            return Err(Error::setting(
                "max_length",
                format!("{} is more than the model's {positions} positions", folder.max_length),
            ));
        }
        Ok(folder)
    }

    /// `config.json` as the network's own configuration.
    pub(super) fn config<T: DeserializeOwned>(&self) -> Result<T> {
        required(&self.path, "config.json")
    }

    /// Loads the dense layers; `width` goes in as pooling's width and comes out as the last layer's.
    pub(super) fn load_dense(&self, width: &mut usize) -> Result<Vec<Dense>> {
        let mut layers = Vec::new();
        for at in &self.dense {
            let config: DenseConfig = required(at, "config.json")?;
            if config.in_features != *width {
                return Err(Error::model(
                    at.join("config.json"),
                    format!("in_features is {}, but the layer before gives {width}", config.in_features),
                ));
            }
            let activation = config.activation_function.unwrap_or_default();
            let tanh = match activation.rsplit('.').next().unwrap_or_default() {
                "Tanh" | "" => true,
                "Identity" => false,
                other => {
                    return Err(Error::model(
                        at.join("config.json"),
                        format!("activation_function is \"{other}\", expected \"Tanh\" or \"Identity\""),
                    ));
                }
            };
            let w = Weights::open(at, "model.safetensors")?;
            let weight = w.tensor("linear.weight", &[config.out_features, config.in_features])?;
            let bias = match config.bias {
                true => w.tensor("linear.bias", &[config.out_features])?,
                false => vec![0.0; config.out_features],
            };
            let weight = Packed::from_linear(&weight, config.out_features, config.in_features);
            layers.push(Dense { weight, bias, tanh });
            *width = config.out_features;
        }
        Ok(layers)
    }

    /// The identity of the encoder that this folder makes.
    pub(super) fn identity(&self, dim: usize) -> Result<Identity> {
        Ok(Identity {
            name: self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            weights_sha256: sha256(&self.path.join("model.safetensors"))?,
            tokenizer_sha256: sha256(&self.path.join("tokenizer.json"))?,
            modules_sha256: self.modules_sha256()?,
            dim,
            max_length: self.max_length,
            prompt: self.prompt.clone(),
            normalised: self.normalise,
            weight_precision: self.weight_precision,
        })
    }

    fn modules_sha256(&self) -> Result<String> {
        let mut files = vec![self.path.join("modules.json")];
        for module in self.modules.iter().filter(|at| **at != self.path) {
            files.extend(["config.json", "model.safetensors"].map(|name| module.join(name)));
        }
        let mut hash = Sha256::new();
        for file in files.iter().filter(|file| file.is_file()) {
            hash.update(std::fs::read(file).map_err(|e| Error::io(file, e))?);
        }
        Ok(hex(&hash.finalize()))
    }

    fn read_pooling(&mut self, at: &Path) -> Result<()> {
        let config: BTreeMap<String, Value> = required(at, "config.json")?;
        let file = at.join("config.json");
        self.include_prompt = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
        // The order in which sentence-transformers concatenates several modes.
        const MODES: [(&str, &str, Pooling); 6] = [
            ("cls", "pooling_mode_cls_token", Pooling::Cls),
            ("max", "pooling_mode_max_tokens", Pooling::Max),
            ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
            ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
            ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
            ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
        ];
        let named: Vec<String> = match config.get("pooling_mode") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(Into::into).collect(),
            Some(other) => {
                return Err(Error::model(file, format!("pooling_mode is {other}, expected a name")));
            }
        };
        if let Some(unknown) = named.iter().find(|n| !MODES.iter().any(|m| m.0 == n.as_str())) {
            let choices: Vec<&str> = MODES.iter().map(|m| m.0).collect();
            return Err(Error::model(
                file,
                format!("unknown pooling_mode \"{unknown}\", expected {choices:?}"),
            ));
        }
        for (name, flag, mode) in MODES {
            if named.iter().any(|n| n == name) || config.get(flag).and_then(Value::as_bool) == Some(true) {
                self.pooling.push(mode);
            }
        }
        if self.pooling.is_empty() {
            return Err(Error::model(file, "names no pooling mode"));
        }
        Ok(())
    }
}

/// The prompt that goes before each text.
fn prompt(path: &Path, prompts: &Prompts, options: &EncoderOptions) -> Result<String> {
    let Some(name) = options.prompt.as_ref().or(prompts.default_prompt_name.as_ref()) else {
        return Ok(String::new());
    };
    prompts.prompts.get(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = prompts.prompts.keys().map(String::as_str).collect();
        let choices = match known.as_slice() {
            [] => "it has none at all".into(),
            known => format!("expected one of {}", known.join(", ")),
        };
        Error::setting("prompt", format!("{} has no prompt \"{name}\": {choices}", path.display()))
    })
}

/// How vectors of the model are compared.
fn similarity(path: &Path, config: &Prompts) -> Result<Similarity> {
    let Some(name) = &config.similarity_fn_name else { return Ok(Similarity::default()) };
    name.parse()
        .map_err(|reason: String| Error::model(path.join("config_sentence_transformers.json"), reason))
}

/// What the tokenizer's configuration says; some say 1e30 for "no limit".
fn model_max_length(path: &Path) -> Result<usize> {
    let config: BTreeMap<String, Value> = optional(path, "tokenizer_config.json")?.unwrap_or_default();
    let length = config.get("model_max_length").and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    // A float to integer cast saturates.
    Ok(length as usize)
}

fn required<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T> {
    optional(folder, name)?.ok_or_else(|| {
        Error::model(folder, format!("has no {name}; expected a sentence-transformers folder"))
    })
}

fn optional<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<Option<T>> {
    let path = folder.join(name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::model(path, format!("cannot be read: {e}")))
}

fn sha256(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    Ok(hex(&Sha256::digest(&bytes)))
}
