//! What quantized embeddings would do to a job's topics.

use super::EvalArgs;
use crate::commands::draw::{draw, embed, leave_out_blank};
use crate::commands::input::{VectorSource, check_apart};
use crate::commands::output::Output;
use crate::commands::{Context, count};
use crate::sources::Columns;
use crate::worker::on_worker;
use crate::{Error, Result};
use operators::evaluate::{Audit, AuditConfig, audit};
use operators::reducers::Reducer;
use operators::text::Template;
use operators::vectors::{Counters, Vectors};
use std::sync::Arc;

pub(super) async fn run(context: &Context, args: EvalArgs) -> Result<()> {
    let job = args.job()?;
    job.fit.check()?;
    let Reducer::Umap(umap) = job.fit.reducer.clone() else {
        let reason = "none, but the audit compares layouts: it needs umap";
        return Err(Error::setting("fit.reducer", reason));
    };
    let seeds = (umap.seed..).take(args.seeds as usize).collect(); // at most a thousand
    let config = AuditConfig { umap, clusterer: job.fit.clusterer.clone(), seeds };
    let out = args.out.as_deref().map(|path| Output::open(path, args.overwrite)).transpose()?;

    let text = job.text.as_deref().map(Template::parse).transpose()?;
    let vectors = VectorSource::try_new(&job.encoder, job.text.as_deref(), None)?;
    let texts = text.iter().flat_map(Template::columns).map(Into::into);
    let columns = Columns::only(texts.chain(vectors.columns()).chain(job.id.clone()));
    let mut source = vectors.open(&job, columns, job.id.as_deref()).await?;
    if let Some(out) = &out {
        check_apart(source.as_ref(), &out.path().display().to_string())?;
    }
    let text = text.map(|text| text.bind(&source.schema())).transpose()?;
    let vectors = vectors.load(context).await?;
    let mut drawn = draw(context, &job, source.as_mut(), text.as_ref()).await?;
    args.input.judge_skipped(source.bad())?;

    let counters = Arc::new(Counters::default());
    let (progress, device, shared) =
        (Arc::clone(&context.progress), context.device.clone(), Arc::clone(&counters));
    let found = on_worker(move || {
        let mut texts = Vec::new();
        if let (Vectors::Encoded { .. }, Some(text)) = (&vectors, &text) {
            leave_out_blank(&mut drawn, text)?;
            let rendered = text.render(&drawn.rows)?;
            shared.note_missing(&rendered.missing);
            texts = rendered.texts.iter().map(|text| text.unwrap_or_default().to_string()).collect();
        }
        let vectors = embed(&drawn.rows, &vectors, &texts, &shared, &progress)?;
        let found = audit(&vectors, config, &device, progress.as_ref())?;
        progress.finish();
        Ok(found)
    })
    .await?;
    args.input.judge(&counters)?;
    let facts = serde_json::to_value(&found).map_err(|e| Error::Internal(format!("audit as JSON: {e}")))?;
    // The file first: standard output may be closed.
    out.map_or(Ok(()), |out| out.write(&format!("{facts:#}\n")))?;
    context.show(args.format, || table(&found), &facts)
}

fn table(audit: &Audit) -> String {
    let mut text = format!(
        "{}, {} a form; 8-bit ranges of {}\n\n{:<18} {:>9} {:>9} {:>15} {:>9} {:>10} {:>13}\n",
        count(audit.rows as u64, "row"),
        count(audit.config.seeds.len() as u64, "fit"),
        count(audit.calibration_rows as u64, "row"),
        "form",
        "recall@10",
        format!("recall@{}", audit.config.umap.n_neighbors.min(audit.rows - 1) - 1),
        "topics",
        "outliers",
        "AMI to f32",
        "between seeds",
    );
    for form in &audit.forms {
        let topics = format!("{:.1} ± {:.1}", form.topics, form.topics_deviation);
        let between = form.ami_between_seeds.map_or("-".into(), |ami| format!("{ami:.3}"));
        text.push_str(&format!(
            "{:<18} {:>9.4} {:>9.4} {topics:>15} {:>7.1} % {:>10.3} {between:>13}\n",
            form.form.name(),
            form.recall_at_10,
            form.recall_at_k,
            100.0 * form.outlier_share,
            form.ami_to_float32,
        ));
    }
    text
}
