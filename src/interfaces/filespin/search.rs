//! Search, and its further pages.
//!
//! Shapes: <https://developers.filespin.io/reference/asset-search>. Keys that are not known are
//! ignored: published clients send some.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::search::By;
use crate::search::Criteria;
use crate::search::Found;
use crate::search::SchemaCriteria;
use crate::search::Search;
use crate::search::Sort;
use crate::support::clock::Instant;
use crate::wire::filespin::AssetData;

const USUAL_PER_PAGE: u64 = 50;
pub const MOST_PER_PAGE: u64 = 500;
const MOST_SORTS: usize = 4;

pub fn mount(r: &mut Routes) {
    r.post("/api/v1/search", Permission::ReadAsset, search, "Searches assets, newest first unless asked otherwise")
        .takes(Body::json::<Asked>())
        .answers(200, Body::json::<Answer>())
        .refuses(&[Code::InvalidRequest, Code::TooLarge]);
    r.get(
        "/api/v1/search/{search_result_id}/{page}",
        Permission::ReadAsset,
        page,
        "A page of a search; the first is 1",
    )
    .answers(200, Body::json::<Answer>())
    .refuses(&[Code::SearchNotFound, Code::InvalidRequest]);
}

/// What is asked; all of it may be left out.
#[derive(Deserialize, JsonSchema)]
struct Asked {
    /// Up to 40 words with AND or OR between them; `"exact phrase"`, `beginning*`.
    keyword: Option<String>,
    /// The same, in the name alone.
    file_name: Option<String>,
    /// `image* OR video/mp4`
    content_type: Option<String>,
    creator_id: Option<i64>,
    /// RFC 3339, both ends included.
    upload_time_range: Option<Range<String>>,
    /// Bytes, both ends included.
    file_size_range: Option<Range<u64>>,
    schema_criteria: Option<AskedOfSchema>,
    /// `upload_time_range`, `file_size_range`, `content_type` or, of ours, `relevance`, each with `_ASC` or `_DESC`.
    sort_by: Option<Sorts>,
    /// 50, at most 500.
    limit_per_page: Option<u64>,
    /// What is in the trash, for administrators.
    trashed: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
struct Range<T> {
    start: Option<T>,
    end: Option<T>,
}

#[derive(Deserialize, JsonSchema)]
struct AskedOfSchema {
    data_schema_id: i64,
    /// By field: words for texts; a value or a range (`3..7`, `>=3`, `[3 TO 7]`, `{"start": 3, "end": 7}`) for the rest.
    #[serde(default)]
    fields: Map<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Sorts {
    One(String),
    Many(Vec<String>),
}

#[derive(Serialize, JsonSchema)]
struct Answer {
    /// Ids of assets.
    result: Vec<String>,
    search_result_id: String,
    /// Exact as far as was looked, beyond that an upper bound; at most what makes 10,000 hits.
    total_pages: usize,
    /// The same assets, by id.
    extended_result: BTreeMap<String, AssetData>,
}

impl From<&Found> for Answer {
    fn from(found: &Found) -> Answer {
        let told = |full| AssetData::from(full);
        Answer {
            result: found.assets.iter().map(|full| full.asset.id.to_string()).collect(),
            search_result_id: found.id.to_string(),
            total_pages: found.pages,
            extended_result: found.assets.iter().map(|full| (full.asset.id.to_string(), told(full))).collect(),
        }
    }
}

async fn search(caller: Caller, search: Data<Search>, body: JsonBody<Asked>) -> Reply<Json<Answer>> {
    let criteria = body.0.into_domain()?;
    if criteria.trashed && !sees_trash(&caller) {
        return Err(Code::Forbidden.because("The trash is searched by administrators alone.").into());
    }
    Ok(Json(Answer::from(&search.search(criteria).await?)))
}

async fn page(caller: Caller, search: Data<Search>, request: HttpRequest) -> Reply<Json<Answer>> {
    let text = |name| request.match_info().get(name).unwrap_or_default();
    let id = text("search_result_id").parse().map_err(|()| Code::SearchNotFound.because("No search has this id."))?;
    let page = text("page").parse().ok().filter(|page| *page > 0);
    let page = page.ok_or_else(|| Code::InvalidRequest.because("page: a whole number; the first page is 1"))?;
    Ok(Json(Answer::from(&search.page(id, page, sees_trash(&caller)).await?)))
}

/// Those who may empty the trash may look into it.
fn sees_trash(caller: &Caller) -> bool {
    caller.may(Permission::PurgeAsset)
}

impl Asked {
    fn into_domain(self) -> Result<Criteria> {
        let sorts = match self.sort_by {
            None => Vec::new(),
            Some(Sorts::One(sort)) => vec![sort],
            Some(Sorts::Many(sorts)) => sorts,
        };
        if sorts.len() > MOST_SORTS {
            return Err(wrong(format!("sort_by: at most {MOST_SORTS} are taken")));
        }
        let instant = |name: &str, text: Option<String>| {
            text.map(|text| {
                // Without a zone it is in UTC, as all times of the contract are.
                let read = Instant::parse(&text).or_else(|| Instant::parse(&format!("{text}Z")));
                let read = read.or_else(|| Instant::parse(&format!("{text}T00:00:00Z")));
                read.ok_or_else(|| {
                    wrong(format!("upload_time_range.{name}: `{text}` is not a time such as 2024-05-15T15:43:02Z"))
                })
            })
            .transpose()
        };
        let uploaded = self
            .upload_time_range
            .map(|range| Ok::<_, Error>((instant("start", range.start)?, instant("end", range.end)?)))
            .transpose()?;
        Ok(Criteria {
            keyword: self.keyword,
            file_name: self.file_name,
            content_type: self.content_type.filter(|text| !text.trim().is_empty()),
            creator: self.creator_id,
            uploaded,
            size_bytes: self.file_size_range.map(|range| (range.start, range.end)),
            schema: self
                .schema_criteria
                .map(|asked| SchemaCriteria { schema: asked.data_schema_id, fields: asked.fields }),
            sort: sorts.iter().map(|text| sort(text)).collect::<Result<_>>()?,
            per_page: self.limit_per_page.unwrap_or(USUAL_PER_PAGE).clamp(1, MOST_PER_PAGE) as usize,
            trashed: self.trashed.unwrap_or(false),
        })
    }
}

fn sort(text: &str) -> Result<Sort> {
    let (name, descending) = match text.rsplit_once('_') {
        Some((name, "DESC")) => (name, true),
        Some((name, "ASC")) => (name, false),
        _ => (text, true),
    };
    let by = match name {
        "upload_time_range" | "upload_time" => By::Uploaded,
        "file_size_range" | "file_size" => By::Size,
        "content_type" => By::ContentType,
        "relevance" => By::Relevance,
        _ => {
            return Err(wrong(format!(
                "sort_by: `{text}` is none of upload_time_range, file_size_range, content_type and relevance, with _ASC or _DESC"
            )));
        }
    };
    Ok(Sort { by, descending })
}

fn wrong(what: String) -> Error {
    Code::InvalidRequest.because(what)
}
