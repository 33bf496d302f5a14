//! How a member of a group shows to the coordinator that it is one, when it commits.

use super::group::Group;
use super::messages::partition_of;
use crate::positions::Covers;
use crate::{Error, Result};
use rdkafka::bindings::{rd_kafka_mem_free, rd_kafka_memberid};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::CStr;
use std::sync::Arc;

/// A member of a consumer group, for the sink that commits its offsets.
#[derive(Clone)]
pub struct Membership {
    consumer: Arc<BaseConsumer<Group>>,
}

impl Membership {
    pub(super) fn new(consumer: Arc<BaseConsumer<Group>>) -> Self {
        Self { consumer }
    }

    /// The member's id and generation, by which the coordinator refuses the offsets of one that it has given up.
    ///
    /// A member that has found out itself that it was given up has no id until it joins again, and the coordinator takes
    /// transactional offsets without an id from anybody: such metadata must never be sent. One that has a name of its own
    /// (`instance`) may even join again under a new id without being told that others had its partitions meanwhile. So
    /// only the id is good under which the group last told it of its partitions, or under which it last asked for what is
    /// committed.
    pub(crate) fn metadata(&self) -> Result<ConsumerGroupMetadata> {
        let gone = || Error::Aborted("the group has given this member's partitions to others".into());
        let metadata = self.consumer.group_metadata().ok_or_else(gone)?;
        // An id that is there after the metadata was taken was in it.
        let is_ours = member_id(&self.consumer).is_some_and(|id| {
            let told = self.consumer.context().shared().member();
            told.as_ref() == Some(&id)
        });
        if is_ours && !self.consumer.assignment_lost() { Ok(metadata) } else { Err(gone()) }
    }

    /// Tells the group how far we are, for those who watch its lag; that may fail, for another place says what is done.
    pub(crate) fn follow(&self, done: &Covers) {
        let mut offsets = TopicPartitionList::new();
        for (split, range) in done {
            let Ok((topic, partition)) = partition_of(split) else { continue };
            // An offset is an i64 there.
            drop(offsets.add_partition_offset(topic, partition, Offset::Offset(range.end as i64)));
        }
        if let Err(error) = self.consumer.commit(&offsets, CommitMode::Async) {
            tracing::debug!("the group is not told of the offsets: {error}");
        }
    }
}

/// The id under which the group knows this member; nothing while it knows none.
pub(super) fn member_id(consumer: &BaseConsumer<Group>) -> Option<String> {
    let client = consumer.client().native_ptr();
    // SAFETY: the client lives as long as `consumer`; the text it returns is ours, ends with a zero byte, and is freed
    // once, by the function that is there for it.
    unsafe {
        let id = rd_kafka_memberid(client);
        if id.is_null() {
            return None;
        }
        let text = CStr::from_ptr(id).to_string_lossy().into_owned();
        rd_kafka_mem_free(client, id.cast());
        (!text.is_empty()).then_some(text)
    }
}
