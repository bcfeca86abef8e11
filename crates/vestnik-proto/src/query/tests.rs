use proptest::prelude::*;
use vestnik_core::Secret;
use vestnik_core::sign::{Algorithm, Key};

use super::*;

const PRIVATE: &str = "00112233445566778899aabbccddeeff";
const PUBLIC: &str = "ffeeddccbbaa99887766554433221100";
const SIGNED: &str = "cf29ff07dc09d1c9fb80211d358b1301f601054d";
const SIGNED_PAIR: &str = "c9c1f42ccc4ff9152fcdfc62b8c03cd56bfea155";
const SIGNED_PUBLIC: &str = "d50c2c98ed6f8e8ba0698d91b5a2fdac97fb26b0";
const SIGNED_SHA256: &str = "929e436b38ca60607ef2228809fdb7b09d71c29eb22c7bce63d72ee342639af7";
const SIGNED_MD5: &str = "fb95d1d5aa3c74c48ef9cbc556bc8db0";

fn keys(algorithms: &[Algorithm]) -> KeyRing {
    let secret = || Secret::new("test-signature-key-0123456789abcdef".to_owned());
    KeyRing::new(algorithms.iter().map(|a| Key::new(secret(), *a, None)).collect()).unwrap()
}

/// The receivers of `list`, or `None` when it is malformed or refused.
fn receivers(list: &str, algorithms: &[Algorithm], trust: Trust) -> Option<Vec<Receiver>> {
    let list = ChannelList::parse(list, 100).ok()?;
    let authorised = list.authorise(&keys(algorithms), trust, 0).ok()?;
    Some(authorised.receivers)
}

fn check(list: &str, algorithms: &[Algorithm], client: bool, backend: bool) {
    for (trust, accepted) in [(Trust::Client, client), (Trust::Backend, backend)] {
        let got = receivers(list, algorithms, trust).is_some();
        assert_eq!(got, accepted, "{list} by {trust:?} with {algorithms:?}");
    }
}

const SHA1: &[Algorithm] = &[Algorithm::Sha1];

#[test]
fn q_001_a_signed_id_subscribes() {
    check(&format!("{PRIVATE}.{SIGNED}"), SHA1, true, true);
}

#[test]
fn q_002_a_signed_pair_subscribes_to_both_channels_and_names_the_author() {
    let list = ChannelList::parse(&format!("{PRIVATE}:{PUBLIC}.{SIGNED_PAIR}"), 100).unwrap();
    let authorised = list.authorise(&keys(SHA1), Trust::Client, 0).unwrap();
    let [private, public] = [PRIVATE, PUBLIC].map(|id| id.parse().unwrap());
    assert_eq!(authorised.receivers, [Receiver::Private(private), Receiver::Public(public)]);
    assert_eq!(authorised.pairs, [Pair { private, public }]);
    assert_eq!(authorised.author(), Some(public));
}

#[test]
fn q_003_an_unsigned_id_is_for_the_back_end_only() {
    check(PRIVATE, SHA1, false, true);
}

#[test]
fn q_004_q_049_an_unsigned_pair_is_refused_to_everybody() {
    check(&format!("{PRIVATE}:{PUBLIC}"), SHA1, false, false);
}

#[test]
fn q_005_a_wrong_signature_is_refused_and_of_a_lone_id_the_back_end_need_not_have_it_right() {
    check(&format!("{PRIVATE}.{SIGNED_PAIR}"), SHA1, false, true);
    check(&format!("{PRIVATE}:{PUBLIC}.{SIGNED}"), SHA1, false, false);
}

#[test]
fn q_006_a_signature_in_upper_case_is_refused() {
    check(&format!("{PRIVATE}.{}", SIGNED.to_uppercase()), SHA1, false, false);
}

#[test]
fn q_007_an_id_in_upper_case_is_refused() {
    check(&PRIVATE.to_uppercase(), SHA1, false, false);
    check(&PRIVATE.to_uppercase(), &[], false, false);
}

#[test]
fn q_008_one_bad_item_voids_the_list() {
    let good = format!("{PRIVATE}.{SIGNED}");
    check(&format!("{good}/{PRIVATE}x"), SHA1, false, false);
    check(&format!("{good}/{PRIVATE}.{SIGNED_PAIR}"), SHA1, false, true);
    check(&format!("{good}/ {good}"), SHA1, false, false);
}

#[test]
fn q_009_slashes_at_the_ends_and_empty_items_are_refused() {
    let good = format!("{PRIVATE}.{SIGNED}");
    let bad = [format!("/{good}"), format!("{good}/"), format!("{good}//{good}"), String::new()];
    for list in bad {
        check(&list, SHA1, false, false);
    }
}

#[test]
fn q_010_k_003_encoded_separators_equal_raw_ones() {
    let raw = format!("CHANNEL_ID={PRIVATE}:{PUBLIC}.{SIGNED_PAIR}/{PRIVATE}.{SIGNED}");
    let encoded = raw.replace('/', "%2F").replace(':', "%3a");
    assert_eq!(Query::parse(&encoded).channel_id(), Query::parse(&raw).channel_id());
    let list = Query::parse(&encoded).channel_id().unwrap().unwrap().to_owned();
    assert_eq!(receivers(&list, SHA1, Trust::Client).map(|all| all.len()), Some(2));
}

#[test]
fn q_011_without_a_key_an_unsigned_id_subscribes() {
    check(PRIVATE, &[], true, true);
}

#[test]
fn q_012_without_a_key_any_40_digits_do_as_a_signature_and_39_do_not() {
    check(&format!("{PRIVATE}.{}", "0".repeat(40)), &[], true, true);
    for length in [32, 38, 39, 41, 64] {
        check(&format!("{PRIVATE}.{}", "0".repeat(length)), &[], false, false);
    }
}

#[test]
fn q_013_without_a_key_a_pair_is_refused_signed_or_not() {
    check(&format!("{PRIVATE}:{PUBLIC}"), &[], false, false);
    check(&format!("{PRIVATE}:{PUBLIC}.{SIGNED_PAIR}"), &[], false, false);
}

#[test]
fn q_014_with_sha256_only_its_signatures_fit() {
    let sha256 = &[Algorithm::Sha256];
    check(&format!("{PRIVATE}.{SIGNED_SHA256}"), sha256, true, true);
    check(&format!("{PRIVATE}.{SIGNED}"), sha256, false, false);
    check(&format!("{PRIVATE}.{}", "0".repeat(64)), sha256, false, true);
}

#[test]
fn q_015_with_md5_signatures_have_32_digits() {
    check(&format!("{PRIVATE}.{SIGNED_MD5}"), &[Algorithm::Md5], true, true);
    check(&format!("{PRIVATE}.{SIGNED}"), &[Algorithm::Md5], false, false);
}

#[test]
fn several_keys_each_verify_signatures_of_their_length() {
    let both = &[Algorithm::Sha256, Algorithm::Sha1];
    check(&format!("{PRIVATE}.{SIGNED}/{PRIVATE}.{SIGNED_SHA256}"), both, true, true);
    check(&format!("{PRIVATE}.{SIGNED_MD5}"), both, false, false);
}

#[test]
fn q_016_a_public_id_with_its_receiver_signature_cannot_subscribe() {
    check(&format!("{PUBLIC}.{SIGNED_PUBLIC}"), SHA1, false, true);
}

#[test]
fn q_017_names_are_case_sensitive() {
    let query = Query::parse("channel_id=a&BinaryMode=true&MID=1");
    assert!(query.channel_id().is_none() && !query.binary_mode());
}

#[test]
fn q_048_q_050_a_publish_keeps_repeats_takes_pairs_and_any_number_of_items() {
    let pair = format!("{PRIVATE}:{PUBLIC}.{SIGNED_PAIR}");
    let list = ChannelList::parse(&vec![pair.as_str(); 150].join("/"), usize::MAX).unwrap();
    let [publish, subscribe] = [Trust::Backend, Trust::Client]
        .map(|trust| list.authorise(&keys(SHA1), trust, 0).unwrap().receivers.len());
    assert_eq!((publish, subscribe), (300, 2), "a subscription needs no repeats");
}

#[test]
fn q_080_a_list_over_the_limit_says_so() {
    let list = vec![PRIVATE; 101].join("/");
    let too_many = InvalidChannelList::TooManyItems { limit: 100 };
    assert_eq!(ChannelList::parse(&list, 100), Err(too_many));
    assert!(ChannelList::parse(&list[33..], 100).is_ok());
}

#[test]
fn a_list_is_bare_only_without_any_signature_or_pair() {
    let bare = |list: &str| ChannelList::parse(list, 100).unwrap().is_bare();
    assert!(bare(&format!("{PRIVATE}/{PUBLIC}")));
    assert!(!bare(&format!("{PRIVATE}/{PUBLIC}.{SIGNED}")));
    assert!(!bare(&format!("{PRIVATE}:{PUBLIC}")));
}

#[test]
fn q_171_w_001_a_repeated_channel_list_is_an_error_and_of_other_names_the_first_counts() {
    let query = Query::parse("CHANNEL_ID=a&CHANNEL_ID=a&binaryMode=true&binaryMode=false");
    assert_eq!(query.channel_id(), Some(Err(RepeatedChannelId)));
    assert!(query.binary_mode());
    let thrice = Query::parse("CHANNEL_ID=a&CHANNEL%5FID=b&CHANNEL_ID=c");
    assert_eq!(thrice.channel_id(), Some(Err(RepeatedChannelId)));
}

#[test]
fn q_045_q_066_binary_mode_is_exactly_true_and_extra_names_are_ignored() {
    for (query, binary) in [
        ("binaryMode=true&hostname=site", true),
        ("hostname=a%zz&&=&binaryMode=true", true),
        ("binaryMode=1", false),
        ("binaryMode=TRUE", false),
        ("binaryMode", false),
        ("", false),
    ] {
        assert_eq!(Query::parse(query).binary_mode(), binary, "{query}");
    }
}

#[test]
fn q_094_a_position_that_is_not_26_digits_is_absent() {
    let mid = |value: &str| Query::parse(&format!("mid={value}")).mid();
    assert!(mid("17954873200000000000003340").is_some());
    for bad in ["1795487320000000000000334", "1795487320000000000000334x", "1:1", ""] {
        assert_eq!(mid(bad), None, "{bad}");
    }
}

#[test]
fn k_001_k_008_parameters_come_in_any_order_with_unknown_extras() {
    let raw = "user_id=1&revision=19&mid=17000000000000000000000002&CHANNEL_ID=a+b&rnd=1&V=4";
    let query = Query::parse(raw);
    assert_eq!(query.channel_id(), Some(Ok("a b")), "`+` is a space");
    assert!(query.has_revision() && query.mid().is_some());
    assert!(!Query::parse("CHANNEL_ID=a").has_revision(), "a mobile client");
}

#[test]
fn k_016_the_framing_is_chosen_in_a_fixed_order() {
    for (query, framing) in [
        ("", Framing::Text),
        ("format=json", Framing::Json),
        ("format=xml", Framing::Text),
        ("format=json&binaryMode=true", Framing::Protobuf),
        ("format=json&binaryMode=true&jsonRpc=true", Framing::JsonRpc),
        ("token=x", Framing::Text),
    ] {
        assert_eq!(Query::parse(query).framing(), framing, "{query}");
    }
}

fn check_expiry(cases: &[(&str, u32)]) {
    for (header, seconds) in cases {
        assert_eq!(parse_expiry(header, Expiry::MAX).seconds(), *seconds, "{header:?}");
    }
}

#[test]
fn q_040_q_041_an_expiry_not_above_zero_is_volatile() {
    check_expiry(&[("60", 60), (" 60", 60), ("+60", 60), ("0", 0), ("-5", 0), ("-0", 0)]);
    check_expiry(&[("abc", 0), ("", 0), ("+", 0), ("--5", 0), ("+-5", 0), ("1e3", 1)]);
}

#[test]
fn q_042_an_expiry_is_read_as_far_as_its_digits_go() {
    check_expiry(&[("12x", 12), ("1.9", 1), ("0x10", 16), ("0x", 0), ("٣", 0)]);
}

#[test]
fn q_043_an_expiry_above_the_cap_is_the_cap() {
    check_expiry(&[("99999999999", 86_400), ("99999999999999999999999999", 86_400)]);
    assert_eq!(parse_expiry("60", Expiry::new(7, Expiry::MAX)).seconds(), 7);
}

#[test]
fn q_193_w_024_a_masked_target_shows_no_whole_id_signature_token_or_secret() {
    for (target, expected) in [
        (
            format!("/bitrix/subws/?CHANNEL_ID={PRIVATE}:{PUBLIC}.{SIGNED_PAIR}&binaryMode=true"),
            "/bitrix/subws/?CHANNEL_ID=0011…:ffee….c9c1…&binaryMode=true",
        ),
        (
            format!("/sub/?CHANNEL_ID={PRIVATE}%3A{PUBLIC}%2f&mid=17954873200000000000003340"),
            "/sub/?CHANNEL_ID=0011…%3Affee…%2f&mid=17954873200000000000003340",
        ),
        (format!("/sub/?channel_id={PRIVATE}"), "/sub/?channel_id=0011…"),
        ("/sub/?token=eyJhbGciOi.eyJ.sig&a".to_owned(), "/sub/?token=eyJh…&a"),
        (format!("/api/?hostId=1&signature={SIGNED}"), "/api/?hostId=1&signature=cf29…"),
        ("/bitrix/pub/s3cret/?hostname=a.b".to_owned(), "/bitrix/pub/…/?hostname=a.b"),
        (format!("/{PRIVATE}/x?{PRIVATE}"), "/0011…/x?0011…"),
        ("/sub/?a=\r\nfake".to_owned(), "/sub/?a=\u{fffd}\u{fffd}fa…"),
    ] {
        assert_eq!(masked(&target), expected);
    }
    assert!(masked(&"/?&".repeat(10_000)).len() <= MASKED_MAX + 8);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text: String) {
        let query = Query::parse(&text);
        let _ = format!("{query:?}");
        if let Some(Ok(list)) = query.channel_id() {
            let _ = ChannelList::parse(list, 3);
        }
        let _ = ChannelList::parse(&text, 3);
        let _ = masked(&text);
        prop_assert!(parse_expiry(&text, Expiry::MAX) <= Expiry::MAX);
    }

    #[test]
    fn odd_percent_signs_never_panic(text in "[%a-f0-9+&=/:.]{0,60}") {
        let _ = Query::parse(&text);
        let _ = masked(&text);
    }

    #[test]
    fn a_printed_list_is_read_back(
        items in prop::collection::vec(
            (any::<[u8; 16]>(), any::<Option<[u8; 16]>>(), prop::option::of(prop::collection::vec(any::<u8>(), 1..=64))),
            1..8,
        )
    ) {
        let items: Vec<ChannelItem> = items
            .into_iter()
            .map(|(private, public, signature)| ChannelItem {
                private: ChannelId::from_bytes(private),
                public: public.map(ChannelId::from_bytes),
                signature: signature.and_then(|raw| Signature::from_bytes(&raw)),
            })
            .collect();
        let printed: Vec<String> = items
            .iter()
            .map(|item| {
                let public = item.public.map(|id| format!(":{id}")).unwrap_or_default();
                let signature =
                    item.signature.as_ref().map(|s| format!(".{s}")).unwrap_or_default();
                format!("{}{public}{signature}", item.private)
            })
            .collect();
        let list = ChannelList::parse(&printed.join("/"), 8);
        prop_assert_eq!(list, Ok(ChannelList(items)));
    }

    #[test]
    fn a_percent_encoded_value_is_read_back(value: String) {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let query = format!("a=b&CHANNEL_ID={encoded}");
        let query = Query::parse(&query);
        prop_assert_eq!(query.channel_id(), Some(Ok(value.as_str())));
    }
}

#[test]
fn k_004_raw_spaces_in_a_target_are_escaped() {
    let escaped = |head: &str| {
        let mut head = head.as_bytes().to_vec();
        escape_target(&mut head);
        String::from_utf8(head).unwrap()
    };
    assert_eq!(
        escaped("GET /sub/?time=Thu, 01 Jan&x=1 HTTP/1.1\r\nHost: a b\r\n\r\n"),
        "GET /sub/?time=Thu,%2001%20Jan&x=1 HTTP/1.1\r\nHost: a b\r\n\r\n",
    );
    for same in ["GET / HTTP/1.1\r\n\r\n", "GET /a b", "GET", "", "\r\n", "GET  HTTP/1.1\n\n"] {
        assert_eq!(escaped(same), same);
    }
    // A line with nothing between its method and its version.
    assert_eq!(escaped("GET HTTP/1.1\r\n\r\n"), "GET HTTP/1.1\r\n\r\n");
}
