//! FileSpin's REST contract, read like the vendor's reference: a file for each chapter.
//!
//! Handlers translate and pass on; no rule of the domain lives here.

mod assets;
mod callbacks;
mod feed;
mod images;
mod jobs;
mod links;
mod processing;
pub mod reply;
mod settings;
mod sharing;
mod uploads;
mod users;
mod videos;

use crate::interfaces::http::table::Routes;

/// Every row of this dialect.
pub fn routes() -> Routes {
    let mut routes = Routes::new(reply::tell);
    users::mount(&mut routes);
    uploads::mount(&mut routes);
    assets::mount(&mut routes);
    processing::mount(&mut routes);
    jobs::mount(&mut routes);
    images::mount(&mut routes);
    sharing::mount(&mut routes);
    videos::mount(&mut routes);
    settings::mount(&mut routes);
    callbacks::mount(&mut routes);
    feed::mount(&mut routes);
    routes
}
