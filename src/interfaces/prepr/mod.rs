//! Prepr's REST API for assets and collections, at the origin's root as its clients expect it.
//!
//! Sources: <https://docs.prepr.io/mutation-api/assets-upload-update-and-destroy> and what its PHP SDK
//! sends: every POST as multipart, PUT and DELETE as a form, with PHP's brackets. All three kinds of
//! body are taken everywhere (`input`).
//!
//! Handlers translate and pass on; no rule of the domain lives here.

mod assets;
mod cdn;
mod chunks;
mod collections;
mod input;
mod listing;
pub mod reply;

use serde::Deserialize;
use serde::Serialize;

use crate::interfaces::http::table::Routes;

/// What the operator says about this interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What comes in here and is no picture may be read by anyone who has its address.
    pub public: bool,
}

/// Every row of this dialect.
pub fn routes() -> Routes {
    let mut routes = Routes::new(reply::tell);
    assets::mount(&mut routes);
    chunks::mount(&mut routes);
    listing::mount(&mut routes);
    collections::mount(&mut routes);
    cdn::mount(&mut routes);
    routes
}
