//! Vision: what is to be seen in a picture, found by small neural networks.
//!
//! In: packed RGB pixels. Out: plain facts about them, in shares of the picture's sides. Pure
//! and single-threaded; the networks are part of the program (`models/`, each with its origin
//! and licence) and are read once for each process, when first asked for.
//!
//! Runs in the sandboxed worker alone. It knows no canvas and no recipe: whoever has pixels
//! can ask.

pub mod faces;
