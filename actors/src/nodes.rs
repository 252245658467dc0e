//! State map nodes out of the index, with a bounded cache.

use std::{fmt, sync::Arc};

use parlour_event::state::{Node, NodeId, NodeStore};
use parlour_storage::{StorageError, Store, schema::keys};
use quick_cache::{Weighter, sync::Cache};

/// Reads nodes of room states. Cheap to clone; all rooms share one cache, since equal parts of
/// states are equal nodes.
#[derive(Clone)]
pub struct Nodes {
    store: Store,
    cache: Arc<Cache<NodeId, Arc<Node>, BySize>>,
}

#[derive(Clone)]
struct BySize;

impl Weighter<NodeId, Arc<Node>> for BySize {
    fn weight(&self, _: &NodeId, node: &Arc<Node>) -> u64 {
        // The entry's own overhead counts too.
        node.memory_bytes() as u64 + 64
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

impl Nodes {
    /// A cache of at most about `bytes` on top of the store.
    #[must_use]
    pub fn new(store: Store, bytes: u64) -> Self {
        let typical_node = 512;
        let items = usize::try_from(bytes / typical_node).unwrap_or(usize::MAX).max(16);
        Self { store, cache: Arc::new(Cache::with_weighter(items, bytes, BySize)) }
    }

    /// How many bytes the cache takes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Adds a node that is being written, so that it can be read before the index has it.
    pub(crate) fn remember(&self, id: NodeId, node: Arc<Node>) {
        self.cache.insert(id, node);
    }
}

impl NodeStore for Nodes {
    type Error = StorageError;

    fn node(&self, id: NodeId) -> Result<Arc<Node>, StorageError> {
        self.cache.get_or_insert_with(&id, || {
            let key = keys::node(id);
            let unreadable = |what: String| StorageError::Value { key: keys::readable(&key), what };
            let entry = self.store.get(&key)?;
            let entry = entry.ok_or_else(|| unreadable("the node is missing".to_owned()))?;
            Node::decode(&entry.value).map(Arc::new).map_err(|error| unreadable(error.to_string()))
        })
    }
}
