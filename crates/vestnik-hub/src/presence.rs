//! Which users are online, and when the others were last seen (json-rpc.md §9, README D13).
//!
//! The directory tells when a user's first connection comes and the last one goes. Going is believed
//! after a grace time only, so that a reconnect is no news. Times of last seen survive a restart.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use vestnik_core::{Clock, User, UserId, UserSpace};

mod file;

pub use file::{LoadError, Loaded};

/// Users of all sites, seen or being seen.
pub struct Presence {
    users: Mutex<Users>,
    clock: Clock,
    grace_ms: u64,
    news: Notify,
}

#[derive(Default)]
struct Users {
    spaces: HashMap<UserSpace, HashMap<UserId, Seen>>,
    count: usize,
    /// Users whose last connection went, with the time at which that is believed; ascending.
    leaving: VecDeque<(u64, User)>,
    /// Users that may have come or gone since anybody was told, once each.
    news: Vec<User>,
    /// Something is to be saved that was not.
    is_changed: bool,
}

/// What is known of a user. Times in milliseconds since 1970.
#[derive(Clone, Copy, Default)]
struct Seen {
    last_ms: u64,
    /// When it will be believed that the user has gone.
    leaves_ms: u64,
    is_connected: bool,
    /// Connected, or gone so recently that it is not believed.
    is_online: bool,
    /// What was told last.
    was_online: bool,
    is_news: bool,
}

impl Presence {
    /// Users remembered at most; those seen longest ago are forgotten first.
    const USERS_MAX: usize = 1_000_000;
    /// How long a user is remembered; clients of the specification need 30 days.
    const KEPT_MS: u64 = 90 * 24 * 3600 * 1000;

    /// Nobody was seen so far. A user is online until `grace` after the last connection.
    #[must_use]
    pub fn new(clock: Clock, grace: Duration) -> Self {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self { users: Mutex::default(), clock, grace_ms, news: Notify::new() }
    }

    /// A user has a connection. Called under the lock of the directory.
    pub(crate) fn came(&self, user: User) {
        let users = &mut *self.lock();
        self.make_room(users);
        let seen = users.seen(user);
        seen.is_connected = true;
        seen.is_online = true;
        users.is_changed = true;
        self.tell(users, user);
    }

    /// A user has no connection any more. Called under the lock of the directory.
    pub(crate) fn went(&self, user: User) {
        let now_ms = self.clock.unix_ms();
        let users = &mut *self.lock();
        let seen = users.seen(user);
        seen.is_connected = false;
        seen.last_ms = seen.last_ms.max(now_ms);
        let leaves_ms = now_ms.saturating_add(self.grace_ms);
        seen.leaves_ms = leaves_ms;
        users.leaving.push_back((leaves_ms, user));
        users.is_changed = true;
    }

    /// Believes that users have gone whose grace is over. To be called every second.
    pub fn tick(&self) {
        let now_ms = self.clock.unix_ms();
        let users = &mut *self.lock();
        while let Some((when, user)) = users.leaving.front().copied() {
            if when > now_ms {
                break;
            }
            users.leaving.pop_front();
            let seen = users.seen(user);
            if !seen.is_connected && seen.leaves_ms <= now_ms && seen.is_online {
                seen.is_online = false;
                self.tell(users, user);
            }
        }
    }

    fn tell(&self, users: &mut Users, user: User) {
        let seen = users.seen(user);
        if seen.is_online != seen.was_online && !seen.is_news {
            seen.is_news = true;
            users.news.push(user);
            self.news.notify_one();
        }
    }

    /// Waits until users may have come or gone. Cancel safe.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Users that came (`true`) or went since the last call; who did both is not among them.
    #[must_use]
    pub fn take_changes(&self) -> Vec<(User, bool)> {
        let users = &mut *self.lock();
        let news = std::mem::take(&mut users.news);
        let mut changes = Vec::with_capacity(news.len());
        for user in news {
            let seen = users.seen(user);
            seen.is_news = false;
            if seen.is_online != seen.was_online {
                seen.was_online = seen.is_online;
                changes.push((user, seen.is_online));
            }
        }
        changes
    }

    /// Takes back changes that could not be told: [`Presence::take_changes`] returns them again, if they
    /// still are some.
    pub fn untell(&self, changes: &[(User, bool)]) {
        let users = &mut *self.lock();
        for (user, is_online) in changes {
            users.seen(*user).was_online = !is_online;
            self.tell(users, *user);
        }
    }

    /// Tells of everybody who is here once more: the other nodes were told that they are gone.
    pub fn tell_again(&self) {
        let users = &mut *self.lock();
        for user in users.online() {
            users.seen(user).was_online = false;
            self.tell(users, user);
        }
    }

    /// A user was at a node that is gone, and seen there last at `last_ms`.
    pub fn lost(&self, user: User, last_ms: u64) {
        let users = &mut *self.lock();
        self.make_room(users);
        let seen = users.seen(user);
        seen.last_ms = seen.last_ms.max(last_ms);
        if !seen.is_online {
            seen.was_online = true;
            users.is_changed = true;
            self.tell(users, user);
        }
    }

    /// Everybody who is online here.
    #[must_use]
    pub fn online_users(&self) -> Vec<User> {
        self.lock().online()
    }

    /// When a user was seen here last, unix seconds.
    #[must_use]
    pub fn seen_s(&self, user: User) -> u64 {
        let now_ms = self.clock.unix_ms();
        let users = self.lock();
        let seen = users.spaces.get(&user.space).and_then(|known| known.get(&user.id));
        seen.map_or(0, |it| if it.is_connected { now_ms } else { it.last_ms }) / 1000
    }

    /// Notes that there are users of these sites on other nodes.
    pub fn know_sites(&self, sites: impl Iterator<Item = UserSpace>) {
        /// A server has few sites.
        const SITES_MAX: usize = 10_000;
        let users = &mut *self.lock();
        for site in sites.take(SITES_MAX) {
            users.spaces.entry(site).or_default();
        }
    }

    /// Seconds since each user was seen: 0 for who is online, at least 1 for who is not. Asked about
    /// single users, those never seen are left out; asked about `None`, all of the site are meant.
    #[must_use]
    pub fn last_seen(&self, space: UserSpace, asked: Option<&[UserId]>) -> Vec<(UserId, u64)> {
        let now_ms = self.clock.unix_ms();
        let ago_s = |seen: &Seen| {
            if seen.is_online { 0 } else { (now_ms.saturating_sub(seen.last_ms) / 1000).max(1) }
        };
        let users = self.lock();
        let Some(known) = users.spaces.get(&space) else { return Vec::new() };
        match asked {
            Some(asked) => {
                asked.iter().filter_map(|id| Some((*id, ago_s(known.get(id)?)))).collect()
            }
            None => known.iter().map(|(id, seen)| (*id, ago_s(seen))).collect(),
        }
    }

    /// Notes when users were seen elsewhere, unix seconds. Later times win; times to come are ignored,
    /// and nobody comes online by it (J-042).
    pub fn update(&self, space: UserSpace, seen_s: &[(UserId, u64)]) {
        let now_ms = self.clock.unix_ms();
        let users = &mut *self.lock();
        for (id, seen_s) in seen_s {
            let seen_ms = seen_s.saturating_mul(1000);
            if seen_ms > now_ms || seen_ms.saturating_add(Self::KEPT_MS) < now_ms {
                continue;
            }
            self.make_room(users);
            let seen = users.seen(User { space, id: *id });
            seen.last_ms = seen.last_ms.max(seen_ms);
            users.is_changed = true;
        }
    }

    /// The site, if users of only one were ever seen: connections that do not say theirs are of it.
    #[must_use]
    pub fn only_space(&self) -> Option<UserSpace> {
        let users = self.lock();
        let mut spaces = users.spaces.keys();
        spaces.next().filter(|_| spaces.next().is_none()).copied()
    }

    /// Reads the times of last seen that [`Presence::save`] left. Without a file nobody was seen.
    ///
    /// # Errors
    /// When the file cannot be read. A damaged one is set aside and is no error: see [`Loaded`].
    pub fn load(&self, path: &Path) -> Result<Loaded, LoadError> {
        let found = file::read(path)?;
        let now_ms = self.clock.unix_ms();
        let users = &mut *self.lock();
        for (user, last_ms) in found.users {
            if last_ms.saturating_add(Self::KEPT_MS) < now_ms || users.count >= Self::USERS_MAX {
                continue;
            }
            let leaves_ms = last_ms.saturating_add(self.grace_ms);
            // Whoever was here when an orderly restart began may be back before anybody misses them.
            let is_online = leaves_ms > now_ms;
            let seen = users.seen(user);
            *seen =
                Seen { last_ms, leaves_ms, is_online, was_online: is_online, ..Seen::default() };
            if is_online {
                users.leaving.push_back((leaves_ms, user));
            }
        }
        users.leaving.make_contiguous().sort_unstable_by_key(|(when, _)| *when);
        Ok(found.outcome)
    }

    /// Writes the times of last seen, as one step, if they changed; who is connected is seen now.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When the file cannot be written; the one before it stays then.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let now_ms = self.clock.unix_ms();
        let mut all = Vec::new();
        {
            let users = &mut *self.lock();
            let mut is_anybody_here = false;
            for (space, known) in &mut users.spaces {
                for (id, seen) in known {
                    if seen.is_connected {
                        seen.last_ms = seen.last_ms.max(now_ms);
                        is_anybody_here = true;
                    }
                    all.push((User { space: *space, id: *id }, seen.last_ms));
                }
            }
            if !std::mem::take(&mut users.is_changed) && !is_anybody_here {
                return Ok(());
            }
        }
        file::write(path, &all).inspect_err(|_| self.lock().is_changed = true)
    }

    /// Forgets a tenth of those who are not here, seen longest ago, when there is no room for more.
    fn make_room(&self, users: &mut Users) {
        if users.count < Self::USERS_MAX {
            return;
        }
        let away = users.spaces.values().flat_map(HashMap::values).filter(|seen| !seen.is_online);
        let mut times: Vec<_> = away.map(|seen| seen.last_ms).collect();
        if times.is_empty() {
            return;
        }
        let at = (Self::USERS_MAX / 10).min(times.len() - 1);
        let limit = *times.select_nth_unstable(at).1;
        users.spaces.retain(|_, known| {
            known.retain(|_, seen| seen.is_online || seen.is_news || seen.last_ms > limit);
            !known.is_empty()
        });
        users.count = users.spaces.values().map(HashMap::len).sum();
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Users {
    fn online(&self) -> Vec<User> {
        let mut online = Vec::new();
        for (space, known) in &self.spaces {
            let here = known.iter().filter(|(_, seen)| seen.is_online);
            online.extend(here.map(|(id, _)| User { space: *space, id: *id }));
        }
        online
    }

    fn seen(&mut self, user: User) -> &mut Seen {
        let count = &mut self.count;
        self.spaces.entry(user.space).or_default().entry(user.id).or_insert_with(|| {
            *count += 1;
            Seen::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn user(number: i64) -> User {
        User { space: UserSpace::of("site"), id: UserId::new(number).unwrap() }
    }

    fn presence() -> (Presence, Clock) {
        let clock = Clock::manual(NOW_S);
        (Presence::new(clock.clone(), Duration::from_secs(10)), clock)
    }

    fn ago(presence: &Presence, number: i64) -> Option<u64> {
        let user = user(number);
        presence.last_seen(user.space, Some(&[user.id])).first().map(|(_, ago_s)| *ago_s)
    }

    #[test]
    fn j_116_who_comes_is_told_at_once_and_who_goes_after_the_grace() {
        let (presence, clock) = presence();
        presence.came(user(7));
        assert_eq!(presence.take_changes(), [(user(7), true)]);
        presence.went(user(7));
        clock.advance(Duration::from_secs(9));
        presence.tick();
        assert_eq!(presence.take_changes(), []);
        assert_eq!(ago(&presence, 7), Some(0));
        clock.advance(Duration::from_secs(1));
        presence.tick();
        assert_eq!(presence.take_changes(), [(user(7), false)]);
        assert_eq!(ago(&presence, 7), Some(10));
    }

    #[test]
    fn j_116_a_reconnect_is_no_news() {
        let (presence, clock) = presence();
        presence.came(user(7));
        assert_eq!(presence.take_changes().len(), 1);
        for _ in 0..5 {
            presence.went(user(7));
            clock.advance(Duration::from_secs(8));
            presence.tick();
            presence.came(user(7));
        }
        clock.advance(Duration::from_secs(60));
        presence.tick();
        assert_eq!(presence.take_changes(), []);
        assert_eq!(ago(&presence, 7), Some(0));
    }

    #[test]
    fn changes_that_could_not_be_told_are_told_later_if_they_still_are_some() {
        let (presence, clock) = presence();
        presence.came(user(7));
        let changes = presence.take_changes();
        presence.untell(&changes);
        assert_eq!(presence.take_changes(), [(user(7), true)]);
        presence.tell_again();
        presence.tell_again();
        assert_eq!(presence.take_changes(), [(user(7), true)], "everybody once more, once");
        presence.went(user(7));
        clock.advance(Duration::from_secs(10));
        presence.tick();
        let changes = presence.take_changes();
        assert_eq!(changes, [(user(7), false)]);
        presence.came(user(7));
        presence.untell(&changes);
        assert_eq!(presence.take_changes(), [], "back before anybody was told");
        assert_eq!(presence.online_users(), [user(7)]);
    }

    #[test]
    fn users_of_a_node_that_is_gone_are_gone_unless_they_are_here() {
        let (presence, clock) = presence();
        presence.came(user(7));
        assert_eq!(presence.take_changes().len(), 1);
        for number in [7, 8] {
            presence.lost(user(number), (NOW_S - 20) * 1000);
        }
        assert_eq!(presence.take_changes(), [(user(8), false)]);
        assert_eq!((ago(&presence, 7), ago(&presence, 8)), (Some(0), Some(20)));
        assert_eq!(presence.seen_s(user(8)), NOW_S - 20);
        clock.advance(Duration::from_secs(5));
        assert_eq!(presence.seen_s(user(7)), NOW_S + 5, "who is here is seen now");
        presence.know_sites([UserSpace::of("other")].into_iter());
        assert_eq!(presence.only_space(), None);
    }

    #[test]
    fn j_042_an_update_raises_and_never_lowers_and_brings_nobody_online() {
        let (presence, clock) = presence();
        let update = |seen_s| presence.update(user(8).space, &[(user(8).id, seen_s)]);
        update(NOW_S + 1);
        update(1);
        assert_eq!(ago(&presence, 8), None, "neither times to come nor times long past");
        update(NOW_S - 100);
        assert_eq!(ago(&presence, 8), Some(100));
        update(NOW_S - 200);
        assert_eq!(ago(&presence, 8), Some(100));
        update(NOW_S);
        assert_eq!(ago(&presence, 8), Some(1), "0 would say that the user is here");
        assert_eq!(presence.take_changes(), []);
        clock.advance(Duration::from_secs(30 * 24 * 3600));
        assert_eq!(ago(&presence, 8), Some(30 * 24 * 3600));
    }

    #[test]
    fn j_052_users_of_two_sites_are_not_mixed() {
        let (presence, _) = presence();
        presence.came(user(7));
        assert_eq!(presence.only_space(), Some(user(7).space));
        let other = UserSpace::of("other");
        assert_eq!(presence.last_seen(other, Some(&[user(7).id])), []);
        presence.update(other, &[(user(7).id, NOW_S - 5)]);
        assert_eq!(presence.last_seen(other, None), [(user(7).id, 5)]);
        assert_eq!(presence.last_seen(user(7).space, None), [(user(7).id, 0)]);
        assert_eq!(presence.only_space(), None);
    }

    #[test]
    fn times_survive_a_restart_and_who_was_here_was_seen_when_they_were_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-seen");
        let (presence, clock) = presence();
        presence.came(user(7));
        presence.update(user(8).space, &[(user(8).id, NOW_S - 50)]);
        presence.save(&path).unwrap();

        let soon = Presence::new(clock.clone(), Duration::from_secs(10));
        assert_eq!(soon.load(&path).unwrap(), Loaded::Users(2));
        assert_eq!((ago(&soon, 7), ago(&soon, 8)), (Some(0), Some(50)));
        soon.came(user(7));
        assert_eq!(soon.take_changes(), [], "back before anybody could know");

        clock.advance(Duration::from_secs(20));
        let later = Presence::new(clock, Duration::from_secs(10));
        later.load(&path).unwrap();
        assert_eq!((ago(&later, 7), ago(&later, 8)), (Some(20), Some(70)));
        later.came(user(7));
        assert_eq!(later.take_changes(), [(user(7), true)]);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_a_missing_one_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-seen");
        let (presence, _) = presence();
        assert_eq!(presence.load(&path).unwrap(), Loaded::Users(0));
        presence.came(user(7));
        presence.save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for damage in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[damage] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let (presence, _) = self::presence();
            let Loaded::SetAside(aside) = presence.load(&path).unwrap() else { panic!("{damage}") };
            assert_eq!(std::fs::read(aside).unwrap(), bytes);
            assert!(!path.exists());
        }
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(presence.load(&path).unwrap(), Loaded::SetAside(_)));
    }
}
