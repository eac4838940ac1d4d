//! The media worker: decodes what strangers sent, in a sandbox, for the server that started it.

use cloakroom::infra::workers;
use cloakroom::media;
use serde_json::Value;

fn main() {
    workers::serve(|request, sources, output| {
        let reply = match serde_json::from_value(request) {
            Ok(request) => media::answer(request, sources, output),
            // A server of another version: the frame has refused it before this.
            Err(error) => return Value::String(error.to_string()),
        };
        serde_json::to_value(reply).unwrap_or_default()
    })
}
