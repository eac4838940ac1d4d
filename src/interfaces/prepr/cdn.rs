//! Files under the addresses that `cdn_files` hand out: `/cdn/{format}/{file}`.
//!
//! `{format}` is tokens with commas between them (`w_300,h_200`), or left out with its slash or
//! without. Of a picture everybody is shown copies, as of any on-demand image; whoever may read the
//! original gets that where no format is asked for. Of anything else the original is sent, to whom it is
//! open, unless the extension asks for a picture of it.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::accounts::Caller;
use crate::accounts::Permission;
use crate::assets::AssetId;
use crate::assets::Assets;
use crate::assets::ORIGINAL;
use crate::delivery::Delivery;
use crate::delivery::Ground;
use crate::delivery::Of;
use crate::delivery::Wanted;
use crate::error::Code;
use crate::error::Result;
use crate::interfaces::http::extract::Pairs;
use crate::interfaces::http::respond;
use crate::interfaces::http::respond::Disposition;
use crate::interfaces::http::table::Body;
use crate::interfaces::http::table::Reply;
use crate::interfaces::http::table::Routes;
use crate::media::imaging::Recipe;
use crate::support::cpu::Cpu;

/// Extensions of pictures that can be made of what is none.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "avif"];

pub fn mount(r: &mut Routes) {
    for path in ["/cdn/{file}", "/cdn//{file}", "/cdn/{format}/{file}"] {
        r.get(path, Permission::Anyone, file, "A file of an asset, or a picture made of it")
            .answers(200, Body::Other("application/octet-stream", "The file."))
            .answers(206, Body::Other("application/octet-stream", "A part of it."))
            .refuses(&[
                Code::InvalidRequest,
                Code::AssetNotFound,
                Code::ContentNotFound,
                Code::NoImage,
                Code::BadImage,
                Code::AssetNotReady,
                Code::Forbidden,
                Code::RangeNotSatisfiable,
                Code::StorageUnavailable,
            ]);
    }
}

async fn file(
    caller: Caller,
    delivery: Data<Delivery>,
    assets: Data<Assets>,
    cpu: Data<Cpu>,
    request: HttpRequest,
    query: Pairs,
) -> Reply<HttpResponse> {
    let named = |name: &str| request.match_info().get(name).unwrap_or_default();
    let (id, extension) = parts(named("file"))?;
    let format = named("format");
    let ground = delivery.standing(&caller, None).await?.ground;
    let full = assets.recall(id).await?;
    let asset = &full.asset;
    let is_picture = asset.content_type.starts_with("image/");
    let is_open = asset.public || ground != Ground::Public;
    let asks_picture =
        !is_picture && (asset.has_picture() || asset.still_by().is_some()) && PICTURES.contains(&extension);
    if asks_picture || (is_picture && !(format.is_empty() && is_open)) {
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let wanted = Wanted { id, of: Of::Asset, recipe: &recipe(format)?, accept };
        let shown = delivery.image(ground, wanted).await?;
        return Ok(respond::image(&request, &shown, None));
    }
    let content = delivery.content(ground, id, ORIGINAL).await?;
    Ok(respond::content(&request, &cpu, &content, Disposition::asked(&query)).await?)
}

/// Id and extension.
fn parts(file: &str) -> Result<(AssetId, &str)> {
    let (id, extension) = file.split_once('.').unwrap_or((file, ""));
    let id = id.parse().map_err(|()| Code::AssetNotFound.because("No file has this name."))?;
    Ok((id, extension))
}

/// `w_300,h_200` as a recipe.
fn recipe(format: &str) -> Result<Recipe> {
    let (mut width, mut height, mut pairs) = (None, None, Vec::new());
    for token in format.split(',').filter(|token| !token.is_empty()) {
        match token.split_once('_') {
            Some(("w", value)) => width = Some(value),
            Some(("h", value)) => height = Some(value),
            Some(("q", value)) => pairs.push(("quality", value.to_owned())),
            Some(("f", value)) => pairs.push(("format", value.to_owned())),
            _ => {
                return Err(Code::InvalidRequest.because(
                    "A format is made of w_ (width), h_ (height), q_ (quality) and f_ (format), as in w_300,h_200.",
                ));
            }
        }
    }
    if width.is_some() || height.is_some() {
        pairs.push(("resize", format!("{},{}", width.unwrap_or_default(), height.unwrap_or_default())));
    }
    let pairs = pairs.iter().map(|(name, value)| (*name, &**value));
    Recipe::parse(pairs).map_err(|bad| Code::InvalidRequest.because(bad.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_a_recipe() {
        let canonical = |format: &str| recipe(format).map(|recipe| recipe.canonical());
        assert_eq!(canonical("").unwrap(), Recipe::default().canonical());
        let asked = |pairs: &[(&str, &str)]| Recipe::parse(pairs.iter().copied()).unwrap().canonical();
        assert_eq!(canonical("w_300,h_200").unwrap(), asked(&[("resize", "300,200")]));
        assert_eq!(canonical("w_300").unwrap(), asked(&[("resize", "300,")]));
        assert_eq!(
            canonical("h_200,q_70,f_webp").unwrap(),
            asked(&[("quality", "70"), ("format", "webp"), ("resize", ",200")])
        );
        for bad in ["w_x", "w_0", "x_1", "{format}", "300x200", "w_300;h_200"] {
            assert_eq!(canonical(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
    }
}
