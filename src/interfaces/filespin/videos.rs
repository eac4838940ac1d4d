//! Films and recordings: renditions, HTTP Live Streaming, storyboards. Each at the documented
//! address and at the old one.
//!
//! The addresses of a stream mirror its folder, so that what a playlist says of its neighbours
//! leads here, whichever address it was read from. A signed link to a playlist makes all of its
//! stream playable; `delivery::transcodes` says how.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::place;
use crate::delivery::Delivery;
use crate::delivery::Of;
use crate::delivery::Wanted;
use crate::delivery::transcodes;
use crate::error::Code;
use crate::interfaces::filespin::images;
use crate::interfaces::filespin::links;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::respond::Disposition;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::media::imaging::Recipe;
use crate::media::imaging::params::PARAMS;
use crate::support::cpu::Cpu;

const FILM: Body = Body::Other("video/mp4", "H.264 and AAC, its index in front.");
const SOUND: Body = Body::Other("audio/mp4", "AAC.");
const SEGMENT: Body = Body::Other("*/*", "A playlist (`.m3u8`), the head of segments (`.mp4`) or a segment (`.m4s`).");
const PLAYLIST: Body = Body::Other("application/vnd.apple.mpegurl", "The master playlist.");
const FRAME: Body = Body::Other("*/*", "A picture, or the cues as WebVTT.");

const DELIVERY: (&str, &str) = ("delivery", "`display` (as usual) or `download`");
const MAKING: (&str, &str) = ("v", "As in the playlist: which making of the stream; an earlier one is gone");

const REFUSED: [Code; 5] =
    [Code::AssetNotFound, Code::ContentNotFound, Code::RangeNotSatisfiable, Code::Unauthorized, Code::Forbidden];

pub fn mount(r: &mut Routes) {
    for path in ["/api/v1/assets/{id}/transcodes/{key}.mp4", "/api/v1/video/{id}/{key}.mp4"] {
        r.get(path, Permission::Anyone, film, "A rendition of a film: `480p-video.mp4`, `clip_preview.mp4`, ...")
            .query([DELIVERY])
            .query(links::PARAMETERS)
            .answers(200, FILM)
            .answers(206, FILM)
            .refuses(&REFUSED);
    }
    r.get(
        "/api/v1/assets/{id}/transcodes/{key}.m4a",
        Permission::Anyone,
        sound,
        "A recording as every browser plays it: `audio_preview.m4a`",
    )
    .query([DELIVERY])
    .query(links::PARAMETERS)
    .answers(200, SOUND)
    .answers(206, SOUND)
    .refuses(&REFUSED);
    for path in ["/api/v1/assets/{id}/transcodes/playlist.m3u8", "/api/v1/video/{id}/playlist.m3u8"] {
        r.get(path, Permission::Anyone, master, "HTTP Live Streaming; signed, it opens all of its stream")
            .query(links::PARAMETERS)
            .answers(200, PLAYLIST)
            .refuses(&REFUSED);
    }
    for path in ["/api/v1/assets/{id}/transcodes/{variant}/{file}", "/api/v1/video/{id}/{variant}/{file}"] {
        r.get(path, Permission::Anyone, part, "What a playlist leads to")
            .query([MAKING])
            .query(links::PARAMETERS)
            .answers(200, SEGMENT)
            .answers(206, SEGMENT)
            .refuses(&REFUSED);
    }
    for path in ["/api/v1/assets/{id}/storyboard/{file}", "/api/v1/storyboard/{id}/{file}"] {
        r.get(
            path,
            Permission::Anyone,
            storyboard,
            "Frames of a film: `storyboard_000001.jpg` and on, as stored or transformed by parameters; \
             `sprite.jpg`, all of them; `storyboard.vtt`, which moment is where",
        )
        .query(PARAMS.iter().map(|p| (p.name(), p.help())))
        .query([DELIVERY, MAKING])
        .query(links::PARAMETERS)
        .answers(200, FRAME)
        .answers(206, FRAME)
        .refuses(&REFUSED)
        .refuses(&[Code::InvalidRequest]);
    }
}

async fn film(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    transcode(&caller, &delivery, &cpu, &request, &id, &query, "mp4").await
}

async fn sound(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    transcode(&caller, &delivery, &cpu, &request, &id, &query, "m4a").await
}

async fn transcode(
    caller: &Caller,
    delivery: &Delivery,
    cpu: &Cpu,
    request: &HttpRequest,
    id: &Id,
    query: &Pairs,
    extension: &str,
) -> Reply<HttpResponse> {
    let ground = links::ground(delivery, caller, request).await?;
    let content = delivery.transcode(ground, id.0, named(request, "key"), extension).await?;
    Ok(respond::content(request, cpu, &content, Disposition::asked(query)).await?)
}

async fn master(caller: Caller, delivery: Data<Delivery>, request: HttpRequest, id: Id) -> Reply<HttpResponse> {
    let standing = links::standing(&delivery, &caller, &request).await?;
    Ok(respond::text(&request, delivery.playlist(&standing, id.0, place::PLAYLIST).await?))
}

async fn part(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    let standing = links::standing(&delivery, &caller, &request).await?;
    let file = format!("{}/{}", named(&request, "variant"), named(&request, "file"));
    if transcodes::is_playlist(&file) {
        return Ok(respond::text(&request, delivery.playlist(&standing, id.0, &file).await?));
    }
    let part = delivery.segment(standing.ground, id.0, &file, query.get("v")).await?;
    Ok(respond::part(&request, &cpu, &part, Disposition::Display).await?)
}

async fn storyboard(
    caller: Caller,
    delivery: Data<Delivery>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    id: Id,
    query: Pairs,
) -> Reply<HttpResponse> {
    let standing = links::standing(&delivery, &caller, &request).await?;
    let file = named(&request, "file");
    if file == place::CUES {
        return Ok(respond::text(&request, delivery.cues(&standing, id.0).await?));
    }
    let recipe = images::recipe(&query)?;
    if recipe == Recipe::default() {
        let part = delivery.frame(standing.ground, id.0, file, query.get("v")).await?;
        return Ok(respond::part(&request, &cpu, &part, Disposition::asked(&query)).await?);
    }
    let wanted = Wanted { id: id.0, of: Of::Frame(file), recipe: &recipe, accept: images::accept(&request) };
    let shown = delivery.image(standing.ground, wanted).await?;
    let stem = file.strip_suffix(".jpg").unwrap_or(file);
    let keep = Disposition::asked(&query) == Disposition::Download;
    Ok(respond::image(&request, &shown, keep.then(|| format!("{}-{stem}", id.0))))
}

fn named<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().get(name).unwrap_or_default()
}
