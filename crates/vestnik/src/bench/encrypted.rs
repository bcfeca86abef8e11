//! What encryption costs: against plain connections, and against a bare loop that encrypts.

use super::BenchArgs;
use super::fan_out::one_to_all;
use super::figures::{Run, as_f64};
use super::floor::Floor;
use super::link::Identity;
use super::process::Target;
use super::report::{Better, Figure, Goal, micros_each};
use super::swarm::Swarm;

impl Run<'_> {
    /// Memory, handshakes and fan-out over TLS 1.3, on a server of its own with a certificate of its own.
    /// A server elsewhere is not measured.
    pub(super) fn tls(&mut self, args: &BenchArgs) -> anyhow::Result<Vec<Figure>> {
        const ROUNDS: u64 = 20;
        self.swarm.drop_all();
        if args.subscribe.is_some() {
            return Ok(Vec::new());
        }
        let identity = Identity::new()?;
        let (certificate, key) = (identity.certificate(), identity.key());
        let certificates = format!("tls.certificates={}:{}", certificate.display(), key.display());
        let mut settings = vec!["server.listen_tls=127.0.0.1:0", &*certificates];
        settings.extend(args.set.iter().map(String::as_str));
        let target = Target::start(&settings)?;
        let Some(address) = target.encrypted else {
            anyhow::bail!("the server does not listen with TLS");
        };
        let swarm = |address| {
            let path = &target.subscribe.target;
            Swarm::new(address, path, self.key.clone(), args.generation(), self.origin)
        };
        let count = self.connections as u64;
        let mut encrypted = swarm(address)?.encrypted(&identity.client);
        let (memory, cpu) = (target.memory(), target.cpu());
        encrypted.connect(self.connections, |_| {})?;
        let cpu = target.cpu() - cpu;
        let memory = target.memory().saturating_sub(memory);
        let over_tls = one_to_all(&target, &mut encrypted, ROUNDS, self.bytes)?;
        self.is_whole(&encrypted)?;
        drop(encrypted);
        let mut plain = swarm(target.subscribe.resolve()?)?;
        plain.connect(self.connections, |_| {})?;
        let over_plain = one_to_all(&target, &mut plain, ROUNDS, self.bytes)?;
        let wrapping = plain.wrapping();
        drop(plain);
        let mut floor = Floor::start(self.connections, Some(&identity))?;
        let bare_accept = micros_each(floor.accepting, count);
        let bare_send = floor.rounds(ROUNDS, self.bytes + wrapping)?;
        let figure = |name, unit, about, goal, sample: f64, floor: Option<f64>| {
            let mut figure = Figure::new(name, unit, about, Better::Lower, goal);
            figure.samples.push(sample);
            figure.floor.extend(floor);
            figure
        };
        Ok(vec![
            figure(
                "memory of an idle WebSocket, TLS 1.3",
                "bytes",
                "growth of the server's resident memory for each, as without TLS",
                Goal::Value(12.0 * 1024.0),
                as_f64(memory) / as_f64(count),
                None,
            ),
            figure(
                "connect, TLS 1.3",
                "µs CPU",
                "server time for a new connection with a full handshake (ECDSA P-256), against a bare loop that accepts and shakes hands",
                Goal::TimesFloor(1.5),
                micros_each(cpu, count),
                Some(bare_accept),
            ),
            figure(
                "fan-out over TLS, one message at a time",
                "µs CPU per delivery",
                "server time for each subscriber that gets a message, against a bare loop that encrypts and sends",
                Goal::TimesFloor(1.2),
                over_tls,
                Some(bare_send),
            ),
            figure(
                "the same against plain",
                "µs CPU per delivery",
                "the same figure, against plain connections of the same server",
                Goal::Shown,
                over_tls,
                Some(over_plain),
            ),
        ])
    }

    fn is_whole(&self, swarm: &Swarm) -> anyhow::Result<()> {
        let received = &swarm.received;
        anyhow::ensure!(
            received.duplicated == 0 && received.reordered == 0 && received.closed == 0,
            "{received:?}"
        );
        Ok(())
    }
}
