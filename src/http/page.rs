//! The dashboard at `/`, and the files of all pages: those of `src/dashboard/`, which are in the binary.

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    routing::{MethodRouter, get},
};

use super::AppState;

/// Nothing from elsewhere, nothing inline, and no text that becomes markup.
macro_rules! rules {
    ($forms:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'; form-action ",
            $forms
        )
    };
}

const RULES: &str = rules!("'none'");
/// Those of a page that has a form.
pub(super) const WITH_FORMS: &str = rules!("'self'");

/// A file of the page: its path, its media type, its text.
type File = (&'static str, &'static str, &'static str);

macro_rules! files {
    ($($name:literal $media_type:literal)*) => {
        [$((
            concat!("/dashboard/", $name),
            $media_type,
            include_str!(concat!("../dashboard/", $name)),
        )),*]
    };
}

const PAGE: &str = include_str!("../dashboard/index.html");
const FILES: &[File] = &files! {
    "base.css" "text/css; charset=utf-8"
    "style.css" "text/css; charset=utf-8"
    "streams.css" "text/css; charset=utf-8"
    "icon.svg" "image/svg+xml"
    "app.js" "text/javascript; charset=utf-8"
    "batches.js" "text/javascript; charset=utf-8"
    "chart.js" "text/javascript; charset=utf-8"
    "detail.js" "text/javascript; charset=utf-8"
    "dom.js" "text/javascript; charset=utf-8"
    "facts.js" "text/javascript; charset=utf-8"
    "feed.js" "text/javascript; charset=utf-8"
    "header.js" "text/javascript; charset=utf-8"
    "measures.js" "text/javascript; charset=utf-8"
    "model.js" "text/javascript; charset=utf-8"
    "order.js" "text/javascript; charset=utf-8"
    "patients.js" "text/javascript; charset=utf-8"
    "stream.js" "text/javascript; charset=utf-8"
    "streams.js" "text/javascript; charset=utf-8"
    "trend.js" "text/javascript; charset=utf-8"
    "words.js" "text/javascript; charset=utf-8"
};

pub(super) fn routes() -> Router<AppState> {
    let page = Router::new().route("/", file("text/html; charset=utf-8", PAGE));
    FILES
        .iter()
        .fold(page, |router, (path, media_type, text)| router.route(path, file(media_type, text)))
}

/// A file as an answer. Asked for anew each time: a page never mixes two versions' files for
/// longer than one load.
fn file(media_type: &'static str, text: &'static str) -> MethodRouter<AppState> {
    let mut headers = guarded(media_type, RULES);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    get(move || async move { (headers, text) })
}

/// Headers of what a browser shows.
pub(super) fn guarded(media_type: &'static str, rules: &'static str) -> HeaderMap {
    [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, rules),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ]
    .into_iter()
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
    .collect()
}
