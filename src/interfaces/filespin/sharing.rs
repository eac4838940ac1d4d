//! Handing contents out: links that carry a right, and contents that everybody may read.
//!
//! The links are signed (`delivery::link`) and lead to the addresses where the other chapters
//! serve these contents.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::web::Json;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::accounts::Accounts;
use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::Conversion;
use crate::assets::HLS;
use crate::assets::ORIGINAL;
use crate::assets::STORYBOARD;
use crate::delivery::Delivery;
use crate::delivery::link::Life;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::filespin::reply::Origin;
use crate::interfaces::http::extract::Id;
use crate::interfaces::http::extract::JsonBody;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::settings::DEEPZOOM;
use crate::support::mime;

/// What a link lives for unless somebody says otherwise.
const USUAL_LIFE: Duration = Duration::from_mins(100);
/// The longest that an object store signs for, which callers of `object_storage` reckon with.
const OBJECT_STORAGE_LIFE: Duration = Duration::from_hours(7 * 24);
/// Assets of one request for links.
pub const MOST_LINKS: usize = 100;

const LINK_QUERY: [(&str, &str); 5] = [
    ("key", "A content key: `original`, a conversion, a transcode"),
    ("expiry", "Seconds from now (6000), or `MAX`"),
    ("delivery", "`download` (as usual) or `display`"),
    (
        "link_type",
        "`cdn` (as usual) or `object_storage`: into the bucket where the content lies in one; for a week at most",
    ),
    ("accessId", "The caller's own, if at all"),
];

pub fn mount(r: &mut Routes) {
    let refused = [Code::AssetNotFound, Code::ContentNotFound, Code::MissingParameter, Code::InvalidRequest];
    r.get("/api/v1/assets/{id}/get_link", Permission::SignLink, link, "A link to a content that needs no key")
        .query(LINK_QUERY)
        .answers(200, Body::json::<Link>())
        .refuses(&refused);
    r.post("/api/v1/assets/get_link", Permission::SignLink, links, "Links to a content of each of up to 100 assets")
        .query(LINK_QUERY)
        .takes(Body::json::<Vec<String>>())
        .answers(200, Body::json::<Links>())
        .refuses(&[Code::MissingParameter, Code::InvalidRequest]);
    r.post(
        "/api/v1/assets/{id}/content/set_public_access",
        Permission::DistributeAsset,
        set_public,
        "Lets everybody read contents; keys that are not there are ignored",
    )
    .takes(Body::json::<Keys>())
    .answers(200, Body::json::<Changed>())
    .refuses(&[Code::AssetNotFound, Code::InvalidRequest]);
    r.post(
        "/api/v1/assets/{id}/content/remove_public_access",
        Permission::DistributeAsset,
        remove_public,
        "Takes that back",
    )
    .takes(Body::json::<Keys>())
    .answers(200, Body::json::<Changed>())
    .refuses(&[Code::AssetNotFound, Code::InvalidRequest]);
}

#[derive(Clone, Serialize, JsonSchema)]
struct Link {
    url: String,
}

#[derive(Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "the contract's name")]
struct Links {
    /// By asset id.
    links: BTreeMap<String, Link>,
    /// Why an asset has none, by its id.
    errors: BTreeMap<String, String>,
    /// The links once more, by asset id.
    #[serde(flatten)]
    flat: BTreeMap<String, Link>,
}

#[derive(Deserialize, JsonSchema)]
struct Keys {
    /// Content keys, such as `original` or `720p-video`.
    keys: Vec<String>,
}

/// Which contents a call has changed.
#[derive(Serialize, JsonSchema)]
pub(super) struct Changed {
    /// `OK`
    status: &'static str,
    message: &'static str,
    /// Those that are there.
    keys: Vec<String>,
}

impl Changed {
    pub(super) fn of(keys: Vec<String>) -> Changed {
        let message = if keys.is_empty() { "None of the keys is there" } else { "Done" };
        Changed { status: "OK", message, keys }
    }
}

/// What is asked of a link.
struct Wanted {
    key: String,
    life: Life,
    delivery: &'static str,
    /// By an address in the bucket, of what lies in one.
    from_bucket: bool,
}

async fn link(
    caller: Caller,
    accounts: Data<Accounts>,
    assets: Data<Assets>,
    delivery: Data<Delivery>,
    origin: Origin,
    id: Id,
    query: Pairs,
) -> Reply<Json<Link>> {
    let wanted = wanted(&caller, &accounts, &query).await?;
    Ok(Json(sign(&caller, &assets, &delivery, &origin, id.0, &wanted).await?))
}

async fn links(
    caller: Caller,
    accounts: Data<Accounts>,
    assets: Data<Assets>,
    delivery: Data<Delivery>,
    origin: Origin,
    query: Pairs,
    ids: JsonBody<Vec<String>>,
) -> Reply<Json<Links>> {
    let wanted = wanted(&caller, &accounts, &query).await?;
    if ids.0.len() > MOST_LINKS {
        return Err(Code::InvalidRequest.because(format!("At most {MOST_LINKS} assets at a time.")).into());
    }
    let (mut links, mut errors) = (BTreeMap::new(), BTreeMap::new());
    for text in ids.0 {
        let signed = match text.parse() {
            Ok(id) => sign(&caller, &assets, &delivery, &origin, id, &wanted).await,
            Err(()) => Err(Code::AssetNotFound.into()),
        };
        match signed {
            Ok(link) => drop(links.insert(text, link)),
            Err(e) if e.code.http() < 500 => drop(errors.insert(text, e.code.wire().to_owned())),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Json(Links { flat: links.clone(), links, errors }))
}

async fn set_public(assets: Data<Assets>, id: Id, body: JsonBody<Keys>) -> Reply<Json<Changed>> {
    publish(&assets, id, body, true).await
}

async fn remove_public(assets: Data<Assets>, id: Id, body: JsonBody<Keys>) -> Reply<Json<Changed>> {
    publish(&assets, id, body, false).await
}

async fn publish(assets: &Assets, id: Id, body: JsonBody<Keys>, public: bool) -> Reply<Json<Changed>> {
    Ok(Json(Changed::of(assets.set_public(id.0, body.0.keys, public).await?)))
}

async fn wanted(caller: &Caller, accounts: &Accounts, query: &Pairs) -> Result<Wanted> {
    let wrong = |what: String| Code::InvalidRequest.because(what);
    let key = query
        .get("key")
        .ok_or_else(|| Code::MissingParameter.because("key: name a content, such as original"))?
        .to_owned();
    let longest = match query.get("link_type").unwrap_or("cdn") {
        "cdn" => Life::Longest,
        "object_storage" => Life::For(OBJECT_STORAGE_LIFE),
        other => return Err(wrong(format!("link_type: `{other}` is neither cdn nor object_storage"))),
    };
    let life = match query.get("expiry") {
        None => Life::For(USUAL_LIFE),
        Some("MAX") => longest,
        Some(text) => {
            let seconds = text.parse().ok().filter(|seconds| (1..=u64::from(u32::MAX)).contains(seconds));
            let life =
                Duration::from_secs(seconds.ok_or_else(|| {
                    wrong(format!("expiry: `{text}` is neither a number of seconds from now nor MAX"))
                })?);
            match longest {
                Life::For(longest) => Life::For(life.min(longest)),
                Life::Longest => Life::For(life),
            }
        }
    };
    let delivery = match query.get("delivery").unwrap_or("download") {
        "download" => "download",
        "display" => "display",
        other => return Err(wrong(format!("delivery: `{other}` is neither display nor download"))),
    };
    if let Some(access_id) = query.get("accessId") {
        let owner = accounts.signer(access_id).await?.map(|signer| signer.caller.user_id());
        if owner != Some(caller.user_id()) {
            return Err(Code::Forbidden.because("accessId: links are signed for oneself only."));
        }
    }
    let from_bucket = query.get("link_type") == Some("object_storage");
    Ok(Wanted { key, life, delivery, from_bucket })
}

async fn sign(
    caller: &Caller,
    assets: &Assets,
    delivery: &Delivery,
    origin: &Origin,
    id: AssetId,
    wanted: &Wanted,
) -> Result<Link> {
    let Wanted { key, life, delivery: how, from_bucket } = wanted;
    let full = assets.find(id).await?;
    let conversion = full.conversion(key).filter(|c| !c.is_internal());
    if key != ORIGINAL && conversion.is_none() {
        return Err(Code::ContentNotFound.because(format!("Asset {id} has no content `{key}`.")));
    }
    if let (true, None, Life::For(life)) = (*from_bucket, conversion, *life) {
        let (_, is_safe) = mime::served(&full.asset.content_type);
        let kind = if *how == "display" && is_safe { "inline" } else { "attachment" };
        let disposition = respond::disposition(kind, &full.asset.name);
        if let Some(url) = delivery.bucket_link(&full.asset, life, &disposition).await? {
            return Ok(Link { url });
        }
    }
    let path = format!("{id}/{}", address(conversion));
    let signed = delivery.sign(caller, &path, &[("delivery", how)], *life).await?;
    Ok(Link { url: format!("{}/api/v1/assets/{signed}", origin.0) })
}

/// Where a content is served, below its asset; `None` is the original.
fn address(conversion: Option<&Conversion>) -> String {
    let Some(Conversion { key, extension, content_type, handed, .. }) = conversion else {
        return format!("content/{ORIGINAL}");
    };
    match &**key {
        HLS => "transcodes/playlist.m3u8".to_owned(),
        STORYBOARD => "storyboard/storyboard.vtt".to_owned(),
        DEEPZOOM => "conversions/deepzoom/deepzoom.dzi".to_owned(),
        _ if content_type.starts_with("image/") || handed.is_some() => format!("conversions/{key}"),
        _ => format!("transcodes/{key}.{extension}"),
    }
}
