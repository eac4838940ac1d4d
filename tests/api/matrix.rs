//! Every route for every kind of caller, against a table that is written by hand.
//!
//! The routes come from `/openapi.json`; one that the table does not know fails the test with
//! the line to add, filled in with what was answered: read it before you believe it.

#![expect(clippy::unwrap_used, reason = "the steps that the test repeats fail by panicking, too")]

use std::collections::BTreeSet;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;

use crate::harness::Appliance;

/// What callers are answered, a sign for each of [`CALLERS`]: `+` let in, `?` 401, `x` 403.
type Answers = &'static str;

/// Nobody, a wrong key, then the four roles, then an upload key and nothing else, and an
/// administrator's token with all scopes.
const CALLERS: [&str; 8] = ["nobody", "wrong key", "USER", "CREATOR", "MANAGER", "ADMIN", "upload key", "token"];

const SCOPES: &str = "assets,assets_publish,assets_delete,collections,collections_publish,collections_delete";

const OPEN: Answers = "+?++++++";
/// Whoever may read, also with a token.
const READ: Answers = "??++++?+";
/// Whoever is known by more than a token.
const KNOWN: Answers = "??++++?x";
const MAKE: Answers = "??x+++?x";
const MAKE_OR_HAND_IN: Answers = "??x++++x";
const DELETE: Answers = "??xx++?x";
const ADMIN: Answers = "??xxx+?x";
/// With a role, or with an upload key: what it came in by is asked once the body was understood.
const DESCRIBE: Answers = "??x++++x";
/// For administrators, and what is asked about here is the one that nobody may change.
const NOBODY: Answers = "??xxxx?x";
/// Scopes: whoever may not is told 401, as Prepr's contract has it.
const SCOPE_READ: Answers = "??++++?+";
const SCOPE_PUBLISH: Answers = "???+++?+";
const SCOPE_DELETE: Answers = "????++?+";
/// Upload keys alone; the table of roles gives nobody this.
const UPLOAD_KEY: Answers = "??xxxx+x";

#[rustfmt::skip]
const TABLE: &[(&str, Answers)] = &[
    // One's own account
    ("GET /api/v1/login", OPEN),
    ("POST /api/v1/login", OPEN),
    // A key is no token that could be valid.
    ("GET /api/v1/auth/validate", "???????+"),
    ("POST /api/v1/auth/validate", "???????+"),
    ("GET /api/v1/user", KNOWN),
    ("PATCH /api/v1/user", KNOWN),
    ("PUT /api/v1/user", KNOWN),
    ("POST /api/v1/user/logout", KNOWN),
    ("GET /api/v1/user/keys", KNOWN),
    ("POST /api/v1/user/keys", KNOWN),
    ("DELETE /api/v1/user/keys/{key_id}", KNOWN),
    ("GET /api/v1/user/second_factor", KNOWN),
    ("POST /api/v1/user/second_factor", KNOWN),
    ("POST /api/v1/user/second_factor/confirm", KNOWN),
    ("POST /api/v1/user/second_factor/disable", KNOWN),
    ("POST /api/v1/user/invitation", OPEN),
    ("POST /api/v1/user/invitation/accept", OPEN),
    // Users and settings
    ("GET /api/v1/users", ADMIN),
    ("POST /api/v1/users", ADMIN),
    ("POST /api/v1/users/search", ADMIN),
    ("GET /api/v1/users/{user_id}", ADMIN),
    ("PATCH /api/v1/users/{user_id}", ADMIN),
    ("PUT /api/v1/users/{user_id}", ADMIN),
    ("DELETE /api/v1/users/{user_id}", ADMIN),
    ("POST /api/v1/users/{user_id}/invitation", ADMIN),
    ("POST /api/v1/users/{user_id}/logout", ADMIN),
    ("DELETE /api/v1/users/{user_id}/second_factor", ADMIN),
    ("GET /api/v1/users/{user_id}/keys", ADMIN),
    ("POST /api/v1/users/{user_id}/keys", ADMIN),
    ("DELETE /api/v1/users/{user_id}/keys/{key_id}", ADMIN),
    ("GET /api/v1/groups", READ),
    ("GET /api/v1/groups/{group_id}", READ),
    ("GET /api/v1/user/settings", ADMIN),
    ("PATCH /api/v1/user/settings/update", ADMIN),
    ("POST /api/v1/user/settings/update", ADMIN),
    ("GET /api/v1/limits", READ),
    // Handing in
    ("POST /api/v1/assets/new/content/original/upload", MAKE),
    ("POST /api/v1/assets/new/content/original/external", MAKE),
    ("GET /api/v1/assets/new/content_storage_url", MAKE),
    ("POST /api/v1/assets/new/register_asset", MAKE),
    // The form is signed, so who sends it need not be known
    ("POST /api/v1/storage", OPEN),
    ("POST /api/v1/upload", UPLOAD_KEY),
    ("OPTIONS /files", OPEN),
    ("OPTIONS /files/{id}", OPEN),
    ("POST /files", MAKE_OR_HAND_IN),
    ("GET /files/{id}", MAKE_OR_HAND_IN),
    ("PATCH /files/{id}", MAKE_OR_HAND_IN),
    ("DELETE /files/{id}", MAKE_OR_HAND_IN),
    ("POST /api/v1/assets/{id}/content/original/replace", MAKE),
    ("POST /api/v1/assets/{id}/content/{key}", MAKE),
    ("POST /api/v1/assets/{id}/data/update", DESCRIBE),
    // What an asset's life holds
    ("POST /api/v1/assets/{id}/archive", DELETE),
    ("POST /api/v1/assets/{id}/unarchive", DELETE),
    ("DELETE /api/v1/assets/{id}/content/{key}", DELETE),
    ("POST /api/v1/assets/bulk/delete", DELETE),
    ("POST /api/v1/assets/bulk/process", MAKE),
    ("GET /api/v1/assets/{id}/download", OPEN),
    ("DELETE /api/v1/assets/{id}", DELETE),
    ("POST /api/v1/assets/{id}/delete", DELETE),
    ("POST /api/v1/assets/{id}/undelete", DELETE),
    ("DELETE /api/v1/assets/{id}/content", DELETE),
    ("POST /api/v1/assets/{id}/content/delete", DELETE),
    ("POST /api/v1/assets/{id}/content/undelete", DELETE),
    ("POST /api/v1/assets/purge", ADMIN),
    ("GET /api/v1/assets/purge/count", ADMIN),
    ("POST /api/v1/assets/bulk/purge", ADMIN),
    ("GET /api/v1/assets/bulk/purge/count", ADMIN),
    // Finding
    ("POST /api/v1/search", READ),
    ("GET /api/v1/search/{search_result_id}/{page}", READ),
    ("GET /api/v1/assetschemas", READ),
    ("POST /api/v1/assetschemas", ADMIN),
    ("GET /api/v1/assetschemas/{schema_id}", READ),
    ("PATCH /api/v1/assetschemas/{schema_id}", ADMIN),
    ("PUT /api/v1/assetschemas/{schema_id}", ADMIN),
    ("DELETE /api/v1/assetschemas/{schema_id}", NOBODY),
    ("GET /api/v1/json-schema/Asset.CustomMetadata.v1.schema.json", OPEN),
    // A collection belongs to who made it, which is weighed collection by collection; tokens only read
    ("POST /api/v1/assetcollection", KNOWN),
    ("GET /api/v1/assetcollection/{collection_id}", READ),
    ("PATCH /api/v1/assetcollection/{collection_id}", KNOWN),
    ("PUT /api/v1/assetcollection/{collection_id}", KNOWN),
    ("DELETE /api/v1/assetcollection/{collection_id}", KNOWN),
    ("POST /api/v1/assetcollection/{collection_id}/assets", KNOWN),
    ("DELETE /api/v1/assetcollection/{collection_id}/assets", KNOWN),
    ("POST /api/v1/assetcollections", READ),
    ("GET /api/v1/assetcollection/{collection_id}/download", READ),
    // News
    ("GET /api/v1/feed", READ),
    ("GET /api/v1/changes", READ),
    ("GET /api/v1/callbacks", ADMIN),
    ("GET /api/v1/callbacks/{callback_id}", ADMIN),
    ("POST /api/v1/callbacks/{callback_id}/redeliver", ADMIN),
    ("POST /api/v1/callbacks/test", ADMIN),
    ("POST /api/v1/callbacks/reissue", ADMIN),
    ("GET /api/v1/callbacks/secret", ADMIN),
    ("POST /api/v1/callbacks/secret", ADMIN),
    // Assets
    ("GET /api/v1/assets", READ),
    ("GET /api/v1/assets/{id}/data", READ),
    ("POST /api/v1/assets/{id}/process", MAKE),
    ("GET /api/v1/jobs", READ),
    ("GET /api/v1/jobs/{job_id}", READ),
    ("POST /api/v1/jobs/{job_id}/cancel", MAKE),
    // Links: what they lead to is weighed asset by asset, so everybody is let in but tokens, which they would outlive
    ("GET /api/v1/assets/{id}/get_link", KNOWN),
    ("POST /api/v1/assets/get_link", KNOWN),
    ("POST /api/v1/assets/{id}/content/set_public_access", MAKE),
    ("POST /api/v1/assets/{id}/content/remove_public_access", MAKE),
    ("GET /api/v1/assets/{id}/content/{key}", OPEN),
    ("GET /api/v1/assets/{id}/content/{key}/download", OPEN),
    ("GET /api/v1/assets/{id}/conversions", OPEN),
    ("GET /api/v1/assets/{id}/conversions/{key}", OPEN),
    ("GET /api/v1/assets/{id}/conversions/deepzoom/deepzoom.dzi", OPEN),
    ("GET /api/v1/assets/{id}/conversions/deepzoom/deepzoom.xml", OPEN),
    ("GET /api/v1/assets/{id}/conversions/deepzoom/deepzoom_files/{level}/{tile}", OPEN),
    ("GET /api/v1/conversion/{id}", OPEN),
    ("GET /api/v1/assets/{id}/transcodes/playlist.m3u8", OPEN),
    ("GET /api/v1/assets/{id}/transcodes/{key}.mp4", OPEN),
    ("GET /api/v1/assets/{id}/transcodes/{key}.m4a", OPEN),
    ("GET /api/v1/assets/{id}/transcodes/{variant}/{file}", OPEN),
    ("GET /api/v1/assets/{id}/storyboard/{file}", OPEN),
    ("GET /api/v1/video/{id}/playlist.m3u8", OPEN),
    ("GET /api/v1/video/{id}/{key}.mp4", OPEN),
    ("GET /api/v1/video/{id}/{variant}/{file}", OPEN),
    ("GET /api/v1/storyboard/{id}/{file}", OPEN),
    // Prepr
    ("GET /assets", SCOPE_READ),
    ("POST /assets", SCOPE_PUBLISH),
    ("GET /assets/{id}", SCOPE_READ),
    ("PUT /assets/{id}", SCOPE_PUBLISH),
    ("DELETE /assets/{id}", SCOPE_DELETE),
    ("POST /assets/{id}/multipart", SCOPE_PUBLISH),
    ("GET /collections", SCOPE_READ),
    ("POST /collections", SCOPE_PUBLISH),
    ("GET /collections/{id}", SCOPE_READ),
    ("PUT /collections/{id}", SCOPE_PUBLISH),
    ("DELETE /collections/{id}", SCOPE_DELETE),
    ("POST /collections/{id}/assets", SCOPE_PUBLISH),
    ("DELETE /collections/{id}/assets", SCOPE_PUBLISH),
    ("POST /collections/{id}/cover", SCOPE_PUBLISH),
    ("GET /cdn/{file}", OPEN),
    ("GET /cdn//{file}", OPEN),
    ("GET /cdn/{format}/{file}", OPEN),
];

#[test]
fn every_route_answers_every_caller_as_the_table_says() {
    let app = Appliance::start();
    let keys_of = |role: &str| {
        let email = format!("a.{}@example.com", role.to_lowercase());
        let made = app.cli(&["user", "add", &email, "--role", &role.to_lowercase()]);
        let said = String::from_utf8(made.stdout).unwrap();
        let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (value("API key: "), value("upload key: "))
    };
    let [user, creator, manager, admin] = ["USER", "CREATOR", "MANAGER", "ADMIN"].map(keys_of);
    let made = app.cli(&["key", "token", "a.admin@example.com", "--name", "t", "--scopes", SCOPES]);
    let made = String::from_utf8(made.stdout).unwrap();
    let token = format!("Bearer {}", made.lines().find_map(|line| line.strip_prefix("token: ")).unwrap());
    let headers: [Option<(&str, &str)>; 8] = [
        None,
        Some(("X-FileSpin-Api-Key", "00000000000000000000000000000000")),
        Some(("X-FileSpin-Api-Key", &user.0)),
        Some(("X-FileSpin-Api-Key", &creator.0)),
        Some(("X-FileSpin-Api-Key", &manager.0)),
        Some(("X-FileSpin-Api-Key", &admin.0)),
        Some(("X-FileSpin-Upload-Key", &creator.1)),
        Some(("Authorization", &token)),
    ];
    let sign = |status: u16| match status {
        401 => '?',
        403 => 'x',
        _ => '+',
    };
    let document = app.get("/openapi.json").json();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for (pattern, methods) in document["paths"].as_object().unwrap() {
        // Ids of nothing, so that being let in harms nobody.
        let path = filled(pattern);
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let mut answered = String::new();
            for (who, header) in CALLERS.iter().zip(headers) {
                let status = status(&app, &method, &path, header);
                assert!(status < 500 || status == 503, "{method} {path} as {who}: {status}");
                answered.push(sign(status));
            }
            // A HEAD is let in like its GET.
            let row = format!("{} {pattern}", if method == "HEAD" { "GET" } else { &*method });
            match TABLE.iter().find(|(known, _)| *known == row) {
                None => complaints.push(format!("unknown: (\"{row}\", \"{answered}\"),")),
                Some((_, expected)) if *expected != answered => {
                    complaints.push(format!("{method} {pattern}: \"{answered}\" instead of \"{expected}\""));
                }
                Some(_) => {}
            }
            seen.insert(row);
        }
    }
    let gone = TABLE.iter().filter(|(row, _)| !seen.contains(*row)).map(|(row, _)| format!("not there: {row}"));
    complaints.extend(gone);
    assert!(complaints.is_empty(), "callers are {CALLERS:?}\n{}", complaints.join("\n"));
}

/// The first line of an answer is enough: the live feed has no last one.
fn status(app: &Appliance, method: &str, path: &str, header: Option<(&str, &str)>) -> u16 {
    let mut stream = app.connect();
    let header = header.map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: box\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.split(' ').nth(1).unwrap().parse().unwrap()
}

/// A path with other things for `{…}`.
fn filled(pattern: &str) -> String {
    let mut parts = pattern.split('{');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        path += match name {
            "id" => "00000000000000000000000000000000",
            "key" => "original",
            _ => "0",
        };
        path += rest;
    }
    path
}
