//! The video worker: one errand with a stranger's film, in a sandbox, for the server that
//! started it.

use cloakroom::infra::workers::errand;
use cloakroom::media::video;
use cloakroom::media::video::Errand;
use cloakroom::media::video::Report;
use cloakroom::media::video::VideoError;
use serde::Deserialize;

fn main() {
    errand::serve(
        |errand| Ok(video::prepare(&Errand::deserialize(errand)?)?),
        |errand, tell| {
            let mut report = |report: Report| tell(serde_json::to_value(report).unwrap_or_default());
            match serde_json::from_value(errand) {
                Ok(errand) => video::run(errand, &mut report),
                Err(error) => report(Report::Failed(VideoError::Internal(error.to_string()))),
            }
        },
    )
}
