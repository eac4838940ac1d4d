//! How our types stand in columns.
//!
//! An [`Instant`] is its milliseconds as an integer, so that columns sort and compare as
//! time does. A [`Json`] column is text. [`text_column!`](crate::text_column) gives a type
//! that has `Display` and `FromStr` a text column; a text that does not parse is an error of
//! the read, never a default.

use rusqlite::types::FromSql;
use rusqlite::types::FromSqlError;
use rusqlite::types::FromSqlResult;
use rusqlite::types::ToSql;
use rusqlite::types::ToSqlOutput;
use rusqlite::types::ValueRef;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::clock::Instant;

/// A value kept as JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = serde_json::to_string(&self.0).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        Ok(text.into())
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Json).map_err(FromSqlError::other)
    }
}

impl ToSql for Instant {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl FromSql for Instant {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Instant)
    }
}

/// Lets a type with `Display` and `FromStr` stand in a text column.
#[macro_export]
macro_rules! text_column {
    ($type:ty) => {
        impl rusqlite::types::ToSql for $type {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.to_string().into())
            }
        }

        impl rusqlite::types::FromSql for $type {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                value.as_str()?.parse().map_err(|_| rusqlite::types::FromSqlError::InvalidType)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rusqlite::Connection;

    use super::*;

    #[derive(Debug, PartialEq)]
    struct Colour(u8);

    impl std::fmt::Display for Colour {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "grey{}", self.0)
        }
    }

    impl std::str::FromStr for Colour {
        type Err = ();
        fn from_str(text: &str) -> Result<Self, ()> {
            text.strip_prefix("grey").and_then(|n| n.parse().ok()).map(Colour).ok_or(())
        }
    }

    text_column!(Colour);

    #[test]
    fn columns_read_back_what_was_written() {
        let c = Connection::open_in_memory().unwrap();
        let map = BTreeMap::from([("a".to_owned(), 1), ("é\"".to_owned(), -2)]);
        let row = c.query_row("SELECT ?1, ?2, ?3", (Instant(-5), Json(&map), Colour(7)), |r| {
            Ok((r.get::<_, Instant>(0)?, r.get::<_, Json<BTreeMap<String, i32>>>(1)?.0, r.get::<_, Colour>(2)?))
        });
        assert_eq!(row.unwrap(), (Instant(-5), map, Colour(7)));
    }

    #[test]
    fn a_damaged_column_is_an_error() {
        let c = Connection::open_in_memory().unwrap();
        assert!(c.query_row("SELECT '{'", [], |r| r.get::<_, Json<i32>>(0)).is_err());
        assert!(c.query_row("SELECT 'red'", [], |r| r.get::<_, Colour>(0)).is_err());
        assert!(c.query_row("SELECT 'soon'", [], |r| r.get::<_, Instant>(0)).is_err());
    }
}
