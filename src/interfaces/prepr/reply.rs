//! How this dialect refuses (as FileSpin does: the vendor publishes no error body), the origin in its URLs,
//! and its ids in paths.

use std::future::Ready;
use std::future::ready;
use std::str::FromStr;

use actix_web::FromRequest;
use actix_web::HttpRequest;
use actix_web::dev::Payload;

use crate::assets::AssetId;
use crate::catalogue::AlbumId;
use crate::error::Code;
pub use crate::interfaces::http::extract::Origin;
use crate::interfaces::http::table::Failure;
pub use crate::interfaces::http::table::Refusal;
pub use crate::interfaces::http::table::tell;
use crate::wire::prepr::parse_id;

/// The `{id}` of an asset, with dashes or without. Anything else cannot be one: 404.
pub struct AssetUuid(pub AssetId);

impl FromRequest for AssetUuid {
    type Error = Failure;
    type Future = Ready<Result<AssetUuid, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(in_path(request, Code::AssetNotFound).map(AssetUuid))
    }
}

/// The same of a collection.
pub struct AlbumUuid(pub AlbumId);

impl FromRequest for AlbumUuid {
    type Error = Failure;
    type Future = Ready<Result<AlbumUuid, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(in_path(request, Code::CollectionNotFound).map(AlbumUuid))
    }
}

fn in_path<T: FromStr>(request: &HttpRequest, missing: Code) -> Result<T, Failure> {
    let text = request.match_info().get("id").unwrap_or_default();
    parse_id(text).ok_or_else(|| Failure(missing.because("Nothing has this id: an id is a UUID.")))
}
