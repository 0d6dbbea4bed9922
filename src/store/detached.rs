//! Calls of a store that run to their end, whoever asked.

use super::StoreError;

/// Runs a call of the store in a task of its own: a driver's future must never be dropped
/// half-way, as it would be when a client goes.
///
/// # Errors
/// Those of the call; [`StoreError::Failed`] where it panicked.
pub async fn detached<T, E>(
    call: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let broken = |e| Err(StoreError::Failed(format!("a call of the store broke off: {e}")).into());
    tokio::spawn(call).await.unwrap_or_else(broken)
}
