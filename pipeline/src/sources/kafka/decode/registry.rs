//! A schema registry, as Confluent's API has it (`GET /schemas/ids/ID`), which others serve too.

use crate::{Error, Result};
use operators::endpoint::secret::{Secret, expanded};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// The longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For how long an id that is not there is not asked for again: a stream of such messages is not to flood the registry.
const ABSENT_FOR: Duration = Duration::from_secs(30);

/// Where schemas are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Its address, to which `/schemas/ids/ID` is added, or `${VARIABLE}`.
    pub url: String,
    /// Who we are. Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Where the password is: `${VARIABLE}` or `file:PATH`; never the password itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A registry, and what it has told.
pub(super) struct Registry {
    client: reqwest::Client,
    url: String,
    login: Option<(String, Secret)>,
    absent: HashMap<u32, (Instant, String)>,
}

/// What the registry answers.
#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

impl Registry {
    /// Checks the settings; nothing is asked yet.
    pub(super) fn open(config: &RegistryConfig) -> Result<Self> {
        let name = "source.kafka.registry";
        let url = expanded(&format!("{name}.url"), &config.url)?.trim_end_matches('/').to_string();
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            let reason = format!("\"{url}\" is no address of a schema registry, expected https://host:port");
            return Err(Error::setting(format!("{name}.url"), reason));
        }
        let login = match (&config.username, &config.password) {
            (Some(user), Some(password)) => {
                Some((user.clone(), Secret::read(&format!("{name}.password"), password)?))
            }
            (None, None) => None,
            _ => return Err(Error::setting(name, "has one of username and password, expected both or none")),
        };
        let client = reqwest::Client::builder().timeout(TIMEOUT).build();
        let client = client.map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Self { client, url, login, absent: HashMap::new() })
    }

    /// The schema with this id; the inner error says why there is none for us. Call it where blocking is allowed.
    ///
    /// # Errors
    /// [`Error::Aborted`] where the registry does not answer, for that may pass; [`Error::Place`] where it does not let
    /// us in.
    pub(super) fn schema(&mut self, id: u32) -> Result<std::result::Result<String, String>> {
        if let Some((since, reason)) = self.absent.get(&id)
            && since.elapsed() < ABSENT_FOR
        {
            return Ok(Err(reason.clone()));
        }
        let found = Handle::current().block_on(self.ask(id))?;
        if let Err(reason) = &found {
            self.absent.insert(id, (Instant::now(), reason.clone()));
        }
        Ok(found)
    }

    async fn ask(&self, id: u32) -> Result<std::result::Result<String, String>> {
        let url = &self.url;
        let mut request = self.client.get(format!("{url}/schemas/ids/{id}"));
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password.reveal()));
        }
        let passing = |reason: String| Error::Aborted(format!("schema registry {url}: {reason}"));
        let answer = request.send().await.map_err(|error| passing(error.without_url().to_string()))?;
        match answer.status().as_u16() {
            404 => return Ok(Err(format!("schema {id} is not in the registry"))),
            401 | 403 => {
                return Err(Error::place(
                    url,
                    "the schema registry does not let us in: give username and password",
                ));
            }
            200 => {}
            other => return Err(passing(format!("answers {other}"))),
        }
        let text = answer.bytes().await.map_err(|error| passing(error.without_url().to_string()))?;
        let answer: Answer = serde_json::from_slice(&text)
            .map_err(|error| passing(format!("answers what is no schema: {error}")))?;
        Ok(match answer {
            Answer { kind: Some(kind), .. } if kind != "AVRO" => {
                Err(format!("schema {id} is {kind}, expected Avro"))
            }
            Answer { references, .. } if !references.is_empty() => {
                Err(format!("schema {id} refers to others, which is not supported"))
            }
            Answer { schema, .. } => Ok(schema),
        })
    }
}
