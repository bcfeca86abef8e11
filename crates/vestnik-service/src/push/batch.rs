//! What a gateway gets in one request: records by platform, mode and application (mobile-push.md §8, §10).

use super::device::{Device, Platform};
use super::record::{Message, record};

/// Bytes of a batch: beyond them another one begins, also where the option sets no limit.
const BYTES_MAX: usize = 4 << 20;

/// What batches are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Making<'a> {
    /// Devices of one platform in one batch; 0: all.
    pub(super) devices_max: usize,
    /// The site, as gateways are told.
    pub(super) host: &'a str,
    pub(super) now_s: u64,
}

/// A place of a device that gets something: one token on one platform.
struct Slot {
    platform: Platform,
    is_sandbox: bool,
    application: String,
    records: Vec<String>,
}

impl Making<'_> {
    /// Batches with every message for each of its devices. `number` gives any number up to 10,000.
    pub(super) fn batches<'a>(
        self,
        sent: impl Iterator<Item = &'a (Message, Vec<Device>)>,
        mut number: impl FnMut() -> u16,
    ) -> Vec<String> {
        let slots = self.slots(sent, &mut number);
        let mut batches: Vec<String> = Vec::new();
        for platform in Platform::ALL {
            let of_platform: Vec<&Slot> =
                slots.iter().filter(|slot| slot.platform == platform).collect();
            if of_platform.is_empty() {
                continue;
            }
            if self.devices_max > 0 {
                for devices in of_platform.chunks(self.devices_max) {
                    batches.push(String::new());
                    self.write(&mut batches, devices);
                }
            } else {
                if batches.is_empty() {
                    batches.push(String::new());
                }
                self.write(&mut batches, &of_platform);
            }
        }
        batches
    }

    fn slots<'a>(
        self,
        sent: impl Iterator<Item = &'a (Message, Vec<Device>)>,
        number: &mut impl FnMut() -> u16,
    ) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        // The same token twice is one device, of one application.
        let mut places = std::collections::HashMap::new();
        for (message, devices) in sent {
            let is_call = message.has("isVoip");
            for device in devices {
                let Some((platform, token)) = device.address(is_call) else { continue };
                let Some(record) = record(message, platform, token, self.now_s, number()) else {
                    continue;
                };
                let place = (platform, token, device.application_id.as_str());
                let place = *places.entry(place).or_insert_with(|| {
                    slots.push(Slot {
                        platform,
                        is_sandbox: device.is_sandbox(),
                        application: device.application(),
                        records: Vec::new(),
                    });
                    slots.len() - 1
                });
                slots[place].records.push(record);
            }
        }
        slots
    }

    /// Adds the records of devices of one platform to the last batch: production first, applications as
    /// they come.
    fn write(self, batches: &mut Vec<String>, slots: &[&Slot]) {
        for is_sandbox in [false, true] {
            let of_mode = || slots.iter().filter(|slot| slot.is_sandbox == is_sandbox);
            let mut applications: Vec<&str> = Vec::new();
            for slot in of_mode() {
                if !applications.contains(&slot.application.as_str()) {
                    applications.push(&slot.application);
                }
            }
            for application in applications {
                let mut is_open = false;
                for slot in of_mode().filter(|slot| slot.application == application) {
                    for record in &slot.records {
                        let is_full = batches.last().is_some_and(|it| {
                            !it.is_empty() && it.len() + record.len() > BYTES_MAX
                        });
                        if is_full {
                            batches.push(String::new());
                            is_open = false;
                        }
                        let Some(batch) = batches.last_mut() else { return };
                        if !is_open {
                            let modifier = slot.platform.modifier(is_sandbox);
                            batch.push_str(&format!(";{modifier};tkey={application}"));
                            if !self.host.is_empty() {
                                batch.push_str(&format!(";h={}", self.host));
                            }
                            is_open = true;
                        }
                        batch.push(';');
                        batch.push_str(record);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKING: Making<'_> =
        Making { devices_max: 2, host: "portal.example.com", now_s: 1_800_000_000 };

    /// Each message with the devices of its user.
    fn sent(messages: &[(i64, Message)], devices: &[Device]) -> Vec<(Message, Vec<Device>)> {
        let of = |user| devices.iter().filter(move |device| device.user == user).cloned();
        messages.iter().map(|(user, message)| (message.clone(), of(*user).collect())).collect()
    }

    fn batches(making: Making<'_>, messages: &[(i64, Message)], devices: &[Device]) -> Vec<String> {
        making.batches(sent(messages, devices).iter(), || 1)
    }

    fn device(user: i64, kind: &str, application: &str, token: &str) -> Device {
        Device {
            user,
            kind: kind.into(),
            application_id: application.into(),
            token: token.into(),
            voip_kind: String::new(),
            voip_token: String::new(),
        }
    }

    fn message(badge: i64) -> Message {
        Message { text: "Hi".into(), badge: Some(badge), target: "t".into(), ..Message::default() }
    }

    /// The sections of a batch with the numbers of their records.
    fn sections(batch: &str) -> Vec<(String, usize)> {
        let mut sections: Vec<(String, usize)> = Vec::new();
        let mut modifier = "";
        for part in batch.strip_prefix(';').expect("it begins so").split(';') {
            if part.len() <= 2 {
                modifier = part;
            } else if let Some(application) = part.strip_prefix("tkey=") {
                sections.push((format!("{modifier} {application}"), 0));
            } else if let Some(host) = part.strip_prefix("h=") {
                assert_eq!(host, MAKING.host);
            } else {
                sections.last_mut().expect("a section").1 += 1;
            }
        }
        sections
    }

    fn named(sections: &[(&str, usize)]) -> Vec<(String, usize)> {
        sections.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn m_091_a_batch_has_so_many_devices_of_one_platform() {
        let devices: Vec<_> = (0..5)
            .map(|at| device(7, "GOOGLE/REV2", "Bitrix24", &format!("F{at}")))
            .chain([device(7, "HUAWEI", "Bitrix24", "H1")])
            .collect();
        let made = batches(MAKING, &[(7, message(1)), (7, message(2))], &devices);
        let counts: Vec<_> = made.iter().map(|batch| sections(batch)).collect();
        assert_eq!(
            counts,
            [
                // Two messages for each of two devices.
                named(&[("7 Bitrix24", 4)]),
                named(&[("7 Bitrix24", 4)]),
                named(&[("7 Bitrix24", 2)]),
                named(&[("6 Bitrix24", 2)]),
            ]
        );
    }

    #[test]
    fn m_091_without_a_limit_there_is_one_batch_for_everything() {
        let apple = "ab".repeat(32);
        let devices = [
            device(7, "HUAWEI", "Bitrix24", "H1"),
            device(7, "APPLE", "my.app_bxdev", &apple.replace('a', "c")),
            device(7, "APPLE", "my.app", &apple.replace('a', "d")),
            device(8, "APPLE", "Bitrix24", &apple),
            device(9, "GOOGLE", "Bitrix24", "nobody asked"),
            device(7, "WINDOWS", "Bitrix24", "unknown"),
        ];
        let all = Making { devices_max: 0, ..MAKING };
        let made = batches(all, &[(7, message(1)), (8, message(2))], &devices);
        let [batch] = &made[..] else { panic!("{made:?}") };
        let found = sections(batch);
        assert_eq!(
            found,
            named(&[("2 my.app", 1), ("2 Bitrix24", 1), ("1 my.app", 1), ("6 Bitrix24", 1)])
        );
        assert_eq!(batches(all, &[(5, message(1))], &devices), Vec::<String>::new());
    }

    #[test]
    fn m_091_calls_go_to_the_token_for_calls_and_nothing_takes_anothers_place() {
        let call = Message {
            advanced: vec![("isVoip".into(), crate::php::Value::Bool(true))],
            ..message(1)
        };
        let mut phone = device(7, "APPLE", "Bitrix24", &"ab".repeat(32));
        let messages = [(7, call), (7, message(2))];
        let all = Making { devices_max: 0, ..MAKING };
        let one = batches(all, &messages, std::slice::from_ref(&phone));
        assert_eq!(sections(&one[0]), named(&[("2 Bitrix24", 2)]), "without a token of its own");
        phone.voip_kind = "APPLE/VOIP".into();
        phone.voip_token = "cd".repeat(32);
        let two = batches(all, &messages, &[phone]);
        assert_eq!(sections(&two[0]), named(&[("2 Bitrix24", 1), ("5 Bitrix24", 1)]));
    }

    #[test]
    fn a_batch_never_grows_beyond_what_a_request_may_have() {
        let devices: Vec<_> =
            (0..3000).map(|at| device(7, "HUAWEI", "Bitrix24", &format!("H{at}"))).collect();
        let long = Message { text: "x".repeat(3000), ..message(1) };
        let all = Making { devices_max: 0, ..MAKING };
        let made = batches(all, &[(7, long)], &devices);
        assert!(made.len() > 2);
        assert!(made.iter().all(|batch| batch.len() < BYTES_MAX + 100));
        let count: usize = made.iter().map(|batch| sections(batch)[0].1).sum();
        assert_eq!(count, 3000);
    }
}
