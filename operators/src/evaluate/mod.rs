//! How good topics are: numbers from the texts alone, and numbers against known labels.
//!
//! | measure | asks | file |
//! |---|---|---|
//! | NPMI | do a topic's words occur together? | [`coherence`] |
//! | topic diversity, inverted RBO | do topics have words of their own? | [`diversity`] |
//! | DBCV | does density separate topics? | [`mod@dbcv`] |
//! | the gate | is a fit good enough to be written? | [`gate`] |
//! | audit of quantization | do quantized embeddings make other topics? | [`quantization`] |
//! | ARI, AMI, NMI, V-measure, FMI | do topics agree with known labels? | [`mod@agreement`] |
//!
//! Coherence alone rewards topics that repeat each other and diversity alone rewards noise: read them together.

pub mod agreement;
pub mod coherence;
pub mod dbcv;
pub mod diversity;
pub mod gate;
pub mod quantization;

pub use agreement::{Agreement, TopicAgreement, agreement, topic_agreement};
pub use coherence::{Coherence, CoherenceConfig, Window, npmi};
pub use dbcv::{Dbcv, dbcv};
pub use diversity::{inverted_rbo, topic_diversity};
pub use gate::GateConfig;
pub use quantization::{Audit, AuditConfig, Form, FormAudit, audit};
