//! Schemas: what people's data may look like, and which of it can be searched.
//!
//! A schema is a JSON Schema with a few words of the contract in it. Data is judged by it when
//! it is written ([`Schemas::judge`], [`Schemas::settle`]); data that does not conform is kept
//! as it is, and its fields are not searched. Schema 0 is there from the start and never
//! changes; one that assets name cannot be deleted.
//!
//! When the rules of a schema change, or one comes that assets named before it was there, its
//! assets are judged and indexed anew by an owed job (`reapply.rs`); until it is done, searches
//! answer partly by the old rules.
//!
//! This room does not search: it says what can be.

mod judge;
pub mod model;
mod reapply;
pub mod store;

use std::sync::Arc;

use jsonschema::Validator;
use serde_json::Map;
use serde_json::Value;

pub use judge::Verdict;
pub use model::DEFAULT;
pub use model::Draft;
pub use model::Field;
pub use model::Kind;
pub use model::Schema;
pub use model::Status;
pub use reapply::ReapplySchema;

use crate::assets;
use crate::assets::AssetId;
use crate::error::Code;
use crate::error::Result;
use crate::infra::db::Conn;
use crate::infra::db::Db;
use crate::infra::db::Tx;
use crate::infra::jobs::Enqueue;
use crate::infra::jobs::Jobs;
use crate::support::page::Page;

/// The longest name of a schema, all languages together.
const MAX_NAME_BYTES: usize = 2000;

/// Keeps schemas and judges by them; cheap to clone.
#[derive(Clone)]
pub struct Schemas {
    db: Db,
    jobs: Jobs,
    /// By number and version, so that one of a write that held is never outdated.
    compiled: moka::sync::Cache<(i64, i64), Arc<Validator>>,
}

impl Schemas {
    pub fn new(db: Db, jobs: Jobs) -> Schemas {
        Schemas { db, jobs, compiled: moka::sync::Cache::new(256) }
    }

    /// Judges data by a schema as it is now.
    pub fn judge(&self, c: &Conn, schema: i64, data: &Map<String, Value>) -> Result<Verdict> {
        let Some(version) = store::version(c, schema)? else { return Ok(Verdict::NoSchema) };
        let by = if let Some(by) = self.compiled.get(&(schema, version)) {
            by
        } else {
            let Some(found) = store::find(c, schema)? else { return Ok(Verdict::NoSchema) };
            let by = Arc::new(judge::compile(&found.schema)?);
            self.compiled.insert((schema, version), Arc::clone(&by));
            by
        };
        Ok(judge::judge(&by, data))
    }

    /// Judges what an asset holds and records it, in the transaction that wrote the data.
    /// Whoever writes an asset's data or its schema calls this after.
    pub fn settle(&self, tx: &Tx, id: AssetId) -> Result<Verdict> {
        let Some(asset) = assets::store::find(tx, id)? else { return Ok(Verdict::NoSchema) };
        let verdict = self.judge(tx, asset.data_schema_id, &asset.data)?;
        assets::store::set_conforms(tx, id, !matches!(verdict, Verdict::Differs(_)))?;
        Ok(verdict)
    }

    /// The schema, or [`Code::SchemaNotFound`].
    pub async fn find(&self, id: i64) -> Result<Schema> {
        self.db.read(move |c| found(c, id)).await
    }

    /// Schemas in the order of their numbers, and how many there are.
    pub async fn list(&self, page: Page) -> Result<(Vec<Schema>, u64)> {
        self.db.read(move |c| Ok((store::list(c, page)?, store::count(c)?))).await
    }

    pub async fn create(&self, draft: Draft, user: i64) -> Result<Schema> {
        check(&draft)?;
        let fields = model::searchable(&draft.schema)?;
        let this = self.clone();
        self.db
            .write(move |tx| {
                let id = store::insert(tx, &draft, user)?;
                this.compile_anew(tx, id)?;
                store::set_fields(tx, id, &fields)?;
                // Data may name a number before there is a schema of it.
                if assets::store::names_schema(tx, id)? {
                    this.reapply(tx, id)?;
                }
                found(tx, id)
            })
            .await
    }

    /// Changes a schema: `change` is shown what it is and says what it is to be.
    pub async fn update(&self, id: i64, change: impl FnOnce(Draft) -> Draft + Send + 'static) -> Result<Schema> {
        let this = self.clone();
        if id == DEFAULT {
            return Err(Code::Forbidden.because("Schema 0 cannot be changed."));
        }
        self.db
            .write(move |tx| {
                let before = found(tx, id)?;
                let old = before.schema.clone();
                let draft = change(Draft { name: before.name, status: before.status, schema: before.schema });
                check(&draft)?;
                let is_new_version = draft.schema != old;
                store::update(tx, id, &draft, is_new_version)?;
                if is_new_version {
                    this.compile_anew(tx, id)?;
                    store::set_fields(tx, id, &model::searchable(&draft.schema)?)?;
                    this.reapply(tx, id)?;
                }
                found(tx, id)
            })
            .await
    }

    /// Forgets what was compiled under this number and version by a write that did not hold.
    fn compile_anew(&self, tx: &Tx, id: i64) -> Result<()> {
        if let Some(version) = store::version(tx, id)? {
            self.compiled.invalidate(&(id, version));
        }
        Ok(())
    }

    /// Owes the assets of a schema to be judged and indexed by its rules.
    fn reapply(&self, tx: &Tx, id: i64) -> Result<()> {
        let once = Enqueue { unique_key: Some(id.to_string()), ..Enqueue::default() };
        self.jobs.enqueue(tx, &ReapplySchema { schema: id }, once)?;
        Ok(())
    }

    /// Deletes a schema that no asset names.
    pub async fn delete(&self, id: i64) -> Result<()> {
        if id == DEFAULT {
            return Err(Code::Forbidden.because("Schema 0 cannot be deleted."));
        }
        self.db
            .write(move |tx| {
                found(tx, id)?;
                if assets::store::names_schema(tx, id)? {
                    return Err(Code::SchemaInUse.into());
                }
                store::delete(tx, id)
            })
            .await
    }
}

fn found(c: &Conn, id: i64) -> Result<Schema> {
    store::find(c, id)?.ok_or_else(|| Code::SchemaNotFound.because(format!("There is no schema {id}.")))
}

fn check(draft: &Draft) -> Result<()> {
    let name_bytes: usize = draft.name.iter().map(|(language, text)| language.len() + text.to_string().len()).sum();
    if draft.name.is_empty() || name_bytes > MAX_NAME_BYTES || !draft.name.values().all(Value::is_string) {
        return Err(Code::InvalidRequest.because(format!(
            "name: a text for at least one language, such as {{\"en\": \"Products\"}}, of at most {MAX_NAME_BYTES} bytes"
        )));
    }
    judge::compile(&draft.schema)?;
    model::searchable(&draft.schema)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::infra::jobs;
    use crate::support::clock::Clock;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_write_compiled_that_did_not_hold_judges_nothing() {
        let db = Db::temporary(crate::app::SCHEMA, Clock::system()).unwrap();
        let schemas = Schemas::new(db.clone(), Jobs::new(db.clone(), jobs::Config::default()));
        let needs = |name: &str| json!({"type": "object", "required": [name]});
        let name = Map::from_iter([("en".to_owned(), json!("Booths"))]);
        let draft = Draft { name, status: Status::Active, schema: needs("a") };
        // Numbers and versions that were taken back are given again.
        let left_over = Arc::new(judge::compile(&needs("rolled back")).unwrap());
        let id = schemas.create(draft.clone(), 1).await.unwrap().id;
        schemas.delete(id).await.unwrap();
        for key in [(id, 1), (id + 1, 1), (id + 1, 2)] {
            schemas.compiled.insert(key, Arc::clone(&left_over));
        }
        let id = schemas.create(draft, 1).await.unwrap().id;
        let holds = async |name: &str| {
            let (schemas, data) = (schemas.clone(), Map::from_iter([(name.to_owned(), json!(1))]));
            let verdict = db.read(move |c| schemas.judge(c, id, &data)).await.unwrap();
            matches!(verdict, Verdict::Conforms)
        };
        assert!(holds("a").await && !holds("rolled back").await);
        schemas.update(id, move |before| Draft { schema: needs("b"), ..before }).await.unwrap();
        assert!(holds("b").await && !holds("rolled back").await);
    }
}
