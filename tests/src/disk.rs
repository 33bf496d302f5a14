//! A disk that is soon full.

use anyhow::Result;
use std::fs;
use std::process::Command;

/// A file system of its own, of so many bytes.
pub struct SmallDisk(String);

impl SmallDisk {
    /// Nothing where we may not mount.
    pub fn mount(place: &str, bytes: usize) -> Result<Option<Self>> {
        fs::create_dir_all(place)?;
        let size = format!("size={bytes}");
        let run = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", place]).output()?;
        Ok(run.status.success().then(|| Self(place.into())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // One that is busy stays until the machine is gone, and harms nobody.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}
