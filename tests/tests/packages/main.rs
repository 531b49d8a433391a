//! The packages that packaging/build has made: what is in them, what their scripts do, and that they are the same bytes
//! wherever they are made. Needs root, for the owners of files and for chroot, and no guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod build;
mod deb;
mod installation;
mod made;
mod notices;
mod removal;
mod reproducible;
mod root;
mod rpm;
mod selinux;
mod steps;
mod tools;
mod unit;
mod upgrade;
