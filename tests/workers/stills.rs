//! Pictures that wait for a worker together.

use std::fs::File;
use std::path::PathBuf;

use cloakroom::infra::workers::Config;
use cloakroom::infra::workers::Workers;
use cloakroom::media::imaging::Limits;
use cloakroom::media::imaging::Order;
use cloakroom::media::imaging::OutputFormat;
use cloakroom::media::imaging::Recipe;
use cloakroom::stills::Sources;
use cloakroom::stills::Stills;

use crate::PROCESS;

fn sources(mark: Option<&str>) -> Sources {
    let inputs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inputs");
    let open = |name: &str| File::open(inputs.join(name)).unwrap();
    Sources::new(open("photo.jpg"), mark.map(open)).unwrap()
}

fn order(query: &[(&str, &str)]) -> Order {
    Order::new(Recipe::parse(query.iter().copied()).unwrap(), OutputFormat::Png)
}

/// On one thread: all have asked before the first of them is served.
#[tokio::test]
async fn each_is_made_of_its_own_sources() {
    let _shared = PROCESS.read().await;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_cloakroom-media"));
    let workers = Workers::start(Config { slots: 1, program: Some(program), ..Config::default() }).unwrap();
    let stills = Stills::new(workers, Limits::default());
    let small = ("resize", "60,60");
    let marked = || order(&[small, ("watermark", "center,0.5")]);
    let (plain, marked, otherwise_marked, broken, again) = tokio::join!(
        stills.render_together(sources(None), order(&[small])),
        stills.render_together(sources(Some("png_alpha.png")), marked()),
        stills.render_together(sources(Some("jpeg_grey.jpg")), marked()),
        // The mark is no picture.
        stills.render_together(sources(Some("../../../Cargo.toml")), marked()),
        stills.render_together(sources(None), order(&[small])),
    );
    let [plain, marked, otherwise_marked, again] =
        [plain, marked, otherwise_marked, again].map(|made| made.unwrap().bytes);
    assert!(broken.is_err());
    assert!(plain == again);
    assert!(plain != marked && marked != otherwise_marked && otherwise_marked != plain);
}
