//! Styles, scripts and pictures: inside the binary, so that pages work without the internet.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Response, StatusCode};
use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key};

use crate::answer::Answer;

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($name:literal $kind:expr, $path:literal;)*) => {
        const FILES: &[(&str, &str, &str)] =
            &[$(($name, $kind, include_str!(concat!("../../../../web/", $path))),)*];
    };
}

files! {
    "style.css" CSS, "style.css";
    "page.js" JS, "page.js";
    "dashboard.js" JS, "dashboard.js";
    "settings.js" JS, "settings.js";
    "icon.svg" SVG, "icon.svg";
    "uplot.js" JS, "vendor/uPlot.esm.js";
    "uplot.css" CSS, "vendor/uPlot.min.css";
    "uplot-licence.txt" TEXT, "vendor/uPlot-LICENSE.txt";
}

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
    /// Changes with the content.
    mark: String,
}

/// All of them.
pub(super) struct Assets(Vec<Asset>);

impl Assets {
    pub(super) fn new() -> Self {
        let digest = Key::new(Secret::new("vestnik asset".to_owned()), Algorithm::Sha256, None);
        let assets = FILES.iter().map(|&(name, kind, body)| {
            let mark = digest.sign(&[body.as_bytes()]).to_string().chars().take(16).collect();
            Asset { name, kind, body, mark }
        });
        Self(assets.collect())
    }

    /// The address of an asset: with its mark, so that browsers may keep it for ever.
    pub(super) fn address(&self, name: &str) -> String {
        let mark = self.0.iter().find(|it| it.name == name).map_or("", |it| &it.mark);
        format!("/admin/assets/{name}?v={mark}")
    }

    /// The answer to a request for `name`.
    pub(super) fn answer(&self, name: &str, query: &str, headers: &HeaderMap) -> Option<Answer> {
        let asset = self.0.iter().find(|it| it.name == name)?;
        let tag = format!("\"{}\"", asset.mark);
        let is_known = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .any(|it| it.to_str().is_ok_and(|it| it.split(',').any(|it| it.trim() == tag)));
        let body = if is_known { Bytes::new() } else { Bytes::from_static(asset.body.as_bytes()) };
        let mut answer = Response::new(body);
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        // Modules import each other without a mark: those are asked for again each time.
        let is_marked = query.strip_prefix("v=").is_some_and(|mark| mark == asset.mark);
        let kept = if is_marked { "public, max-age=31536000, immutable" } else { "no-cache" };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_kept_by_its_mark_and_not_sent_twice() {
        let assets = Assets::new();
        let address = assets.address("style.css");
        let query = address.split_once('?').unwrap().1;
        let answer = assets.answer("style.css", query, &HeaderMap::new()).unwrap();
        assert!(answer.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, answer.headers()[ETAG].clone());
        let again = assets.answer("style.css", "", &headers).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.body().is_empty());
        assert_eq!(again.headers()[CACHE_CONTROL], "no-cache");
        assert!(assets.answer("../Cargo.toml", "", &HeaderMap::new()).is_none());
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for (name, kind, body) in FILES.iter().filter(|(name, _, _)| !name.starts_with("uplot")) {
            let foreign = body.replace("http://www.w3.org/", "");
            assert!(!foreign.contains("//cdn") && !foreign.contains("url(http"), "{name} {kind}");
        }
    }
}
