//! Bodies as clients of this API send them: JSON, a form, or multipart, all read into one tree.
//!
//! Names in forms nest with PHP's brackets: `tags[items][0][body]=x` is the JSON
//! `{"tags":{"items":[{"body":"x"}]}}`. A list is an array, an object whose names are numbers, or
//! either of them under `items`. What is not known is not heard: accounts have fields of their own.

use std::future::Future;
use std::pin::Pin;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header;
use serde_json::Map;
use serde_json::Value;

use crate::assets::AssetId;
use crate::catalogue::Draft;
use crate::catalogue::TagRef;
use crate::error::Code;
use crate::error::Error;
use crate::error::Result;
use crate::interfaces::http::extract;
use crate::interfaces::http::once::BodyPrint;
use crate::interfaces::http::parts::Part;
use crate::interfaces::http::parts::Parts;
use crate::interfaces::http::table::Failure;
use crate::wire::prepr::parse_id;

/// Fields of one body.
const MOST_FIELDS: usize = 1000;

/// How deep names may nest.
const MOST_DEPTH: usize = 8;

/// What fields of a body say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said(Map<String, Value>);

/// A body that may hold a file.
pub enum Incoming {
    Parts(Box<Parts>),
    Fields(Said),
}

impl FromRequest for Incoming {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Incoming, Failure>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let kind = content_type(request);
        if kind.starts_with("multipart/") {
            let parts = Parts::from_request(request, payload).into_inner();
            return Box::pin(async move { Ok(Incoming::Parts(Box::new(parts?.at_most(MOST_FIELDS)))) });
        }
        let body = extract::body(request, payload);
        Box::pin(async move { Ok(Incoming::Fields(Said::read(&kind, &body.await?)?)) })
    }
}

impl FromRequest for Said {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Said, Failure>>>>;

    /// Of a body that holds no file.
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let incoming = Incoming::from_request(request, payload);
        Box::pin(async move {
            let mut parts = match incoming.await? {
                Incoming::Fields(said) => return Ok(said),
                Incoming::Parts(parts) => parts,
            };
            let mut said = Said::default();
            while let Some(part) = parts.next().await? {
                match part {
                    Part::Field { name, text } => said.put(&name, text)?,
                    Part::File(_) => return Err(wrong("This call takes no file.").into()),
                }
            }
            Ok(said)
        })
    }
}

impl Said {
    fn read(kind: &str, body: &[u8]) -> Result<Said> {
        if body.is_empty() {
            return Ok(Said::default());
        }
        if kind.starts_with("application/x-www-form-urlencoded") {
            let mut said = Said::default();
            for (n, (name, value)) in url::form_urlencoded::parse(body).enumerate() {
                if n >= MOST_FIELDS {
                    return Err(wrong("The form has too many fields."));
                }
                said.put(&name, value.into_owned())?;
            }
            return Ok(said);
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(said)) => Ok(Said(said)),
            Ok(_) => Err(wrong("The body has to be a JSON object.")),
            Err(e) => Err(wrong(format!("The body is neither JSON nor a form: {e}."))),
        }
    }

    /// From the parameters of a query.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Said> {
        let mut said = Said::default();
        for (n, (name, value)) in pairs.enumerate() {
            if n >= MOST_FIELDS {
                return Err(wrong("The query has too many parameters."));
            }
            said.put(name, value.to_owned())?;
        }
        Ok(said)
    }

    /// What is said, in a few characters.
    pub fn print(&self) -> String {
        let mut print = BodyPrint::default();
        print.field("", &Value::from(self.0.clone()).to_string());
        print.end()
    }

    /// Puts a field where its brackets say. What stands there already is replaced, as in PHP.
    pub fn put(&mut self, name: &str, value: String) -> Result<()> {
        let keys = keys(name);
        if keys.len() > MOST_DEPTH {
            return Err(wrong("A field's name is nested too deep."));
        }
        let Some((last, path)) = keys.split_last() else { return Ok(()) };
        let mut at = &mut self.0;
        for key in path {
            let key = named(key, at);
            let next = at.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            let Value::Object(inner) = next else { return Ok(()) };
            at = inner;
        }
        let last = named(last, at);
        at.insert(last, Value::String(value));
        Ok(())
    }

    /// A text; numbers are read as theirs, and `null` as an empty one.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(String::new())),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(wrong(format!("{name}: has to be a text"))),
        }
    }

    /// A whole number, also one that came as a text.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.trim().parse().map_err(|_| wrong(format!("{name}: `{text}` is not a whole number")))?;
        Ok(Some(number))
    }

    /// The members of a list, if there is one.
    pub fn items(&self, name: &str) -> Option<Vec<Value>> {
        self.0.get(name).map(items)
    }

    /// The ids of the assets in `items`.
    pub fn assets(&self) -> Result<Vec<AssetId>> {
        let items = self.items("items").unwrap_or_default();
        items.iter().map(|item| id_of(item).ok_or_else(|| wrong("items: each has to be {\"id\": UUID}"))).collect()
    }

    /// What is said about an asset.
    pub fn draft(&self) -> Result<Draft> {
        let tags = self.items("tags").map(|tags| tags.iter().map(tag).collect::<Result<_>>()).transpose()?;
        let album = |item: &Value| id_of(item).ok_or_else(|| wrong("collections: each has to be {\"id\": UUID}"));
        let albums = self.items("collections").map(|all| all.iter().map(album).collect::<Result<_>>()).transpose()?;
        Ok(Draft {
            name: self.text("name")?,
            body: self.text("body")?,
            author: self.text("author")?,
            reference_id: self.text("reference_id")?,
            tags,
            albums,
        })
    }
}

/// The members of a list in any of its shapes.
pub fn items(list: &Value) -> Vec<Value> {
    match list {
        Value::Array(items) => items.clone(),
        Value::Object(object) => {
            if let Some(inner) = object.get("items") {
                return items(inner);
            }
            let mut numbered: Vec<(usize, &Value)> =
                object.iter().filter_map(|(key, value)| Some((key.parse().ok()?, value))).collect();
            if numbered.is_empty() && !object.is_empty() {
                return vec![list.clone()];
            }
            numbered.sort_by_key(|(n, _)| *n);
            numbered.into_iter().map(|(_, value)| value.clone()).collect()
        }
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

fn id_of<T: std::str::FromStr>(item: &Value) -> Option<T> {
    parse_id(item.get("id").unwrap_or(item).as_str()?)
}

fn tag(item: &Value) -> Result<TagRef> {
    let said = |name: &str| item.get(name).and_then(Value::as_str);
    if let Some(id) = said("id") {
        let id = parse_id(id).ok_or_else(|| wrong("tags: an id is a UUID"))?;
        return Ok(TagRef::Id(id));
    }
    let text = said("body").or_else(|| said("slug")).or_else(|| item.as_str());
    let text = text.ok_or_else(|| wrong("tags: each has to have an id, a body or a slug"))?;
    Ok(TagRef::Text(text.to_owned()))
}

/// `tags[items][0][body]` in parts. A name whose brackets do not match is taken as it is.
fn keys(name: &str) -> Vec<&str> {
    let Some((head, rest)) = name.split_once('[') else { return vec![name] };
    let Some(rest) = rest.strip_suffix(']') else { return vec![name] };
    let mut keys = vec![head];
    keys.extend(rest.split("]["));
    if keys.iter().any(|key| key.contains(['[', ']'])) { vec![name] } else { keys }
}

/// `[]` is the next number.
fn named(key: &str, at: &Map<String, Value>) -> String {
    if key.is_empty() { at.len().to_string() } else { key.to_owned() }
}

fn content_type(request: &HttpRequest) -> String {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    given.unwrap_or_default().trim().to_ascii_lowercase()
}

fn wrong(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Code::InvalidRequest.because(what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(text: &str) -> Said {
        Said::read("application/x-www-form-urlencoded; charset=utf-8", text.as_bytes()).unwrap()
    }

    #[test]
    fn brackets_nest_as_in_php() {
        let said = form("a=1&tags[items][0][body]=x&tags%5Bitems%5D%5B1%5D%5Bslug%5D=y+z&l[]=p&l[]=q&a=2&b[=3&c]d[=4");
        assert_eq!(
            Value::Object(said.0.clone()),
            json!({
                "a": "2", "tags": {"items": {"0": {"body": "x"}, "1": {"slug": "y z"}}},
                "l": {"0": "p", "1": "q"}, "b[": "3", "c]d[": "4",
            })
        );
        let read = |text: &str| Said::read("application/json", text.as_bytes()).unwrap().draft().unwrap();
        let json = read(r#"{"tags":{"items":[{"body":"x"},{"slug":"y z"}]},"other":{"a":[1]}}"#);
        assert_eq!(said.draft().unwrap(), json);
        assert_eq!(read(r#"{"tags":["x","y z"],"collections":[]}"#).tags, json.tags);
        assert!(form(&format!("a{}=1", "[b]".repeat(7))).items("a").is_some());
        assert!(Said::read("application/x-www-form-urlencoded", format!("a{}=1", "[b]".repeat(8)).as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_text_and_no_list_is_refused() {
        let draft = |text: &str| Said::read("", text.as_bytes()).and_then(|said| said.draft());
        assert_eq!(draft(r#"{"name":7,"author":null}"#).unwrap().name.as_deref(), Some("7"));
        assert_eq!(draft(r#"{"author":null}"#).unwrap().author.as_deref(), Some(""));
        for bad in
            [r#"{"name":{}}"#, r#"{"tags":[7]}"#, r#"{"tags":[{"id":"x"}]}"#, r#"{"collections":["x"]}"#, "[]", "{"]
        {
            assert_eq!(draft(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
        assert_eq!(form("file_size=8308859").number("file_size").unwrap(), Some(8_308_859));
        assert!(form("file_size=-1").number("file_size").is_err());
    }
}
