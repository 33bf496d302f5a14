//! How good a model's topics are: by themselves, and against known classes.

use super::EvalArgs;
use crate::commands::columns::values_of_rows;
use crate::commands::output::Output;
use crate::commands::{Context, count};
use crate::error::Error;
use crate::sources::SourceConfig;
use crate::{Result, models};
use operators::bundle::Wanted;
use operators::evaluate::{TopicAgreement, inverted_rbo, topic_agreement};
use operators::model::Model;
use serde_json::json;

pub(super) async fn run(context: &Context, mut args: EvalArgs) -> Result<()> {
    // The one argument without a flag is a job file or a model's folder.
    let named = args.input.job.take_if(|path| path.is_dir() || path.to_string_lossy().contains("://"));
    let job = args.job()?;
    let place = named.map(|path| path.to_string_lossy().into_owned()).or(job.model.clone());
    let place = place.ok_or_else(|| {
        Error::setting("model", "nothing to judge: name a model's folder, or say --quantization")
    })?;
    let out = args.out.as_deref().map(|path| Output::open(path, args.overwrite)).transpose()?;
    let found = models::find(&place).await?;
    let model = models::load(&found, Wanted::Labelling).await?;
    let agreement = match &args.labels {
        None => None,
        Some(column) => {
            let Some(SourceConfig::Table(table)) = &job.source else {
                let reason = "needs --input, a table with the fitted rows";
                return Err(Error::setting("--labels", reason));
            };
            let classes = values_of_rows(&model, &table.path, column, "--labels").await?;
            Some(agreement(&model, &classes)?)
        }
    };
    let words: Vec<Vec<&str>> = model
        .topics
        .iter()
        .map(|topic| topic.words.iter().map(|(word, _)| word.as_str()).collect())
        .collect();
    let mut metrics = model.metrics.clone();
    if let Some(rbo) = inverted_rbo(&words, 10) {
        metrics.insert("inverted_rbo".into(), rbo);
    }
    let facts = json!({
        "model": found.folder, "topics": model.topics.len(), "rows": model.sample.len(), "metrics": metrics,
        "agreement": agreement,
    });
    let table = || {
        let mut text = format!(
            "{}: {} in {}\n\n",
            found.folder,
            count(model.topics.len() as u64, "topic"),
            count(model.sample.len() as u64, "row")
        );
        for (name, value) in &metrics {
            text.push_str(&format!("{name:<18} {value:>8.4}\n"));
        }
        if let Some(agreement) = &agreement {
            text.push_str(&beside_classes(agreement));
        }
        text
    };
    // The file first: standard output may be closed.
    out.map_or(Ok(()), |out| out.write(&format!("{facts:#}\n")))?;
    context.show(args.format, table, &facts)
}

/// Compares the topics of the rows that have a class with it.
fn agreement(model: &Model, classes: &[Option<String>]) -> Result<TopicAgreement> {
    let known = classes.iter().zip(&model.sample.topics);
    let (truth, topics): (Vec<&String>, Vec<i32>) =
        known.filter_map(|(class, topic)| Some((class.as_ref()?, *topic))).unzip();
    Ok(topic_agreement(&truth, &topics)?)
}

fn beside_classes(agreement: &TopicAgreement) -> String {
    let mut text = format!(
        "\nagainst the classes; {:.1} % of the rows have a topic\n{:<18} {:>8} {:>8}\n",
        100.0 * agreement.coverage,
        "",
        "these",
        "all rows",
    );
    let (inside, all) = (&agreement.inside, &agreement.all);
    for (name, inside, all) in [
        ("ARI", inside.ari, all.ari),
        ("AMI", inside.ami, all.ami),
        ("V-measure", inside.v_measure, all.v_measure),
        ("homogeneity", inside.homogeneity, all.homogeneity),
        ("completeness", inside.completeness, all.completeness),
        ("FMI", inside.fmi, all.fmi),
    ] {
        text.push_str(&format!("{name:<18} {inside:>8.4} {all:>8.4}\n"));
    }
    text + "Over all rows each outlier is a topic of its own.\n"
}
