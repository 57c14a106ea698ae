//! What a shared store needs of the cluster behind it.

/// A row as a cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Without the prefix.
    pub key: String,
    /// What it says.
    pub value: String,
    /// The revision of the cluster that wrote it last.
    pub revision: u64,
}

/// Everything under the prefix, at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Which.
    pub revision: u64,
    /// In order of keys.
    pub rows: Vec<Row>,
}

/// What was written since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The revision that this is complete up to.
    pub revision: u64,
    /// Keys, what they say from then on, and the revision that made it so.
    pub rows: Vec<(String, Option<String>, u64)>,
}

/// Writes that are done together if nobody else has written the same rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// A key, the revision that wrote it last as far as is known here (0 if it should not be there), and what it is to say
    /// (nothing: it is deleted).
    pub rows: Vec<(String, u64, Option<String>)>,
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it is written, at this revision.
    Applied(u64),
    /// Nothing is: somebody else has written some of it. How its rows are, and the revision that was looked at.
    Overtaken(u64, Vec<Row>),
}

/// Why a cluster did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Nobody answers, or not whom we trust.
    #[error("{0}")]
    Unreachable(String),
    /// What is to be watched from is not known any more.
    #[error("the cluster has forgotten what was written since")]
    Forgotten,
    /// It answers, and says no.
    #[error("the cluster refuses: {0}")]
    Refused(String),
    /// It answers what cannot be understood.
    #[error("an answer that cannot be understood: {0}")]
    Strange(String),
}

/// A cluster, as far as writing goes.
pub trait Cluster: Send {
    /// Where it is, for messages.
    fn name(&self) -> String;

    /// Does all of it or nothing. After an error it may be done all the same.
    fn transact(&mut self, transaction: &Transaction) -> Result<Done, ClusterError>;
}
