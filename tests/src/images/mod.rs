//! Disk images: copies and checks.
