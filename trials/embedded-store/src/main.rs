//! Measures three stores for the history of messages under one workload; `docs/embedded-store.md`
//! has the method and the results. `embedded-store all DIRECTORY` runs everything.

mod log;
mod store;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::{Channel, Failure, Message, Store};

/// Channels that are published to.
const CHANNELS: u64 = 10_000;
/// Threads that publish.
const PUBLISHERS: u64 = 8;
/// Bytes of a body.
const BODY_BYTES: usize = 200;
/// Messages of the runs that read and expire.
const LOADED: u64 = 500_000;
/// Unix seconds at which the runs that expire begin.
const START_S: u64 = 1_800_000_000;
/// Half of the messages is kept this long, the other half a day.
const SHORT_S: u64 = 1_000;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["all", directory] => all(Path::new(directory)),
        ["publish", store, directory, batch] => publish(store, directory.as_ref(), batch.parse()?),
        ["expire", store, directory, pattern] => expire(store, directory.as_ref(), pattern),
        ["endless", store, directory] => endless(store, directory.as_ref()),
        ["reopen", store, directory, at_least] => {
            reopen(store, directory.as_ref(), at_least.parse()?)
        }
        ["damage", store, directory, quarter] => {
            damage(store, directory.as_ref(), quarter.parse()?)
        }
        _ => Err("usage: embedded-store all DIRECTORY".into()),
    }
}

fn open(store: &str, directory: &Path) -> Result<Box<dyn Store>, Failure> {
    match store {
        "fjall" => store::fjall(directory),
        "redb" => store::redb(directory),
        "log" => log::open(directory),
        _ => Err(format!("no store is called {store}").into()),
    }
}

const STORES: [&str; 3] = ["fjall", "redb", "log"];

/// Every run of every store, each in a process of its own, three times, the stores in turn so that
/// whatever else the machine does hits all of them.
fn all(directory: &Path) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let runs = [
        ("publish", "1"),
        ("publish", "20"),
        ("kill", ""),
        ("expire", "older"),
        ("expire", "alternate"),
        ("damage", "1"),
        ("damage", "2"),
        ("damage", "3"),
    ];
    for round in 1..=3 {
        println!("round {round}");
        for (run, argument) in runs {
            for name in STORES {
                let fresh = fresh(directory, name)?;
                if run == "kill" {
                    kill(&program, name, &fresh)?;
                } else {
                    let status = Command::new(&program)
                        .args([run, name])
                        .arg(&fresh)
                        .arg(argument)
                        .status()?;
                    if !status.success() && run == "damage" {
                        println!("{name} damage {argument} ended with {status}");
                    } else if !status.success() {
                        return Err(format!("{name} {run} {argument}: {status}").into());
                    }
                }
                std::fs::remove_dir_all(fresh)?;
            }
        }
    }
    Ok(())
}

fn fresh(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    let fresh = directory.join(name);
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir_all(&fresh)?;
    Ok(fresh)
}

/// Eight threads publish for five seconds, `batch` messages at a time.
fn publish(name: &str, directory: &Path, batch: u64) -> Result<(), Failure> {
    let store = open(name, directory)?;
    let stop = AtomicBool::new(false);
    let published = AtomicU64::new(0);
    let slowest_us = AtomicU64::new(0);
    let (started, cpu) = (Instant::now(), cpu_s()?);
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (store, stop, published, slowest_us) = (&store, &stop, &published, &slowest_us);
            scope.spawn(move || {
                let mut random = Random(publisher + 1);
                while !stop.load(Ordering::Relaxed) {
                    let messages = (0..batch).map(|_| message(&mut random, u64::MAX)).collect();
                    let sent = Instant::now();
                    store.publish(messages).expect("the store under trial works");
                    let took = sent.elapsed().as_micros() as u64;
                    slowest_us.fetch_max(took, Ordering::Relaxed);
                    published.fetch_add(batch, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(Duration::from_secs(5));
        stop.store(true, Ordering::Relaxed);
    });
    let count = published.into_inner() as f64;
    println!(
        "{name} publish batch={batch} per_s={:.0} cpu_us={:.1} slowest_ms={:.1} disk_per_message={:.0} peak_mb={:.1}",
        count / started.elapsed().as_secs_f64(),
        (cpu_s()? - cpu) * 1e6 / count,
        slowest_us.into_inner() as f64 / 1e3,
        disk_bytes(directory)? as f64 / count,
        peak_mb()?,
    );
    store.close()
}

/// Fills the store, reads from it, lets half expire and looks at the space.
fn expire(name: &str, directory: &Path, pattern: &str) -> Result<(), Failure> {
    let store = open(name, directory)?;
    let mut random = Random(7);
    let started = Instant::now();
    for part in 0..LOADED / 1000 {
        let messages = (0..1000)
            .map(|n| {
                let short = match pattern {
                    "older" => part < LOADED / 2000,
                    _ => n % 2 == 0,
                };
                let kept_s = if short { SHORT_S } else { 86_400 };
                message(&mut random, START_S + kept_s)
            })
            .collect();
        store.publish(messages)?;
    }
    let load_s = started.elapsed().as_secs_f64();
    let loaded_peak_mb = peak_mb()?;
    let started = Instant::now();
    let mut read = 0;
    for _ in 0..20_000 {
        read += store.newest_ten(channel(random.below(CHANNELS)))?;
    }
    let read_s = started.elapsed().as_secs_f64();
    let before = disk_bytes(directory)?;
    let (started, cpu) = (Instant::now(), cpu_s()?);
    store.expire(START_S + SHORT_S)?;
    let (expire_s, expire_cpu_s) = (started.elapsed().as_secs_f64(), cpu_s()? - cpu);
    std::thread::sleep(Duration::from_secs(2));
    let after = disk_bytes(directory)?;
    let started = Instant::now();
    store.compact()?;
    let compact_s = started.elapsed().as_secs_f64();
    let compacted = disk_bytes(directory)?;
    println!(
        "{name} expire {pattern} load_s={load_s:.1} reads_per_s={:.0} read={read} disk_mb={:.0} \
         expired_mb={:.0} compacted_mb={:.0} expire_s={expire_s:.2} expire_cpu_s={expire_cpu_s:.2} \
         compact_s={compact_s:.2} left={} loaded_peak_mb={loaded_peak_mb:.0} peak_mb={:.0}",
        20_000.0 / read_s,
        before as f64 / 1e6,
        after as f64 / 1e6,
        compacted as f64 / 1e6,
        store.count()?,
        peak_mb()?,
    );
    store.close()
}

/// Publishes until it is killed; writes a byte for every acknowledged message.
fn endless(name: &str, directory: &Path) -> Result<(), Failure> {
    let store = open(name, directory)?;
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let store = &store;
            scope.spawn(move || {
                let mut random = Random(publisher + 1);
                loop {
                    let messages = (0..20).map(|_| message(&mut random, u64::MAX)).collect();
                    store.publish(messages).expect("the store under trial works");
                    std::io::stdout().write_all(&[b'.'; 20]).expect("the parent listens");
                    std::io::stdout().flush().expect("the parent listens");
                }
            });
        }
    });
    Ok(())
}

/// Kills a publishing process after three seconds and opens what it left.
fn kill(program: &Path, name: &str, directory: &Path) -> Result<(), Failure> {
    let mut child = Command::new(program)
        .args(["endless", name])
        .arg(directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    let reader = std::thread::spawn(move || {
        let (mut acknowledged, mut buffer) = (0, [0; 4096]);
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            acknowledged += count;
        }
        acknowledged
    });
    std::thread::sleep(Duration::from_secs(3));
    child.kill()?;
    child.wait()?;
    let acknowledged = reader.join().map_err(|_| "reader panicked")?;
    println!("{name} killed acknowledged={acknowledged}");
    let status = Command::new(program)
        .args(["reopen", name])
        .arg(directory)
        .arg(acknowledged.to_string())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{name} reopen: {status}").into()) }
}

/// Opens what a killed process left; all it acknowledged must be there.
fn reopen(name: &str, directory: &Path, at_least: u64) -> Result<(), Failure> {
    let started = Instant::now();
    let store = open(name, directory)?;
    let opened = started.elapsed();
    println!(
        "{name} reopen ms={:.1} messages={} disk_mb={:.0} peak_mb={:.1}",
        opened.as_secs_f64() * 1e3,
        store.count()?,
        disk_bytes(directory)? as f64 / 1e6,
        peak_mb()?
    );
    if store.count()? < at_least {
        return Err(format!("{name} lost messages").into());
    }
    store.close()
}

/// Changes a byte of the largest file of a closed store, and looks what is left. Only bytes that are
/// not zero are candidates: stores make files larger than what they hold.
fn damage(name: &str, directory: &Path, quarter: usize) -> Result<(), Failure> {
    let store = open(name, directory)?;
    let mut random = Random(7);
    for _ in 0..50 {
        let messages = (0..1000).map(|_| message(&mut random, u64::MAX)).collect();
        store.publish(messages)?;
    }
    store.close()?;
    drop(store);
    let (_, path) = largest(directory)?.ok_or("no file")?;
    let mut content = std::fs::read(&path)?;
    let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
    content[used[used.len() * quarter / 4]] ^= 0x80;
    std::fs::write(&path, content)?;
    let store = match open(name, directory) {
        Ok(store) => store,
        Err(failure) => {
            println!("{name} damage {quarter} does not open: {failure}");
            return Ok(());
        }
    };
    let mut failures = 0;
    let found: usize = (0..CHANNELS)
        .map(|number| store.newest_ten(channel(number)).unwrap_or_else(|_| (failures += 1, 0).1))
        .sum();
    let count = store.count().map_or_else(|failure| failure.to_string(), |n| n.to_string());
    println!("{name} damage {quarter} messages={count} read={found} failed_reads={failures}");
    store.close()
}

/// The largest file below a directory.
fn largest(directory: &Path) -> Result<Option<(u64, PathBuf)>, Failure> {
    let mut found = None;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let candidate = if path.is_dir() {
            largest(&path)?
        } else {
            Some((std::fs::metadata(&path)?.len(), path))
        };
        found = found.max(candidate);
    }
    Ok(found)
}

fn channel(number: u64) -> Channel {
    let mut channel = [0; 17];
    channel[1..9].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    channel[9..].copy_from_slice(&number.to_be_bytes());
    channel
}

/// A message to two channels; its body is random hex digits. No store compresses.
fn message(random: &mut Random, expires_s: u64) -> Message {
    let receivers = [channel(random.below(CHANNELS)), channel(random.below(CHANNELS))];
    let mut body = Vec::with_capacity(BODY_BYTES + 16);
    while body.len() < BODY_BYTES {
        write!(body, "{:016x}", random.next()).expect("memory takes it");
    }
    body.truncate(BODY_BYTES);
    Message { receivers, expires_s, body }
}

/// Xorshift: the same sequence in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Blocks that the files of a directory take, in bytes.
fn disk_bytes(directory: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path())?,
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0, // removed meanwhile
        };
    }
    Ok(sum)
}

/// Processor time of this process so far, in seconds.
fn cpu_s() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().ok_or("stat")?.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

/// The most memory this process ever had, in megabytes.
fn peak_mb() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("VmHWM")?.parse::<f64>()? * 1.024 / 1e3)
}
