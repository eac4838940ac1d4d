//! The appliance as a caller meets it: the real binary, real sockets, a directory of its own.
//!
//! Each test starts a server and stops it; nothing is shared, so nothing depends on the order.
//! What is asserted is what a caller can see, on the wire or on the disk. Waiting means asking
//! until a deadline: there is no sleeping.

/// Starting, asking and stopping the binary; bodies and pictures.
mod harness;

/// Who may call what: keys, tokens, roles, other origins.
mod access;
/// What people put together, and take along.
mod collections;
/// Originals as they are stored: whole, in ranges, for those who may.
mod contents;
/// On-demand images: parameters, formats, caching.
mod images;
/// Processing and its jobs.
mod jobs;
/// What people change, delete, fetch back and replace.
mod keeping;
/// Every route for every kind of caller.
mod matrix;
/// Callbacks and their log, the feed, the changes.
mod news;
/// The process itself: health, configuration, signals, certificates, restarts.
mod operations;
/// Users, keys, the second factor.
mod people;
/// Pages with an upload key.
mod picker;
/// What metadata may look like.
mod schemas;
/// What is found.
mod search;
/// What an administrator chooses, and what follows from it.
mod settings;
/// Links and public access.
mod sharing;
/// Files on their way in, and everything that can be wrong with them.
mod uploads;
/// Films on their way out: renditions, streams, storyboards; cancelling.
mod videos;
/// The other ways in: fetched from elsewhere, straight to storage; calls that are sent twice.
mod ways;
