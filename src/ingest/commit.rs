//! The step that every file takes to be kept: its final name, then the row that says so.
//!
//! In: files that lie flushed in staging, their places, and what is to be written in one transaction.
//! Out: what that brought. Invariant: all files have their final names and the transaction is
//! committed, or neither; where it is not known whether it was, the files keep both their names, and
//! the next start decides by the row (`recover.rs`).
//!
//! Must not be dropped half-way: callers run it in a task of its own.

use crate::error::Result;
use crate::infra::db::Tx;
use crate::infra::db::is_in_doubt;
use crate::infra::storage::ObjectPath;
use crate::infra::storage::Storage;
use crate::ingest::Ingest;
use crate::ingest::Taken;

/// How a file gets its final name: [`Storage::commit`] or [`Storage::commit_deep`].
type Link = fn(&Storage, &str, &ObjectPath) -> Result<()>;

impl Ingest {
    /// Gives files their final names and writes their rows.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        files: Vec<(Taken, ObjectPath)>,
        link: Link,
        record: impl FnOnce(&Tx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let storage = self.storage.clone();
        let files = self
            .cpu
            .run(move || {
                for (n, (file, place)) in files.iter().enumerate() {
                    if let Err(e) = link(&storage, file.staged_name(), place) {
                        files.iter().take(n).for_each(|(_, done)| storage.uncommit(done));
                        return Err(e);
                    }
                }
                Ok(files)
            })
            .await?;
        let written = self.db.write(record).await;
        let storage = self.storage.clone();
        match &written {
            // The names in staging may go after the caller is answered.
            Ok(_) => self.cpu.spawn(move || {
                for (file, _) in files {
                    if file.staged.stays() {
                        storage.unstage(file.staged_name());
                    }
                }
            }),
            Err(e) if is_in_doubt(e) => files.iter().for_each(|(file, _)| file.staged.stay()),
            // The final names go first: whoever tries again finds their places free.
            Err(_) => {
                let undone = self.cpu.run(move || {
                    for (_, place) in &files {
                        storage.uncommit(place);
                    }
                    Ok(())
                });
                let _ = undone.await;
            }
        }
        written
    }
}
