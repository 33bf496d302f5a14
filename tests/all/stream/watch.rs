//! What a stream notices of its rows: topics that emerge among the outliers, and drift.

use anyhow::{Context, Result};
use harness::kafka::Cluster;
use harness::tables::Blobs;

use super::{Stream, blobs, blobs_of};
use crate::models::BLOBS;

/// The words of the cluster that the model does not know.
const WORDS: [&str; 4] = ["turbine", "voltage", "generator", "transformer"];

#[test]
fn a_topic_that_the_model_does_not_know_is_noticed() -> Result<()> {
    let kafka = Cluster::shared()?;
    let stream = Stream::new(&kafka, 1)?;
    let events = kafka.topic("events", 1)?;
    let job = stream.job_with(
        "",
        &format!("events: {events},"),
        "text: \"{text}\"\nid: id\n\
         stream: { batch_rows: 100, monitor: { window_rows: 500, min_rows: 25, every_seconds: 0 } }\n",
    )?;
    kafka.produce(&stream.input, &blobs(0, 1000, 1)?)?;
    stream.run(&job)?;
    assert!(kafka.read(&events)?.is_empty(), "rows like the sample are no news");

    // A fifth of these lies where the sample has nothing.
    kafka.produce(&stream.input, &blobs_of(Blobs { clusters: 5, ..BLOBS }, 1000, 1000, 1)?)?;
    stream.run(&job)?;
    let found: Vec<serde_json::Value> =
        kafka.read(&events)?.iter().map(|record| record.json()).collect::<Result<_>>()?;
    let emerging: Vec<_> = found.iter().filter(|event| event["kind"] == "emerging_topic").collect();
    assert_eq!(emerging.len(), 1, "{found:#?}");
    let words = emerging[0]["words"].as_array().context("words")?;
    let is_known = |word: &serde_json::Value| {
        word.as_str().is_some_and(|word| WORDS.iter().any(|known| word.contains(known)))
    };
    assert!(words.iter().take(4).all(is_known), "{words:?}");
    assert!(emerging[0]["rows"].as_u64() >= Some(25) && emerging[0]["lift"].as_f64() >= Some(4.0));
    assert!(emerging[0]["examples"][0].as_str().is_some_and(|text| text.split(' ').count() == 3));
    assert!(emerging[0]["ids"][0].as_str().is_some_and(|id| id.parse::<i64>().is_ok()));
    assert!(emerging[0]["message"].as_str().is_some_and(|text| text.contains("emerging topic")));
    let drift: Vec<_> = found.iter().filter(|event| event["kind"] == "drift").collect();
    assert_eq!(drift.len(), 2, "{drift:#?}");
    assert_eq!((&drift[0]["measure"], &drift[0]["window"]), (&"outlier_share".into(), &1.into()));
    assert_eq!(drift[1]["measure"], "neighbour_distance");
    Ok(())
}
