//! What was sent and is not answered yet. Each unit ends with a ReadyForQuery of its own, so that its error harms no other.
use std::collections::VecDeque;
use std::sync::Arc;

use super::error::ServerError;
use super::follow::Told;
use super::statements::{Column, Columns, Description, Text};
use super::types::Oid;
use crate::proto::RequestId;

/// A part of a request: where its reply belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub id: RequestId,
    /// Counts requests in the order of their coming.
    pub sequence: u64,
    /// Which reply of a batch it is.
    pub part: Option<u32>,
    /// The rows are wanted as they come.
    pub streams: bool,
}

/// A statement that is being learnt.
#[derive(Debug)]
pub struct Draft {
    pub text: Text,
    /// The name it is prepared under. 0: unnamed.
    pub number: u64,
    /// Sent before its request's turn: what comes before may change what it means.
    pub ahead: bool,
    pub parameters: Vec<Oid>,
    pub columns: Vec<Column>,
    /// Types that the catalog was asked for.
    pub asked: Vec<Oid>,
}

/// One execution of a statement.
#[derive(Debug)]
pub struct Execution {
    pub owner: Owner,
    pub description: Arc<Description>,
    /// It brought the statement along: under this name, it is prepared once the server has said so.
    pub parses: bool,
    pub number: u64,
    /// The request's part, if it may be sent once more.
    pub again: Option<Box<[u8]>>,
    /// It may commit by itself what comes before an error.
    pub procedure: bool,
}

#[derive(Debug)]
pub enum Kind {
    /// Parse and Describe.
    Describe(Box<Draft>),
    /// The catalog's words on types.
    Learn(Box<Draft>),
    Execute(Box<Execution>),
    Script {
        owner: Owner,
        procedure: bool,
        /// The request's part, if it may be sent once more.
        body: Option<Box<[u8]>>,
    },
    Copy {
        owner: Owner,
        /// More may be sent to the server.
        open: bool,
    },
    Heartbeat,
    Role,
    /// Takes a tenant's transaction off the conn.
    Rollback,
    /// Takes a tenant's session off the conn.
    Discard,
    Listen(Box<[u8]>),
    Unlisten(Box<[u8]>),
}

impl Kind {
    /// The request that its reply belongs to.
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Kind::Execute(execution) => Some(execution.owner),
            Kind::Script { owner, .. } | Kind::Copy { owner, .. } => Some(*owner),
            _ => None,
        }
    }
}

/// What came of the unit at the head so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// ParseComplete.
    pub parsed: bool,
    /// BindComplete: from there on, the statement may have done something.
    pub bound: bool,
    pub error: Option<ServerError>,
    /// The columns of the open result, where they are not those of the description.
    pub columns: Option<Columns>,
    pub role: Option<Told>,
}

/// FIFO correlation.
#[derive(Debug, Default)]
pub struct Units {
    queue: VecDeque<Kind>,
    pub head: Progress,
    /// Units that are more than heartbeats: while one is under way, no heartbeat would be answered.
    busy: usize,
}

impl Units {
    pub fn push(&mut self, kind: Kind) {
        self.busy += usize::from(is_busy(&kind));
        self.queue.push_back(kind);
    }

    pub fn front(&self) -> Option<&Kind> {
        self.queue.front()
    }

    pub fn front_mut(&mut self) -> Option<&mut Kind> {
        self.queue.front_mut()
    }

    /// The unit at the head, and what came of it.
    #[inline]
    pub fn front_and_head(&mut self) -> (Option<&mut Kind>, &mut Progress) {
        (self.queue.front_mut(), &mut self.head)
    }

    /// The COPY of a request, and whether it is known to have failed.
    pub fn copy_mut(&mut self, id: RequestId) -> Option<(&mut bool, bool)> {
        let at = self.queue.iter().rposition(|kind| matches!(kind, Kind::Copy { owner, .. } if owner.id == id))?;
        let has_failed = at == 0 && self.head.error.is_some();
        match self.queue.get_mut(at) {
            Some(Kind::Copy { open, .. }) => Some((open, has_failed)),
            _ => None,
        }
    }

    /// The unit at the head is over.
    pub fn pop(&mut self) -> Option<(Kind, Progress)> {
        let kind = self.queue.pop_front()?;
        self.busy -= usize::from(is_busy(&kind));
        Some((kind, std::mem::take(&mut self.head)))
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn is_busy(&self) -> bool {
        self.busy > 0
    }

    pub fn iter(&self) -> impl Iterator<Item = &Kind> {
        self.queue.iter()
    }

    pub fn is_learning(&self, text: &[u8]) -> bool {
        self.queue.iter().any(|kind| match kind {
            Kind::Describe(draft) | Kind::Learn(draft) => *draft.text == *text,
            _ => false,
        })
    }

    pub fn clear(&mut self) {
        *self = Units::default();
    }
}

fn is_busy(kind: &Kind) -> bool {
    !matches!(kind, Kind::Heartbeat | Kind::Role)
}
