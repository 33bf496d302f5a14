//! An encoder behind an endpoint: vectors that another machine makes.
//!
//! Encoders are called from threads that compute; this one waits there for the endpoint's answers.

use super::{Encoded, Identity, WeightPrecision};
use crate::bundle::hex;
use crate::endpoint::embeddings::{Embeddings, RemoteConfig};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::runtime::Handle;

/// A text whose vector says how many numbers a vector has.
const PROBE: &str = "topic";

/// Between two looks at whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A model of vectors behind an endpoint, called from threads that compute.
pub(super) struct Remote {
    embeddings: Embeddings,
    runtime: Handle,
    /// Numbers of a vector; 0 until one is known.
    dim: usize,
}

impl Remote {
    /// Opens the endpoint and asks it for one vector, to know its dimensions.
    ///
    /// # Errors
    /// As [`Embeddings::open`] and [`Embeddings::embed`]; `Internal` outside of an async runtime.
    pub(super) fn open(config: &RemoteConfig) -> Result<(Self, Identity)> {
        let runtime = Handle::try_current().map_err(|e| Error::Internal(format!("a remote encoder: {e}")))?;
        let mut remote = Self { embeddings: Embeddings::open("encoder.remote", config)?, runtime, dim: 0 };
        let probe = remote.encode(&[PROBE], &|| true)?.vectors;
        remote.dim = probe.cols();
        if let Some(asked) = config.dimensions.filter(|asked| *asked != remote.dim) {
            let reason = format!("{asked} were asked for, but the endpoint's vectors have {}", remote.dim);
            return Err(Error::setting("encoder.remote.dimensions", reason));
        }
        let [norm] =
            probe.iter_rows().map(|row| row.iter().map(|v| v * v).sum::<f32>()).collect::<Vec<_>>()[..]
        else {
            return Err(Error::Internal("a probe without a vector".into()));
        };
        let identity = Identity {
            name: config.model.clone(),
            weights_sha256: hex(&Sha256::digest(&config.model)),
            tokenizer_sha256: String::new(),
            modules_sha256: String::new(),
            dim: probe.cols(),
            max_length: 0,
            prompt: String::new(),
            normalised: (norm - 1.0).abs() < 1e-3,
            weight_precision: WeightPrecision::default(),
        };
        Ok((remote, identity))
    }

    /// Returns the vectors of `texts`, unless `go_on` says no meanwhile. Tokens are counted by the endpoint.
    pub(super) fn encode<T: AsRef<str>>(&self, texts: &[T], go_on: &dyn Fn() -> bool) -> Result<Encoded> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let before = self.embeddings.endpoint().usage().input_tokens;
        let vectors = self.runtime.block_on(async {
            let stopped = async {
                while go_on() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            tokio::select! {
                vectors = self.embeddings.embed(&texts, self.dim) => Ok(vectors?),
                () = stopped => Err(Error::Stopped("encoding")),
            }
        })?;
        let tokens = self.embeddings.endpoint().usage().input_tokens.saturating_sub(before);
        Ok(Encoded { vectors, tokens, ..Encoded::default() })
    }
}

impl Drop for Remote {
    /// Says what was spent, once all is done.
    fn drop(&mut self) {
        tracing::info!("encoder {}: {}", self.embeddings.config().model, self.embeddings.endpoint().usage());
    }
}
