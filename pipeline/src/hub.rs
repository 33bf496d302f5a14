//! Encoders by name: from the caches of this machine, else from the Hugging Face hub.
//!
//! A download goes to thema's own cache: into a folder beside its final name, which is taken only when every file is
//! there. `HF_ENDPOINT` names another hub, `HF_TOKEN` opens private models, `HF_HUB_OFFLINE=1` forbids the network.

use crate::{Error, Result};
use operators::encoders::resolve;
use std::path::PathBuf;

/// Returns the folder of the encoder `name`: a path, a name in a cache, or a name on the hub.
///
/// # Errors
/// Names the places that were looked at and what to put where; where the hub was asked, also its answer.
pub async fn encoder(name: &str) -> Result<PathBuf> {
    let missing = match resolve(name) {
        Ok(folder) => return Ok(folder),
        Err(missing) => missing,
    };
    let offline = std::env::var("HF_HUB_OFFLINE").is_ok_and(|v| !matches!(v.as_str(), "" | "0"));
    if offline || name.split('/').count() != 2 || name.starts_with(['.', '/']) {
        return Err(missing.into());
    }
    download::fetch(name).await.map_err(|failure| {
        let told = format!("{missing}; from the hub it could not be had");
        match failure {
            Failure::Refused(answer) => Error::setting(told, answer),
            Failure::Down(answer) => Error::Service { service: told, reason: answer },
        }
    })
}

/// Why a download failed.
enum Failure {
    /// The hub has no such model, or one that cannot be used: the user must change something.
    Refused(String),
    /// The hub, the way to it or the disk failed.
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "without downloads none fails"))]
    Down(String),
}

#[cfg(not(feature = "cloud"))]
mod download {
    use super::Failure;
    use std::path::PathBuf;

    /// Says that there is no way to the hub.
    pub fn fetch(_name: &str) -> std::future::Ready<Result<PathBuf, Failure>> {
        let built = "this program was built without the feature \"cloud\"";
        std::future::ready(Err(Failure::Refused(built.into())))
    }
}

#[cfg(feature = "cloud")]
mod download {
    use super::Failure::{self, Down, Refused};
    use object_store::http::HttpBuilder;
    use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, path::Path};
    use operators::encoders::cache_folders;
    use std::path::{Component, PathBuf};
    use std::time::Duration;

    /// Files that every sentence-transformers folder has, and files that some have.
    const REQUIRED: [&str; 4] = ["modules.json", "config.json", "tokenizer.json", "model.safetensors"];
    const OPTIONAL: [&str; 3] =
        ["config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json"];

    /// Files that a module's own folder may have.
    const OF_MODULE: [&str; 2] = ["config.json", "model.safetensors"];

    type Answer<T> = Result<T, Failure>;

    pub async fn fetch(name: &str) -> Answer<PathBuf> {
        let hub = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".into());
        let store = open(&format!("{}/{name}/resolve/main", hub.trim_end_matches('/')))?;
        let cache = cache_folders().thema;
        let owned = cache.join(name.replace('/', "--"));
        let partial = cache.join(format!(".{}.{}", name.replace('/', "--"), std::process::id()));
        let result = download(store.as_ref(), &partial).await;
        let moved = match result {
            Ok(()) => {
                std::fs::rename(&partial, &owned).map_err(|e| Down(format!("{}: {e}", owned.display())))
            }
            Err(e) => Err(e),
        };
        if let Err(error) = moved {
            if owned.join("modules.json").is_file() {
                // Another process was faster with the same download.
                return Ok(owned);
            }
            // What is half there must not be found; if it cannot be removed, its name hides it.
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
        tracing::info!("downloaded {name} to {}", owned.display());
        Ok(owned)
    }

    fn open(url: &str) -> Answer<Box<dyn ObjectStore>> {
        // The hub answers with a redirect to its storage; a short time-out, since most failures mean "no network".
        let mut options = ClientOptions::new()
            .with_allow_http(true)
            .with_connect_timeout(Duration::from_secs(10))
            .with_timeout(Duration::from_secs(600));
        if let Ok(token) = std::env::var("HF_TOKEN")
            && let Ok(mut value) = format!("Bearer {token}").parse::<http::HeaderValue>()
        {
            value.set_sensitive(true);
            options =
                options.with_default_headers([(http::header::AUTHORIZATION, value)].into_iter().collect());
        }
        let retry =
            RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
        let store = HttpBuilder::new().with_url(url).with_client_options(options).with_retry(retry).build();
        Ok(Box::new(store.map_err(|e| Refused(e.to_string()))?))
    }

    async fn download(store: &dyn ObjectStore, to: &std::path::Path) -> Answer<()> {
        for file in REQUIRED {
            if !get(store, file, to).await? {
                return Err(Refused(format!("the model has no {file}")));
            }
        }
        for file in OPTIONAL {
            get(store, file, to).await?;
        }
        let modules = std::fs::read(to.join("modules.json")).map_err(|e| Down(e.to_string()))?;
        let modules: Vec<serde_json::Value> =
            serde_json::from_slice(&modules).map_err(|e| Refused(format!("modules.json: {e}")))?;
        for path in modules.iter().filter_map(|m| m["path"].as_str()).filter(|p| !p.is_empty()) {
            if std::path::Path::new(path).components().any(|c| !matches!(c, Component::Normal(_))) {
                let reason = format!("modules.json names the path \"{path}\", which leaves the folder");
                return Err(Refused(reason));
            }
            for file in OF_MODULE {
                get(store, &format!("{path}/{file}"), to).await?;
            }
        }
        Ok(())
    }

    /// Fetches one file; false if the hub has none of that name.
    async fn get(store: &dyn ObjectStore, file: &str, to: &std::path::Path) -> Answer<bool> {
        let bytes = match store.get(&Path::from(file)).await {
            Ok(found) => found.bytes().await.map_err(|e| Down(format!("{file}: {e}")))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            // What the hub says of a name that it does not know, too.
            Err(
                object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. },
            ) => {
                return Err(Refused("the hub knows no such model, or HF_TOKEN does not open it".into()));
            }
            Err(e) => return Err(Down(format!("{file}: {e}"))),
        };
        let path = to.join(file);
        let folder = path.parent().unwrap_or(to);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, &bytes))
            .map_err(|e| Down(format!("{}: {e}", path.display())))?;
        Ok(true)
    }
}
