//! The one table: which path leads where (README, "Routes of the one port").

/// What a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Long polls and WebSocket connections.
    Subscribe,
    /// Publishing and presence for the back end; trusted.
    Publish,
    /// Publishing by clients.
    ClientPublish,
    /// JSON-RPC of sites of generation 5.
    Api,
    /// Statistics; trusted.
    ServerStat,
    /// Metrics for Prometheus; trusted.
    Metrics,
    /// Whether the process serves.
    Health,
    /// Operations and pages of the module.
    Module,
    /// Proofs for an authority of certificates.
    Challenge,
}

/// The paths of one listener. A request belongs to the longest path that its target starts with,
/// case-sensitive, query included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes(Vec<(Box<str>, Route)>);

impl Routes {
    /// Where an authority of certificates looks for proofs (RFC 8555 §8.3).
    pub const CHALLENGE: (&str, Route) = ("/.well-known/acme-challenge/", Route::Challenge);

    /// Paths with their meaning.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = (String, Route)>) -> Self {
        let mut paths: Vec<_> =
            paths.into_iter().map(|(path, route)| (path.into_boxed_str(), route)).collect();
        paths.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        paths.dedup_by(|a, b| a.0 == b.0);
        Self(paths)
    }

    /// Every path that generations 3 to 5 know, with and without `/bitrix`, and our own.
    #[must_use]
    pub fn standard() -> Self {
        let both = [
            ("/sub/", Route::Subscribe),
            ("/subws/", Route::Subscribe),
            ("/pub/", Route::Publish),
            ("/rest/", Route::ClientPublish),
            ("/pubweb/", Route::ClientPublish),
            ("/api/", Route::Api),
            ("/server-stat/", Route::ServerStat),
        ];
        let own = [
            ("/metrics", Route::Metrics),
            ("/healthz", Route::Health),
            ("/module/", Route::Module),
            ("/admin/", Route::Module),
            // What clients of the PHP module know by heart (module.md §10, §17).
            ("/bitrix/components/bitrix/pull.request/ajax.php", Route::Module),
            ("/bitrix/services/main/ajax.php", Route::Module),
            Self::CHALLENGE,
        ];
        Self::new(
            both.into_iter()
                .flat_map(|(path, route)| {
                    [(path.to_owned(), route), (format!("/bitrix{path}"), route)]
                })
                .chain(own.map(|(path, route)| (path.to_owned(), route))),
        )
    }

    /// The route of a request target, and what follows its path.
    #[must_use]
    pub fn find<'a>(&self, target: &'a str) -> Option<(Route, &'a str)> {
        self.0
            .iter()
            .find_map(|(path, route)| target.strip_prefix(&**path).map(|rest| (*route, rest)))
    }

    /// Whether `path`, without its query, is exactly a path to subscribe at.
    #[must_use]
    pub fn subscribes_at(&self, path: &str) -> bool {
        self.0.iter().any(|(known, route)| *route == Route::Subscribe && **known == *path)
    }

    /// All paths, longest first.
    pub fn paths(&self) -> impl Iterator<Item = (&str, Route)> {
        self.0.iter().map(|(path, route)| (&**path, *route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_019_a_target_belongs_to_the_longest_path_it_starts_with() {
        let routes = Routes::standard();
        for (target, expected) in [
            ("/pub/anything?x=1", Some((Route::Publish, "anything?x=1"))),
            ("/bitrix/pub/", Some((Route::Publish, ""))),
            ("/bitrix/subws/?CHANNEL_ID=1", Some((Route::Subscribe, "?CHANNEL_ID=1"))),
            ("/bitrix/pubweb/", Some((Route::ClientPublish, ""))),
            ("/rest/?x", Some((Route::ClientPublish, "?x"))),
            ("/bitrix/api/?hostId=1", Some((Route::Api, "?hostId=1"))),
            ("/server-stat/", Some((Route::ServerStat, ""))),
        ] {
            assert_eq!(routes.find(target), expected, "{target}");
        }
    }

    #[test]
    fn q_020_near_misses_belong_to_nothing() {
        let routes = Routes::standard();
        for target in ["/pub", "/PUB/", "//pub/", "http://h/pub/", "*", "", "/bitrix//pub/"] {
            assert_eq!(routes.find(target), None, "{target}");
        }
    }

    #[test]
    fn q_102_a_handshake_needs_the_exact_path() {
        let routes = Routes::standard();
        assert!(routes.subscribes_at("/bitrix/subws/"));
        assert!(routes.subscribes_at("/sub/"));
        for path in ["/sub", "/sub/x", "/pub/", "/bitrix/sub//"] {
            assert!(!routes.subscribes_at(path), "{path}");
        }
    }
}
