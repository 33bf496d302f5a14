//! A way to a broker on which answers get lost, each with its connection. The broker behind it is the real one, which has
//! done what it was asked; who asked does not know.
//!
//! A frame of Kafka's protocol is a length and that many bytes. A request begins with its API key and a version, two bytes
//! each, and the correlation id, by which its answer begins too.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// A port of the loopback address that leads to another; open until the process ends.
pub struct Proxy {
    port: u16,
    target: Arc<AtomicU16>,
    answers: Arc<Mutex<Answers>>,
}

/// Says of an answer whether it is lost, by its API key and how many of that there were before.
type Loses = Box<dyn Fn(i16, u64) -> bool + Send>;

struct Answers {
    loses: Loses,
    seen: BTreeMap<i16, u64>,
    lost: BTreeMap<i16, u64>,
}

impl Proxy {
    /// Opens a port; it leads nowhere yet.
    pub fn open(loses: impl Fn(i16, u64) -> bool + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let target = Arc::new(AtomicU16::new(0));
        let answers = Arc::new(Mutex::new(Answers {
            loses: Box::new(loses),
            seen: BTreeMap::new(),
            lost: BTreeMap::new(),
        }));
        let (leads_to, judge) = (Arc::clone(&target), Arc::clone(&answers));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that finds nobody tries again.
                if let Ok(broker) = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst))) {
                    let _ = join(client, broker, &judge);
                }
            }
        });
        Ok(Self { port, target, answers })
    }

    /// Where clients come in.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says where it leads.
    pub fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// How many answers were lost, by API key.
    pub fn lost(&self) -> BTreeMap<i16, u64> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).lost.clone()
    }
}

impl Answers {
    fn is_lost(&mut self, key: i16) -> bool {
        let seen = self.seen.entry(key).or_insert(0);
        *seen += 1;
        let is_lost = (self.loses)(key, *seen - 1);
        if is_lost {
            *self.lost.entry(key).or_insert(0) += 1;
        }
        is_lost
    }
}

/// Hands frames from one to the other until either is gone, or an answer is lost.
fn join(client: TcpStream, broker: TcpStream, answers: &Arc<Mutex<Answers>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let asked: Arc<Mutex<HashMap<[u8; 4], i16>>> = Arc::default();
    let (asks, answers) = (Arc::clone(&asked), Arc::clone(answers));
    let (mut from_client, mut to_broker) = (client.try_clone()?, broker.try_clone()?);
    let (mut from_broker, mut to_client) = (broker, client);
    thread::spawn(move || {
        while let Ok(frame) = read(&mut from_client) {
            if let [key1, key2, _, _, id @ ..] = &frame[4..]
                && let Some(id) = id.first_chunk()
            {
                let mut asked = asks.lock().unwrap_or_else(PoisonError::into_inner);
                asked.insert(*id, i16::from_be_bytes([*key1, *key2]));
            }
            if to_broker.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to_broker.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        while let Ok(frame) = read(&mut from_broker) {
            let key = frame[4..]
                .first_chunk()
                .and_then(|id| asked.lock().unwrap_or_else(PoisonError::into_inner).remove(id));
            let is_lost =
                key.is_some_and(|key| answers.lock().unwrap_or_else(PoisonError::into_inner).is_lost(key));
            if is_lost || to_client.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_broker.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// A frame with its length before it.
fn read(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}
