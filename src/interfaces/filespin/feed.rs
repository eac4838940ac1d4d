//! Ours: what happens to assets, as it happens (server-sent events) or page by page.
//!
//! Both say the same: lines of the journal, each with its number. A program that remembers the
//! last number it saw misses nothing, whichever it uses.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::web::Data;
use actix_web::web::Json;
use futures_util::StreamExt;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accounts::Permission;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::news::Line;
use crate::news::Listener;
use crate::news::News;
use crate::wire::filespin::callbacks::ChangeData;

/// A sign of life, so that proxies keep the connection and clients notice when it is dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How soon a client comes back that was cut off.
const OPENING: &str = "retry: 2000\n: listening\n\n";

/// Lines that go out together at most.
const MOST_TOGETHER: usize = 64;

pub fn mount(r: &mut Routes) {
    r.get(
        "/api/v1/feed",
        Permission::ReadAsset,
        feed,
        "Ours: what happens to assets, as server-sent events without end; `Last-Event-ID` goes on where it broke off",
    )
    .query([("last_event_id", "The same as the header, for clients that cannot set one")])
    .answers(200, Body::Other("text/event-stream", "`id` is the line's number, `event` its event, `data` the line."))
    .refuses(&[Code::InvalidRequest]);
    r.get(
        "/api/v1/changes",
        Permission::ReadAsset,
        changes,
        "Ours: what happened to assets, from a cursor on, oldest first",
    )
    .query([
        ("since", "The last number seen: `next` of the page before; from the beginning when absent"),
        ("limit", "Lines to answer: 100, at most 500"),
    ])
    .answers(200, Body::json::<Changes>())
    .refuses(&[Code::InvalidRequest]);
}

#[derive(Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the words of the wire")]
struct Changes {
    changes: Vec<ChangeData>,
    /// `since` of the next page.
    next: i64,
    /// The number of the newest line there is: `since` for those who begin now.
    current: i64,
}

async fn changes(news: Data<News>, query: Pairs) -> Reply<Json<Changes>> {
    let since = number("since", query.get("since"))?.unwrap_or(0);
    let limit = query.number("limit")?.unwrap_or(100).clamp(1, 500);
    let (changes, current) = news.after(since, limit).await?;
    let next = changes.last().map_or(since.min(current), ChangeData::seq);
    Ok(Json(Changes { changes, next, current }))
}

async fn feed(request: HttpRequest, news: Data<News>, query: Pairs) -> Reply<HttpResponse> {
    let given = request.headers().get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let after = number("Last-Event-ID", given.or(query.get("last_event_id")).filter(|text| !text.is_empty()))?;
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"));
    if *request.method() == Method::HEAD {
        return Ok(answer.finish());
    }
    let listener = news.listen(after).await?;
    let opening = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(OPENING.as_bytes())) });
    Ok(answer.streaming(opening.chain(stream::unfold(listener, |mut listener| async move {
        let text = next(&mut listener).await?;
        Some((Ok(Bytes::from(text)), listener))
    }))))
}

/// What is sent next: the lines that are there, or a sign of life.
async fn next(listener: &mut Listener) -> Option<String> {
    let Ok(line) = tokio::time::timeout(HEARTBEAT, listener.next()).await else {
        return Some(": alive\n\n".to_owned());
    };
    let mut text = written(&*line?);
    for line in std::iter::from_fn(|| listener.ready()).take(MOST_TOGETHER) {
        text += &written(&line);
    }
    Some(text)
}

fn written(line: &Line) -> String {
    format!("id: {}\nevent: {}\ndata: {}\n\n", line.seq, line.event, line.text)
}

fn number(name: &str, text: Option<&str>) -> Result<Option<i64>> {
    let wrong = |text: &str| Code::InvalidRequest.because(format!("{name}: `{text}` is not the number of a line"));
    text.map(|text| text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(|| wrong(text))).transpose()
}
