//! Files on this disk of what lies in a bucket.
//!
//! A copy is left when an original was moved, and is brought back when a worker or a program has
//! to be given a file; it lies where the original would. Copies take as much disk as the
//! configuration allows, and less while the disk is short of room: that they are there is no reason
//! to refuse an upload. The oldest go first, except those that somebody has [`Pin`]ned. Only a process that
//! has the data directory for itself removes them: nobody else knows the pins.
//!
//! Invariant: a copy is whole and verified before it has its name, and its row says that it is here
//! before that, so none goes uncounted. It is removed inside a transaction that finds its row saying
//! that it is a copy and no more, so it never is the only one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use bytes::Bytes;
use ring::digest;
use rusqlite::Connection;

use crate::assets::AssetId;
use crate::assets::place;
use crate::assets::store as asset_store;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::homes::Homes;
use crate::homes::model::Home;
use crate::homes::model::Object;
use crate::homes::source::on_record;
use crate::homes::store;
use crate::infra::storage::Backend;
use crate::infra::storage::Reservation;
use crate::infra::storage::bucket::Pace;
use crate::infra::storage::staging;
use crate::support::id;

/// How many copies are looked at in one transaction.
const AT_ONCE: u32 = if cfg!(test) { 3 } else { 64 };

/// How much of what comes is worked on in one step.
const BATCH_BYTES: usize = 1 << 20;

/// While this lives, the file of an original stays.
pub struct Pin {
    homes: Homes,
    at: (AssetId, u32),
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.homes.pins();
        if let Some(count) = pins.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.at);
                self.homes.0.crowded.notify_one();
            }
        }
    }
}

impl Homes {
    /// Does something with the file of an original, which is brought here first if it is elsewhere.
    pub async fn with<T: Send + 'static>(
        &self,
        id: AssetId,
        revision: u32,
        work: impl Fn() -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        match self.0.cpu.run(work.clone()).await {
            Err(e) if e.code == Code::ContentNotFound && self.has_bucket() => {
                let _pin = self.bring(id, revision).await?;
                self.0.cpu.run(work).await
            }
            other => other,
        }
    }

    /// Sees to it that the file of an original is here, and stays for now.
    pub async fn bring(&self, id: AssetId, revision: u32) -> Result<Pin> {
        let at = (id, revision);
        *self.pins().entry(at).or_default() += 1;
        let pin = Pin { homes: self.clone(), at };
        let (storage, place) = (self.0.storage.clone(), place::original(id, revision)?);
        if !self.has_bucket() || self.0.cpu.run(move || Ok(storage.holds(&place))).await? {
            return Ok(pin);
        }
        let this = self.clone();
        let brought = self.0.bringing.run(at, move || async move { this.copy(id, revision).await.map_err(Arc::new) });
        brought.await?.map_err(|shared| Error::again(&shared))?;
        Ok(pin)
    }

    async fn copy(&self, id: AssetId, revision: u32) -> Result<()> {
        let found = self.0.db.read(move |c| store::find(c, id, revision)).await?;
        let Some(object) = found.filter(|object| object.home.backend != Backend::Fs) else {
            return Err(Code::ContentNotFound.because(format!("revision {revision} of asset {id} is kept nowhere")));
        };
        let mut copied = self.download(&object, &object.home, &Pace::default()).await;
        if copied.as_ref().is_err_and(|e| e.code == Code::DiskFull) {
            self.make_room(object.size_bytes).await;
            copied = self.download(&object, &object.home, &Pace::default()).await;
        }
        copied.map_err(on_record)?;
        let known =
            move |c: &Connection| Ok(store::is_known(c, id, revision)? || asset_store::is_kept(c, id, revision)?);
        if !self.0.db.read(known).await? {
            self.0.storage.delete(&object.place()?).await?;
        }
        self.0.crowded.notify_one();
        Ok(())
    }

    /// Brings the bytes of an original to its place here, verified and flushed, and has its row say so. What
    /// is there already is verified, too.
    pub(super) async fn download(&self, object: &Object, from: &Home, pace: &Pace) -> Result<()> {
        let place = object.place()?;
        let (storage, at) = (self.0.storage.clone(), place.clone());
        let there = self.0.cpu.run(move || match storage.open_file(&at) {
            // What cannot be read is as good as damaged.
            Ok(file) => Ok(Some(sum(&file).unwrap_or_default())),
            Err(e) if e.code == Code::ContentNotFound => Ok(None),
            Err(e) => Err(e),
        });
        let (id, revision) = (object.id, object.revision);
        let counted = || self.0.db.write(move |tx| store::copied(tx, id, revision));
        match there.await? {
            Some(sha256) if sha256 == object.sha256 => return counted().await.map(|_| ()),
            Some(_) => {
                tracing::error!(asset.id = %object.id, "the copy of an original on this disk is damaged: it is fetched again");
                self.0.storage.delete(&place).await?;
            }
            None => {}
        }
        let name = self.fetch(object, from, pace).await?;
        if !counted().await? {
            self.unstage(name).await?;
            return Err(
                Code::ContentNotFound.because(format!("asset {id} was removed, or moved, while it was fetched"))
            );
        }
        let (storage, staged) = (self.0.storage.clone(), name);
        self.0
            .cpu
            .run(move || {
                let placed = match storage.commit(&staged, &place) {
                    // Somebody was faster.
                    Err(e) if e.code == Code::AssetIdExists => Ok(()),
                    other => other,
                };
                storage.unstage(&staged);
                placed
            })
            .await
    }

    /// Brings the bytes of an original to staging, verified and flushed; the name there.
    pub(super) async fn fetch(&self, object: &Object, from: &Home, pace: &Pace) -> Result<String> {
        let room = self.0.storage.reserve(object.size_bytes)?;
        let name = format!("{}{}", staging::TEMPORARY, id::hex(&id::random::<8>()?));
        let (storage, staged) = (self.0.storage.clone(), name.clone());
        let file = self.0.cpu.run(move || storage.stage(&staged)).await?;
        let write = |(file, room): &mut (File, Reservation), chunk: &Bytes| {
            room.spend(chunk.len() as u64)?;
            Ok(file.write_all(chunk)?)
        };
        let received = async {
            let (file, _) = self.receive(object, from, pace, (file, room), write).await?;
            let storage = self.0.storage.clone();
            self.0.cpu.run(move || storage.flush(&file)).await
        };
        let received = received.await;
        if let Err(e) = received {
            self.unstage(name).await?;
            return Err(e);
        }
        Ok(name)
    }

    /// Reads an object, and fails unless it is the original.
    pub(super) async fn verify(&self, object: &Object, home: &Home, pace: &Pace) -> Result<()> {
        self.receive(object, home, pace, (), |(), _| Ok(())).await
    }

    /// Reads an original from a bucket to its end, and hands its bytes on as they come. Fails, in the end, when they are
    /// not those of the original.
    async fn receive<T: Send + 'static>(
        &self,
        object: &Object,
        from: &Home,
        pace: &Pace,
        mut to: T,
        take: impl Fn(&mut T, &Bytes) -> Result<()> + Copy + Send + 'static,
    ) -> Result<T> {
        let mut incoming = self.bucket(from)?.read(&object.place()?, 0..object.size_bytes);
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut batch = Vec::new();
        loop {
            let next = incoming.next().await?;
            let ended = next.is_none();
            batch.extend(next);
            let bytes = batch.iter().map(Bytes::len).sum::<usize>();
            if ended || bytes >= BATCH_BYTES {
                let chunks = std::mem::take(&mut batch);
                let step = self.0.cpu.run(move || {
                    for chunk in &chunks {
                        take(&mut to, chunk)?;
                        sha256.update(chunk);
                    }
                    Ok((to, sha256))
                });
                (to, sha256) = step.await?;
                pace.spent(bytes as u64).await;
            }
            if ended {
                break;
            }
        }
        if id::hex(sha256.finish().as_ref()) != object.sha256 {
            return Err(Code::StorageUnavailable.because(format!(
                "the object {:?} in the bucket `{}` is not what was sent there",
                object.place()?,
                from.bucket
            )));
        }
        Ok(to)
    }

    /// Removes the oldest copies until the rest take no more than they may, and less while the disk is short of
    /// room, or would be with so many more bytes. That it could not is no failure of whoever comes by: there
    /// will be another time.
    pub(super) async fn make_room(&self, wanted_bytes: u64) {
        if let Err(error) = self.drop_oldest(wanted_bytes).await {
            tracing::warn!(%error, "copies of what lies in a bucket could not be removed");
        }
    }

    async fn drop_oldest(&self, wanted_bytes: u64) -> Result<()> {
        let floor = self.0.config.free_floor_bytes;
        let storage = self.0.storage.clone();
        let free = self.0.cpu.run(move || storage.free_bytes()).await?;
        // They begin to go before anything is refused.
        let short = floor.saturating_add(floor.max(wanted_bytes)).saturating_sub(free);
        let taken = self.0.db.read(store::copies_bytes).await?;
        let most = self.0.config.local_copies_bytes.min(taken.saturating_sub(short));
        let mut after = None;
        loop {
            let oldest = self.0.db.read(move |c| {
                let taken = store::copies_bytes(c)?;
                // Those that are brought elsewhere count, and stay.
                if taken <= most {
                    Ok((taken, Vec::new()))
                } else {
                    Ok((taken, store::oldest_copies(c, after.as_ref(), AT_ONCE)?))
                }
            });
            let (mut taken, oldest) = oldest.await?;
            let Some((last, _)) = oldest.last() else { return Ok(()) };
            after = Some(*last);
            let mut going = Vec::new();
            for (_, object) in oldest {
                if taken > most && !self.pins().contains_key(&(object.id, object.revision)) {
                    taken -= object.size_bytes.min(taken);
                    going.push(object);
                }
            }
            if going.is_empty() {
                continue;
            }
            let this = self.clone();
            let aside = self.0.db.write(move |tx| {
                let mut aside = Vec::new();
                for object in &going {
                    // Held, so that whoever pins it now finds it gone, and nobody finds it and then not.
                    let pins = this.pins();
                    if !pins.contains_key(&(object.id, object.revision)) && store::drop_copy(tx, object)? {
                        aside.extend(this.0.storage.set_aside(&object.place()?)?);
                    }
                }
                Ok(aside)
            });
            for name in aside.await? {
                self.unstage(name).await?;
            }
        }
    }

    /// Removes a staged file where that may take its time: a large one has much to give back.
    pub(super) async fn unstage(&self, name: String) -> Result<()> {
        let storage = self.0.storage.clone();
        let removing = self.0.cpu.run(move || {
            storage.unstage(&name);
            Ok(())
        });
        removing.await
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<(AssetId, u32), u32>> {
        self.0.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// SHA-256 of a file, in hex.
pub(super) fn sum(file: &File) -> Result<String> {
    use std::os::unix::fs::FileExt;
    let (mut sha256, mut buffer, mut at) = (digest::Context::new(&digest::SHA256), vec![0; 1 << 20], 0);
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(id::hex(sha256.finish().as_ref()));
        }
        sha256.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
}
