//! Listings: filters in brackets, an order, pages by number or by cursor.
//!
//! `q[0][fz]=text`, `labels[0][eq]=Video`, `tags[0][in][0]=ID`, `collections[0][eq]=ID`,
//! `reference_id[0][eq]=text`, `sort=-created_on`, `limit`, `skip` (or `offset`), `after`, `before`.

use actix_web::HttpResponse;
use actix_web::web::Data;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::accounts::Permission;
use crate::accounts::Scope;
use crate::catalogue::Catalogue;
use crate::catalogue::Cursor;
use crate::catalogue::Filter;
use crate::catalogue::From;
use crate::catalogue::Query;
use crate::catalogue::TagRef;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::interfaces::prepr::assets::FIELDS;
use crate::interfaces::prepr::assets::fields;
use crate::interfaces::prepr::input::Said;
use crate::interfaces::prepr::input::items;
use crate::interfaces::prepr::reply::Origin;
use crate::support::clock::Instant;
use crate::wire::prepr::PreprAsset;
use crate::wire::prepr::PreprPage;
use crate::wire::prepr::parse_id;

const USUAL_LIMIT: u32 = 100;
const MOST_LIMIT: u32 = 1000;

/// Values of one filter, and words of one text.
const MOST_VALUES: usize = 100;
const MOST_WORDS: usize = 16;

/// Filters of one call.
const MOST_FILTERS: usize = 20;

pub fn mount(r: &mut Routes) {
    r.get("/assets", Permission::Scope(Scope::Assets), list, "Assets, newest first unless `sort` says otherwise")
        .query([
            ("q[0][fz]", "Words that are in the name, the text, the author, the tags"),
            ("labels[0][eq]", "`Photo`, `Video`, `Audio` or `Document`; several as `labels[0][in][0]`"),
            ("tags[0][in][0]", "The id or the text of a tag"),
            ("collections[0][eq]", "The id of a collection"),
            ("reference_id[0][eq]", "What another system knows it by"),
            ("sort", "`created_on`, `-created_on`, `changed_on` or `-changed_on`"),
            ("limit", "Up to 1000"),
            ("skip", "How many to leave out"),
            ("offset", "The same"),
            ("after", "The cursor of an earlier answer"),
            ("before", "The cursor of an earlier answer"),
            FIELDS,
        ])
        .answers(200, Body::json::<PreprPage<PreprAsset>>())
        .refuses(&[Code::InvalidRequest]);
}

async fn list(catalogue: Data<Catalogue>, origin: Origin, query: Pairs) -> Reply<HttpResponse> {
    let asked = asked(&query)?;
    let skip = if let From::Skip(rows) = asked.from { rows } else { 0 };
    let (limit, is_backward) = (asked.limit, matches!(asked.from, From::Before(_)));
    let (by_change, is_first) = (asked.by_change, asked.from == From::Skip(0));
    let found = catalogue.list(asked).await?;
    let shown = fields(&query);
    let items = found.entries.iter().map(|entry| PreprAsset::with(entry, &origin.0, shown)).collect();
    let cursor = |at: Option<Cursor>| at.map(|at| written(by_change, at));
    Ok(HttpResponse::Ok().json(PreprPage {
        items,
        total: found.total,
        after: cursor(found.last.filter(|_| found.more || is_backward)),
        before: cursor(found.first.filter(|_| if is_backward { found.more } else { !is_first })),
        skip,
        limit,
    }))
}

/// How many, from `limit`.
pub(super) fn limit(query: &Pairs) -> Result<u32> {
    let limit = query.number("limit")?.unwrap_or(USUAL_LIMIT);
    if (1..=MOST_LIMIT).contains(&limit) { Ok(limit) } else { Err(wrong("limit: 1 to 1000")) }
}

/// How many are left out.
pub(super) fn skip(query: &Pairs) -> Result<u32> {
    Ok(query.number("skip")?.or(query.number("offset")?).unwrap_or(0))
}

fn asked(query: &Pairs) -> Result<Query> {
    let (by_change, descending) = match query.get("sort") {
        None | Some("" | "-created_on") => (false, true),
        Some("created_on") => (false, false),
        Some("changed_on") => (true, false),
        Some("-changed_on") => (true, true),
        Some(_) => return Err(wrong("sort: `created_on`, `-created_on`, `changed_on` or `-changed_on`")),
    };
    let given = |name: &str| query.get(name).filter(|text| !text.is_empty());
    let from = match (given("after"), given("before")) {
        (Some(_), Some(_)) => return Err(wrong("Send `after` or `before`.")),
        (Some(text), None) => From::After(read(by_change, text)?),
        (None, Some(text)) => From::Before(read(by_change, text)?),
        (None, None) => From::Skip(skip(query)?),
    };
    let said = Said::of(query.iter())?;
    let mut filters = Vec::new();
    for name in ["q", "labels", "tags", "collections", "reference_id", "content_item"] {
        for condition in said.items(name).unwrap_or_default() {
            match &condition {
                Value::Object(operators) => {
                    for (operator, value) in operators {
                        filters.push(filter(name, operator, value)?);
                    }
                }
                // `q=text`, which some write.
                plain => filters.push(filter(name, if name == "q" { "fz" } else { "eq" }, plain)?),
            }
        }
    }
    filters.retain(|filter| *filter != Filter::Kind(Vec::new()));
    if filters.len() > MOST_FILTERS {
        return Err(wrong(format!("At most {MOST_FILTERS} filters are taken.")));
    }
    Ok(Query { filters, by_change, descending, from, limit: limit(query)? })
}

fn filter(name: &str, operator: &str, value: &Value) -> Result<Filter> {
    let list = matches!(operator, "in" | "nin");
    let values: Vec<String> = if list { items(value) } else { vec![value.clone()] }
        .into_iter()
        .map(|value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong(format!("{name}: a filter is {name}[0][eq]=VALUE or {name}[0][in][0]=VALUE"))),
        })
        .collect::<Result<_>>()?;
    if values.len() > MOST_VALUES {
        return Err(wrong(format!("{name}: at most {MOST_VALUES} values")));
    }
    let first = || values.first().cloned().unwrap_or_default();
    match (name, operator) {
        ("q", "fz" | "eq") if first().split_whitespace().count() > MOST_WORDS => {
            Err(wrong(format!("q: at most {MOST_WORDS} words")))
        }
        ("q", "fz" | "eq") => Ok(Filter::Text(first())),
        ("labels", "eq" | "in") => Ok(Filter::Kind(values)),
        ("labels", "ne" | "nin") => Ok(Filter::NotKind(values)),
        ("tags", "eq" | "in") => Ok(Filter::Tag(
            values.into_iter().map(|text| parse_id(&text).map_or(TagRef::Text(text), TagRef::Id)).collect(),
        )),
        // One that is no id is no collection.
        ("collections", "eq" | "in") => Ok(Filter::Album(values.iter().filter_map(|text| parse_id(text)).collect())),
        ("reference_id", "eq" | "in") => Ok(Filter::Reference(values)),
        // Nothing here is in a content item.
        ("content_item", "has") if first() == "true" => Ok(Filter::Nothing),
        ("content_item", "has") => Ok(Filter::NotKind(Vec::new())),
        _ => Err(wrong(format!("{name}: this box knows no `{operator}` of it"))),
    }
}

/// A cursor names the order that it belongs to.
fn written(by_change: bool, at: Cursor) -> String {
    let order = if by_change { 'u' } else { 'c' };
    URL_SAFE_NO_PAD.encode(format!("{order}.{}.{}", at.at.0, at.seq))
}

fn read(by_change: bool, text: &str) -> Result<Cursor> {
    let bad = || wrong("This cursor is of another listing.");
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let mut parts = text.split('.');
    let (order, at, seq) = (parts.next(), parts.next(), parts.next());
    if order != Some(if by_change { "u" } else { "c" }) {
        return Err(bad());
    }
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok()).ok_or_else(bad);
    Ok(Cursor { at: Instant(number(at)?), seq: number(seq)? })
}

fn wrong(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Code::InvalidRequest.because(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Pairs {
        Pairs(url::form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    #[test]
    fn filters_are_read_out_of_brackets() {
        let id = "df7c1544-bad0-4c9d-928f-0c9f684c9ceb";
        let asked = |text: &str| asked(&pairs(text)).unwrap().filters;
        assert_eq!(asked("limit=5&access_token=x"), []);
        assert_eq!(asked("q[0][fz]=a+b"), [Filter::Text("a b".into())]);
        assert_eq!(asked("labels[0][eq]=Video"), [Filter::Kind(vec!["Video".into()])]);
        assert_eq!(asked("labels[0][in][0]=Video&labels[0][in][1]=Photo").len(), 1);
        assert_eq!(
            asked(&format!("tags[0][in][0]={id}&tags[0][in][1]=summer")),
            [Filter::Tag(vec![TagRef::Id(parse_id(id).unwrap()), TagRef::Text("summer".into())])]
        );
        assert_eq!(asked(&format!("collections[0][eq]={id}")), [Filter::Album(vec![parse_id(id).unwrap()])]);
        assert_eq!(asked("content_item[0][has]=true"), [Filter::Nothing]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            "limit=1001",
            "limit=0",
            "limit=x",
            "limit=-1",
            "skip=-1",
            "offset=x",
            "sort=name",
            "after=x",
            "before=!",
            "after=Yy4xLjE&before=Yy4xLjE",
            "q[0][zz]=a",
            "labels[0][eq][0]=Photo",
        ] {
            assert_eq!(asked(&pairs(bad)).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
        let at = Cursor { at: Instant(7), seq: 9 };
        assert_eq!(asked(&pairs(&format!("after={}", written(false, at)))).unwrap().from, From::After(at));
        assert!(asked(&pairs(&format!("after={}&sort=changed_on", written(false, at)))).is_err());
    }
}
