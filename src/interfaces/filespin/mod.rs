//! FileSpin's REST contract, read like the vendor's reference: a file for each chapter.
//!
//! Handlers translate and pass on; no rule of the domain lives here.

mod account;
mod assets;
mod callbacks;
mod collections;
mod direct;
mod external;
mod feed;
mod images;
mod jobs;
mod keeping;
pub mod limits;
mod links;
mod picker;
mod processing;
pub mod reply;
mod schemas;
mod search;
mod settings;
mod sharing;
mod uploads;
mod users;
mod videos;

use crate::interfaces::http::table::Routes;

/// Every row of this dialect.
pub fn routes() -> Routes {
    let mut routes = Routes::new(reply::tell);
    account::mount(&mut routes);
    users::mount(&mut routes);
    uploads::mount(&mut routes);
    picker::mount(&mut routes);
    external::mount(&mut routes);
    direct::mount(&mut routes);
    assets::mount(&mut routes);
    keeping::mount(&mut routes);
    processing::mount(&mut routes);
    jobs::mount(&mut routes);
    images::mount(&mut routes);
    sharing::mount(&mut routes);
    videos::mount(&mut routes);
    settings::mount(&mut routes);
    limits::mount(&mut routes);
    schemas::mount(&mut routes);
    search::mount(&mut routes);
    collections::mount(&mut routes);
    callbacks::mount(&mut routes);
    feed::mount(&mut routes);
    routes
}
