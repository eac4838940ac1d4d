//! The pictures of the manual: every parameter, shown on a scene of ours.
//!
//! They are rendered like any other picture, so the manual cannot promise what the box does
//! not do. There are as many as there are parameters, so nobody can make the box work with them.

use std::io::Write;
use std::sync::Arc;

use crate::delivery::Delivery;
use crate::delivery::Image;
use crate::error::Code;
use crate::error::Result;
use crate::infra::workers::Class;
use crate::media::imaging::OutputFormat;
use crate::media::imaging::Recipe;
use crate::media::imaging::params::PARAMS;
use crate::media::imaging::params::watermark::Placement;
use crate::settings::Watermark;
use crate::stills::Order;
use crate::stills::Sources;

const SCENE: &[u8] = include_bytes!("../../tests/golden/inputs/photo.jpg");
const MARK: &[u8] = include_bytes!("../../tests/golden/inputs/png_alpha.png");

/// What the pictures fit in, unless an example says otherwise.
const CEILING: (u32, u32) = (240, 240);

impl Delivery {
    /// The picture of a parameter's example; without a name, the scene itself.
    pub async fn example(&self, name: Option<&str>) -> Result<Arc<Image>> {
        let param = match name {
            Some(name) => Some(
                PARAMS
                    .iter()
                    .find(|param| param.name() == name)
                    .ok_or_else(|| Code::NotFound.because("There is no such example."))?,
            ),
            None => None,
        };
        let key = name.unwrap_or_default().to_owned();
        if let Some(known) = self.examples.get(&key) {
            return Ok(known);
        }
        let made = Arc::new(self.render_example(param.map(|param| param.example()).unwrap_or_default()).await?);
        self.examples.insert(key, Arc::clone(&made));
        Ok(made)
    }

    async fn render_example(&self, query: &str) -> Result<Image> {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let recipe = Recipe::parse(pairs).map_err(|e| Code::Internal.because(e.to_string()))?;
        let format = recipe.format().unwrap_or(OutputFormat::Jpeg);
        let set = Watermark { digest: "0".repeat(32), asset: None, placement: Placement::Center, scale: 1.0 };
        let (recipe, mark) = super::watermark::settle(recipe.with_format(format), Some(&set))?;
        let sources = self
            .cpu
            .run(move || {
                let mark = mark.map(|_| file_of(MARK)).transpose()?;
                Sources::new(file_of(SCENE)?, mark)
            })
            .await?;
        let order = Order { ceiling: Some(CEILING), ..Order::new(recipe, format) };
        let picture = self.stills.render(Class::Background, sources, order).await?;
        Ok(Image {
            etag: format!("\"{}-{}\"", env!("CARGO_PKG_VERSION"), picture.bytes.len()),
            bytes: picture.bytes,
            content_type: format.mime(),
            extension: format.extension(),
        })
    }
}

/// Bytes as a file, for workers are given files.
fn file_of(bytes: &[u8]) -> Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}
