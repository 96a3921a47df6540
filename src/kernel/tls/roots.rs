//! The roots of the platform: read at the first endpoint that needs them, once for all kernels of a process.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;

use crate::config::ConfigError;
use crate::sys::fork;

static ROOTS: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);

/// Those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, else where the system keeps them.
pub fn of_platform() -> Result<Arc<RootCertStore>, ConfigError> {
    // Forks wait for the end of this, so that no child finds the lock held, or a file open.
    fork::exclusive(|| {
        let mut roots = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*roots {
            return Ok(store.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // One that cannot be read makes the others no worse.
        let (added, _) = store.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
            let expected = format!("a file of roots, as this system has none{why} (Debian: ca-certificates)");
            return Err(ConfigError::new("tls_ca", "", expected));
        }
        let store = Arc::new(store);
        *roots = Some(store.clone());
        Ok(store)
    })
}
