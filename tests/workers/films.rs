//! The video worker's own program in its cell: what films need works there, and encoders that do
//! not are found out.

use std::path::PathBuf;

use cloakroom::infra::workers::errand::Config;
use cloakroom::infra::workers::errand::Errands;
use cloakroom::infra::workers::errand::Grants;
use cloakroom::media::video;
use cloakroom::media::video::Errand;
use cloakroom::media::video::Fit;
use cloakroom::media::video::Outcome;
use cloakroom::media::video::Rendition;
use cloakroom::media::video::Report;
use cloakroom::media::video::Shape;
use cloakroom::media::video::Survey;
use cloakroom::media::video::Transcode;
use cloakroom::media::video::VideoError;
use serde_json::json;

use super::PROCESS;

fn errands(program: &str) -> Errands {
    let config = Config { program: Some(PathBuf::from(program)), idle_seconds: 120, ..Config::default() };
    Errands::new(config, video::ENVIRONMENT)
}

async fn ask(errands: &Errands, errand: Errand) -> Result<Outcome, VideoError> {
    ask_with(errands, errand, Grants { devices: true, ..Grants::default() }).await
}

async fn ask_with(errands: &Errands, errand: Errand, grants: Grants) -> Result<Outcome, VideoError> {
    let errand = serde_json::to_value(errand).unwrap();
    let last = errands
        .run(errand, grants, errands.limits(), |_| ())
        .await
        .map_err(|ending| VideoError::Internal(ending.to_string()))?;
    match serde_json::from_value(last).unwrap() {
        Report::Done(outcome) => Ok(outcome),
        Report::Failed(error) => Err(error),
        Report::Progress(_) => Err(VideoError::Internal("no answer".to_owned())),
    }
}

async fn survey(program: &str) -> Survey {
    let errands = errands(program);
    video::survey(|errand| ask(&errands, errand)).await.unwrap()
}

#[tokio::test]
async fn films_can_be_made_in_the_cell() {
    let _shared = PROCESS.read().await;
    let errands = errands(env!("CARGO_BIN_EXE_fake-video"));
    let sandbox = errands.sandbox().await.unwrap();
    assert!(sandbox.holds, "{sandbox:#?}");
    for devices in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let grants = Grants { folder: Some(folder.path().to_owned()), devices, ..Grants::default() };
        let errand = json!({"film": folder.path()});
        let made = errands.run(errand, grants, errands.limits(), |_| ()).await.unwrap();
        assert_eq!(made["complaints"], json!([null, null]));
        assert!(made["bytes"].as_u64().unwrap() > 10_000);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["made.mp4"]);
    }
}

#[tokio::test]
async fn the_program_itself_answers_and_its_cell_holds() {
    let _shared = PROCESS.read().await;
    let program = env!("CARGO_BIN_EXE_cloakroom-video");
    let sandbox = errands(program);
    assert!(sandbox.sandbox().await.unwrap().holds);
    let survey = survey(program).await;
    assert!(survey.encoders.contains(&"x264enc".to_owned()), "{survey:?}");
    assert_eq!(survey.missing, []);
    assert!(survey.version.starts_with("GStreamer 1."), "{survey:?}");
}

#[tokio::test]
async fn hardware_is_believed_only_after_a_trial() {
    let _shared = PROCESS.read().await;
    let survey = survey(env!("CARGO_BIN_EXE_fake-video")).await;
    assert_eq!(survey.encoders, ["nvh264enc", "x264enc", "openh264enc"]);
    assert_eq!((survey.best(), survey.software()), (Some("nvh264enc"), Some("x264enc")));
    let failing: Vec<_> = survey.failing.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    assert_eq!(failing.len(), 4, "{failing:?}");
    for ((name, why), (expected, words)) in failing.into_iter().zip([
        ("vah264enc", "Failed after iterations"),
        ("vah264lpenc", "0 of 20 frames"),
        ("qsvh264enc", "Failed after iterations"),
        ("v4l2h264enc", "stopped"),
    ]) {
        assert!(name == expected && why.contains(words), "{name}: {why}");
    }
}

#[tokio::test]
async fn an_encoder_that_gives_up_is_told_from_a_bad_film() {
    let _shared = PROCESS.read().await;
    let errands = errands(env!("CARGO_BIN_EXE_fake-video"));
    let (source, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let grants = Grants { folder: Some(source.path().to_owned()), ..Grants::default() };
    errands.run(json!({"film": source.path()}), grants, errands.limits(), |_| ()).await.unwrap();
    let source = source.path().join("made.mp4");
    for (encoder, outcome) in [
        ("qsvh264enc", "the encoder failed"),
        ("v4l2h264enc", "the decoder stopped"),
        ("nvh264enc", "made"),
        ("x264enc", "made"),
    ] {
        let folder = folder.path().join(encoder);
        std::fs::create_dir(&folder).unwrap();
        let shape = Shape { fit: Fit::Preserve, padding: [0; 3], upscale: false };
        let order = Transcode {
            source: source.clone(),
            folder: folder.clone(),
            renditions: vec![Rendition { name: "360p-video".to_owned(), lines: 360, shape, watermark: false }],
            hls: None,
            clip: None,
            mark: None,
            encoder: encoder.to_owned(),
        };
        let grants = Grants { read: vec![source.clone()], folder: Some(folder.clone()), devices: true };
        let said = match ask_with(&errands, Errand::Transcode(order), grants).await {
            Ok(Outcome::Transcoded(_)) => "made".to_owned(),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        assert!(said.starts_with(outcome), "{encoder}: {said}");
        assert_eq!(folder.join("360p-video.mp4").exists() && said == "made", outcome == "made", "{encoder}");
    }
}

#[tokio::test]
async fn an_errand_of_another_kind_is_refused_in_words() {
    let _shared = PROCESS.read().await;
    let errands = errands(env!("CARGO_BIN_EXE_cloakroom-video"));
    let outcome = errands.run(json!({"Paint": {}}), Grants::default(), errands.limits(), |_| ()).await;
    assert!(
        matches!(&outcome, Err(ending) if ending.details().is_some_and(|why| why.contains("Paint"))),
        "{outcome:?}"
    );
}
