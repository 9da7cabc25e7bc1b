//! The tables of one node: checkpoints of state, descriptions of groups, component bytes, small facts.
//!
//! ```text
//! file state.redb
//! table        key                           value
//! meta         name                          sealed bytes; "identity" holds format and owner
//! groups       group                         sealed: 1 and a description, or 0 for a removed group
//! headers      group                         sealed header of the checkpoint
//! state        group BE | space | key        sealed value
//! components   digest                        sealed bytes
//!
//! sealed = crc32c of (table tag, key, bytes), 4 bytes LE | bytes
//! ```
//!
//! Relies on redb for atomic, durable transactions. Promises that a checkpoint is replaced whole or not
//! at all, that every value read is the one written under that key, and that the id of a removed group
//! stays removed. Every commit is durable, in two phases, and keeps the allocator's state, so that
//! opening after a crash does not walk the whole file. Does not know what headers, descriptions and
//! states mean.

use std::io;
use std::path::Path;

use bytes::Bytes;
use quorate_types::codec::{Reader, Writer};
use quorate_types::{BootNumber, Digest, GroupId};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition, WriteTransaction,
};

use crate::{Disk, DiskBackend, FileDisk, Identity, StoreError};

const FORMAT_VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 4;
const IDENTITY_KEY: &str = "quorate.identity";
const BOOT_KEY: &str = "quorate.boot";
/// Names of the owner's own facts begin with this, so that they never meet ours.
const OWNER_PREFIX: &str = "owner.";
/// Pages that redb keeps in memory; state is read once at start, so a large cache would lie idle.
const CACHE_BYTES: usize = 32 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const GROUPS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("groups");
const HEADERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("headers");
const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
const COMPONENTS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("components");
const EVIDENCE: TableDefinition<'_, (u64, &[u8; 32]), &[u8]> = TableDefinition::new("evidence");

/// Which part of a group's state a key belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// The component's own keys.
    User = 0,
    /// The host's: sessions, timers, the component's identity.
    Host = 1,
}

/// A key and its value; `None` removes the key.
pub type Change = (Space, Bytes, Option<Bytes>);

/// A key and its value.
pub type Pair = (Space, Bytes, Bytes);

/// A group's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCheckpoint {
    /// As given to [`Store::checkpoint`] or [`Store::install`].
    pub header: Bytes,
    /// All of the state, by space and key.
    pub pairs: Vec<Pair>,
}

/// The tables of one node.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the database file, or makes it in its directory.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongIdentity`], [`StoreError::UnsupportedVersion`] or [`StoreError::NoIdentity`]
    /// for a database that is not ours, before anything in its tables is changed, and
    /// [`StoreError::Database`].
    pub fn open(path: &Path, identity: &Identity) -> Result<Self, StoreError> {
        let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_file)?;
        let directory = path.parent().ok_or_else(no_file)?;
        Self::open_on(&FileDisk::open(directory)?, name, identity)
    }

    /// As [`Store::open`], on any disk. A database that is new gets its name only once it is whole, so
    /// that a crash while it is made leaves none.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn open_on<D: Disk>(disk: &D, name: &str, identity: &Identity) -> Result<Self, StoreError> {
        let names = disk.list()?;
        if !names.iter().any(|found| found == name) {
            let unfinished = format!("{name}.new");
            if names.contains(&unfinished) {
                disk.remove(&unfinished)?;
            }
            drop(Self::with_backend(DiskBackend::create(disk, &unfinished)?, identity)?);
            disk.rename(&unfinished, name)?;
            disk.sync_directory()?;
        }
        Self::with_backend(DiskBackend::open(disk, name)?, identity)
    }

    /// As [`Store::open`], on other storage; empty storage becomes a new database, and a crash
    /// meanwhile may leave one that cannot be opened.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub fn with_backend(backend: impl StorageBackend, identity: &Identity) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
        Self::with_database(database, identity)
    }

    fn with_database(database: Database, identity: &Identity) -> Result<Self, StoreError> {
        let store = Self { database };
        match store.read_meta(IDENTITY_KEY)? {
            Some(found) => check_identity(found, identity)?,
            None if store.has_tables()? => return Err(StoreError::NoIdentity),
            None => store.initialise(identity)?,
        }
        Ok(store)
    }

    fn has_tables(&self) -> Result<bool, StoreError> {
        Ok(self.database.begin_read()?.list_tables()?.next().is_some())
    }

    fn initialise(&self, identity: &Identity) -> Result<(), StoreError> {
        let mut value = Writer::with_capacity(4 + Identity::BYTES);
        value.u32(FORMAT_VERSION);
        identity.encode(&mut value);
        self.write(|transaction| {
            transaction.open_table(GROUPS)?;
            transaction.open_table(HEADERS)?;
            transaction.open_table(STATE)?;
            transaction.open_table(COMPONENTS)?;
            let sealed = seal(b"meta", IDENTITY_KEY.as_bytes(), value.as_slice());
            transaction.open_table(META)?.insert(IDENTITY_KEY, sealed.as_slice())?;
            Ok(())
        })
    }

    /// Counts this start of the node; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`], or [`StoreError::Damaged`] if the last number cannot be read.
    pub fn raise_boot(&self) -> Result<BootNumber, StoreError> {
        let last = match self.read_meta(BOOT_KEY)? {
            None => BootNumber::ZERO,
            Some(bytes) => BootNumber(Reader::new(bytes).u64("boot number")?),
        };
        let boot = last.next();
        self.write_meta(BOOT_KEY, &boot.0.to_le_bytes())?;
        Ok(boot)
    }

    /// Brings a group's checkpoint up to date in one durable transaction: the header is replaced, the
    /// changes are made, all else stays.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`]; the checkpoint before is then still whole.
    pub fn checkpoint(
        &self,
        group: GroupId,
        header: &[u8],
        changes: impl Iterator<Item = Change>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            put_header(transaction, group, header)?;
            let mut table = transaction.open_table(STATE)?;
            let (mut key_buffer, mut value_buffer) = (Vec::new(), Vec::new());
            for (space, key, value) in changes {
                let key = state_key(&mut key_buffer, group, space, &key);
                match value {
                    Some(value) => {
                        table.insert(key, seal_into(&mut value_buffer, b"state", key, &value))?;
                    }
                    None => {
                        table.remove(key)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Replaces all of a group's checkpoint in one durable transaction.
    ///
    /// # Errors
    ///
    /// As [`Store::checkpoint`].
    pub fn install(
        &self,
        group: GroupId,
        header: &[u8],
        pairs: impl Iterator<Item = Pair>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            put_header(transaction, group, header)?;
            clear_state(transaction, group)?;
            let mut table = transaction.open_table(STATE)?;
            let (mut key_buffer, mut value_buffer) = (Vec::new(), Vec::new());
            for (space, key, value) in pairs {
                let key = state_key(&mut key_buffer, group, space, &key);
                table.insert(key, seal_into(&mut value_buffer, b"state", key, &value))?;
            }
            Ok(())
        })
    }

    /// A group's checkpoint, if it has one.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedPair`] or [`StoreError::Damaged`] if any of it is not what was written, and
    /// [`StoreError::Database`].
    pub fn load(&self, group: GroupId) -> Result<Option<LoadedCheckpoint>, StoreError> {
        let transaction = self.database.begin_read()?;
        let headers = transaction.open_table(HEADERS)?;
        let Some(sealed) = headers.get(group.0)? else {
            return Ok(None);
        };
        let header =
            unseal(b"header", &group.0.to_be_bytes(), sealed.value()).ok_or_else(|| StoreError::Damaged {
                what: format!("checkpoint header of group {group}"),
                remedy: "repair the replica from its peers",
            })?;
        let mut pairs = Vec::new();
        let (first, last) = state_range(group);
        for item in transaction.open_table(STATE)?.range::<&[u8]>(first.as_slice()..=last.as_slice())? {
            let (key, sealed) = item?;
            let (space, name) = split_state_key(group, key.value())?;
            let value = unseal(b"state", key.value(), sealed.value())
                .ok_or_else(|| StoreError::DamagedPair { group, space, key: name.to_vec() })?;
            pairs.push((space, Bytes::copy_from_slice(name), value));
        }
        Ok(Some(LoadedCheckpoint { header, pairs }))
    }

    /// Records a group, or replaces its description; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::GroupRemoved`] for an id that was removed, and [`StoreError::Database`].
    pub fn put_group(&self, group: GroupId, description: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(GROUPS)?;
            let removed = match table.get(group.0)? {
                None => false,
                Some(sealed) => open_group(group, sealed.value())?.is_none(),
            };
            if removed {
                return Err(StoreError::GroupRemoved { group });
            }
            let mut value = Vec::with_capacity(1 + description.len());
            value.push(1);
            value.extend_from_slice(description);
            table.insert(group.0, seal(b"group", &group.0.to_be_bytes(), &value).as_slice())?;
            Ok(())
        })
    }

    /// A group's description; `None` if it was never recorded or was removed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] and [`StoreError::Database`].
    pub fn group(&self, group: GroupId) -> Result<Option<Bytes>, StoreError> {
        let table = self.database.begin_read()?.open_table(GROUPS)?;
        match table.get(group.0)? {
            None => Ok(None),
            Some(sealed) => open_group(group, sealed.value()),
        }
    }

    /// Whether a group of this id was removed, so that the id may never be used again.
    ///
    /// # Errors
    ///
    /// As [`Store::group`].
    pub fn is_removed(&self, group: GroupId) -> Result<bool, StoreError> {
        let table = self.database.begin_read()?.open_table(GROUPS)?;
        match table.get(group.0)? {
            None => Ok(false),
            Some(sealed) => Ok(open_group(group, sealed.value())?.is_none()),
        }
    }

    /// All groups that are recorded and not removed, in order.
    ///
    /// # Errors
    ///
    /// As [`Store::group`].
    pub fn groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let mut groups = Vec::new();
        for item in self.database.begin_read()?.open_table(GROUPS)?.iter()? {
            let (id, sealed) = item?;
            let group = GroupId(id.value());
            if open_group(group, sealed.value())?.is_some() {
                groups.push(group);
            }
        }
        Ok(groups)
    }

    /// Removes a group with its checkpoint and marks its id as used; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn remove_group(&self, group: GroupId) -> Result<(), StoreError> {
        self.write(|transaction| {
            clear_state(transaction, group)?;
            transaction.open_table(HEADERS)?.remove(group.0)?;
            let tombstone = seal(b"group", &group.0.to_be_bytes(), &[0]);
            transaction.open_table(GROUPS)?.insert(group.0, tombstone.as_slice())?;
            Ok(())
        })
    }

    /// Keeps a component's bytes under their digest, which the caller has checked; durable when it
    /// returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn put_component(&self, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sealed = seal(b"component", &digest.0, bytes);
            transaction.open_table(COMPONENTS)?.insert(&digest.0, sealed.as_slice())?;
            Ok(())
        })
    }

    /// A component's bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::DamagedComponent`] and [`StoreError::Database`].
    pub fn component(&self, digest: Digest) -> Result<Option<Bytes>, StoreError> {
        let table = self.database.begin_read()?.open_table(COMPONENTS)?;
        match table.get(&digest.0)? {
            None => Ok(None),
            Some(sealed) => unseal(b"component", &digest.0, sealed.value())
                .map(Some)
                .ok_or(StoreError::DamagedComponent { digest }),
        }
    }

    /// The digests and lengths in bytes of all components, by digest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn components(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let table = self.database.begin_read()?.open_table(COMPONENTS)?;
        let mut components = Vec::with_capacity(usize::try_from(table.len()?).unwrap_or(0));
        for item in table.iter()? {
            let (digest, sealed) = item?;
            let bytes = sealed.value().len().saturating_sub(CHECKSUM_BYTES) as u64;
            components.push((Digest(*digest.value()), bytes));
        }
        Ok(components)
    }

    /// Forgets a component's bytes; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn remove_component(&self, digest: Digest) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(COMPONENTS)?.remove(&digest.0)?;
            Ok(())
        })
    }

    /// Keeps a piece of evidence found in a group under the digest that names it; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn put_evidence(&self, group: GroupId, digest: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sealed = seal(b"evidence", &evidence_key(group, &digest.0), bytes);
            transaction.open_table(EVIDENCE)?.insert((group.0, &digest.0), sealed.as_slice())?;
            Ok(())
        })
    }

    /// All evidence that was kept, by group and digest.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] and [`StoreError::Database`].
    pub fn evidence(&self) -> Result<Vec<(GroupId, Bytes)>, StoreError> {
        let table = match self.database.begin_read()?.open_table(EVIDENCE) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for item in table.iter()? {
            let (key, sealed) = item?;
            let (group, digest) = key.value();
            let group = GroupId(group);
            let bytes = unseal(b"evidence", &evidence_key(group, digest), sealed.value());
            let bytes = bytes.ok_or_else(|| StoreError::Damaged {
                what: format!("evidence of group {group}"),
                remedy: "rebuild this node under a new incarnation",
            })?;
            found.push((group, bytes));
        }
        Ok(found)
    }

    /// Keeps a small fact of the owner under a name; durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Database`].
    pub fn put_meta(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write_meta(&format!("{OWNER_PREFIX}{name}"), value)
    }

    /// What [`Store::put_meta`] kept under a name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] and [`StoreError::Database`].
    pub fn meta(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        self.read_meta(&format!("{OWNER_PREFIX}{name}"))
    }

    fn write_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let sealed = seal(b"meta", key.as_bytes(), value);
            transaction.open_table(META)?.insert(key, sealed.as_slice())?;
            Ok(())
        })
    }

    fn read_meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let table = match self.database.begin_read()?.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        let Some(sealed) = table.get(key)? else {
            return Ok(None);
        };
        let value = unseal(b"meta", key.as_bytes(), sealed.value()).ok_or_else(|| StoreError::Damaged {
            what: format!("stored fact {key}"),
            remedy: "rebuild this node under a new incarnation",
        })?;
        Ok(Some(value))
    }

    /// Runs one durable transaction; an error of `body` leaves everything as before.
    fn write(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database.begin_write()?;
        transaction
            .set_durability(Durability::Immediate)
            .expect("full durability is never refused: no savepoint is made here");
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        if let Err(error) = body(&transaction) {
            transaction.abort()?;
            return Err(error);
        }
        transaction.commit()?;
        Ok(())
    }
}

fn check_identity(found: Bytes, expected: &Identity) -> Result<(), StoreError> {
    let mut from = Reader::new(found);
    let version = from.u32("database format")?;
    if version != FORMAT_VERSION {
        return Err(StoreError::UnsupportedVersion { found: version, supported: FORMAT_VERSION });
    }
    let found = Identity::decode(&mut from)?;
    from.end()?;
    if found != *expected {
        return Err(StoreError::WrongIdentity { found, expected: *expected });
    }
    Ok(())
}

fn put_header(transaction: &WriteTransaction, group: GroupId, header: &[u8]) -> Result<(), StoreError> {
    let sealed = seal(b"header", &group.0.to_be_bytes(), header);
    transaction.open_table(HEADERS)?.insert(group.0, sealed.as_slice())?;
    Ok(())
}

fn clear_state(transaction: &WriteTransaction, group: GroupId) -> Result<(), StoreError> {
    let (first, last) = state_range(group);
    transaction.open_table(STATE)?.retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |_, _| false)?;
    Ok(())
}

/// What names a piece of evidence to its checksum.
fn evidence_key(group: GroupId, digest: &[u8; 32]) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..].copy_from_slice(digest);
    key
}

/// The description of a group; `None` for a removed one.
fn open_group(group: GroupId, sealed: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let damaged = || StoreError::Damaged {
        what: format!("description of group {group}"),
        remedy: "rebuild this node under a new incarnation",
    };
    let mut from = Reader::new(unseal(b"group", &group.0.to_be_bytes(), sealed).ok_or_else(damaged)?);
    let live = from.flag("group status")?;
    Ok(live.then(|| from.rest()))
}

fn state_key<'a>(buffer: &'a mut Vec<u8>, group: GroupId, space: Space, key: &[u8]) -> &'a [u8] {
    buffer.clear();
    buffer.extend_from_slice(&group.0.to_be_bytes());
    buffer.push(space as u8);
    buffer.extend_from_slice(key);
    buffer
}

const STATE_KEY_PREFIX_BYTES: usize = 9;

/// The least key a group may hold and one above the greatest: no space has the number 255.
fn state_range(group: GroupId) -> ([u8; STATE_KEY_PREFIX_BYTES], [u8; STATE_KEY_PREFIX_BYTES]) {
    let mut first = [0; STATE_KEY_PREFIX_BYTES];
    first[..8].copy_from_slice(&group.0.to_be_bytes());
    let mut last = first;
    last[8] = u8::MAX;
    (first, last)
}

fn split_state_key(group: GroupId, key: &[u8]) -> Result<(Space, &[u8]), StoreError> {
    let damaged = || StoreError::Damaged {
        what: format!("state key {key:02x?} of group {group}"),
        remedy: "repair the replica from its peers",
    };
    let (prefix, name) = key.split_at_checked(STATE_KEY_PREFIX_BYTES).ok_or_else(damaged)?;
    match prefix[8] {
        0 => Ok((Space::User, name)),
        1 => Ok((Space::Host, name)),
        _ => Err(damaged()),
    }
}

/// The checksum covers the key, so that a value found under another key is damage too.
fn checksum(tag: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let sum = crc32c::crc32c(tag);
    let sum = crc32c::crc32c_append(sum, &(key.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, key);
    crc32c::crc32c_append(sum, value)
}

fn seal(tag: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    seal_into(&mut sealed, tag, key, value);
    sealed
}

fn seal_into<'a>(buffer: &'a mut Vec<u8>, tag: &[u8], key: &[u8], value: &[u8]) -> &'a [u8] {
    buffer.clear();
    buffer.reserve(CHECKSUM_BYTES + value.len());
    buffer.extend_from_slice(&checksum(tag, key, value).to_le_bytes());
    buffer.extend_from_slice(value);
    buffer
}

fn unseal(tag: &[u8], key: &[u8], sealed: &[u8]) -> Option<Bytes> {
    let (sum, value) = sealed.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u32::from_le_bytes(*sum) == checksum(tag, key, value)).then(|| Bytes::copy_from_slice(value))
}
