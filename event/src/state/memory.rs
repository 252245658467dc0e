//! Nodes in memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Node, NodeId, NodeStore};

/// A node store in memory, for tests and for states that nobody keeps.
#[derive(Debug, Default)]
pub struct MemoryNodes {
    nodes: RwLock<HashMap<NodeId, Arc<Node>>>,
}

/// The node is not in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {0} is missing")]
pub struct MissingNode(pub NodeId);

impl MemoryNodes {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds nodes, such as those of [`Overlay::into_new_nodes`](super::Overlay::into_new_nodes).
    pub fn extend(&self, nodes: impl IntoIterator<Item = (NodeId, Arc<Node>)>) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).extend(nodes);
    }

    /// Keeps only the nodes for which `keep` says so.
    pub fn retain(&self, mut keep: impl FnMut(NodeId) -> bool) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|id, _| keep(*id));
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl NodeStore for MemoryNodes {
    type Error = MissingNode;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, MissingNode> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.get(&id).cloned().ok_or(MissingNode(id))
    }
}
