#![doc = include_str!("README.md")]

// The floors, from the ground up; a room uses what stands above it in this list.
pub mod error;
pub mod support;

pub mod infra;
pub mod media;

pub mod accounts;
pub mod assets;
pub mod films;
pub mod homes;
pub mod journal;
pub mod schemas;
pub mod settings;
pub mod stills;

pub mod catalogue;
pub mod collections;
pub mod custody;
pub mod delivery;
pub mod ingest;
pub mod news;
pub mod processing;
pub mod search;
pub mod webhooks;
pub mod wire;

pub mod interfaces;

pub mod app;
pub mod cli;
pub mod config;
