//! What other parts of the program may ask a running server and tell it.

use std::sync::Arc;

use vestnik_core::sign::Key;

use crate::shared::Shared;

/// A running server, as seen from beside. Cheap to clone; outlives the server harmlessly.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Handle {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Puts keys of the default tenant's settings in force: the first signs. Those of the
    /// configuration stay valid behind them, four altogether. They survive a reload. `true` when they
    /// differ from those before.
    pub fn set_module_keys(&self, keys: Vec<Key>) -> bool {
        self.shared.set_module_keys(keys)
    }
}
