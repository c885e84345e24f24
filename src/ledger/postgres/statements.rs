//! What is said to the server. `clock_timestamp()`, not `now()`: a statement that waited for another one's row decides
//! by the time at which it goes on.

/// The tables, made under a lock, since several instances may come to an empty database at a time. Keys are bytes, so
/// that their order does not depend on the database's locale.
pub(super) const TABLES: &str = "
BEGIN;
SELECT pg_advisory_xact_lock(5491070417);
CREATE SCHEMA IF NOT EXISTS linkspan;
CREATE TABLE IF NOT EXISTS linkspan.format (number integer PRIMARY KEY);
INSERT INTO linkspan.format SELECT 1 WHERE NOT EXISTS (SELECT FROM linkspan.format);
CREATE SEQUENCE IF NOT EXISTS linkspan.versions;
CREATE TABLE IF NOT EXISTS linkspan.entries
  (key bytea PRIMARY KEY, value bytea NOT NULL, version bigint NOT NULL, expires timestamptz);
CREATE INDEX IF NOT EXISTS entries_expires ON linkspan.entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS linkspan.leases
  (name text PRIMARY KEY, holder text NOT NULL, run bigint NOT NULL, fence bigint NOT NULL, until timestamptz NOT NULL);
COMMIT";

/// Which format the tables have.
pub(super) const FORMAT: &str = "SELECT max(number) FROM linkspan.format";

pub(super) const PING: &str = "SELECT 1";

/// For who only looks: the server's version, whether there are tables, and whether they could be made.
pub(super) const LOOK: &str = "
SELECT current_setting('server_version'), to_regclass('linkspan.format') IS NOT NULL,
  has_database_privilege(current_database(), 'CREATE')";

pub(super) const GET: &str = "
SELECT value, version FROM linkspan.entries WHERE key = $1 AND (expires IS NULL OR expires > clock_timestamp())";

pub(super) const SCAN: &str = "
SELECT key, value, version FROM linkspan.entries
WHERE key >= $1 AND ($2::bytea IS NULL OR key < $2) AND ($3::bytea IS NULL OR key > $3)
  AND (expires IS NULL OR expires > clock_timestamp())
ORDER BY key LIMIT $4";

/// The row of a lease that has that number, kept from being taken until the statement is over.
pub(super) const GUARD: &str = "SELECT 1 FROM linkspan.leases WHERE name = $1 AND fence = $2 FOR SHARE";

/// $1 key, $2 value, $3 seconds or null, $4 lease or null, $5 its number, $6 whether nothing may be there.
pub(super) const PUT: &str = "
WITH guard AS (SELECT 1 FROM linkspan.leases WHERE name = $4::text AND fence = $5 FOR SHARE)
INSERT INTO linkspan.entries AS old (key, value, version, expires)
SELECT $1, $2, nextval('linkspan.versions'), clock_timestamp() + make_interval(secs => $3::double precision)
WHERE $4::text IS NULL OR EXISTS (SELECT FROM guard)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version, expires = excluded.expires
WHERE NOT $6::boolean OR old.expires <= clock_timestamp()
RETURNING version";

/// $6 is the version that has to be there.
pub(super) const REPLACE: &str = "
WITH guard AS (SELECT 1 FROM linkspan.leases WHERE name = $4::text AND fence = $5 FOR SHARE)
UPDATE linkspan.entries SET value = $2, version = nextval('linkspan.versions'),
  expires = clock_timestamp() + make_interval(secs => $3::double precision)
WHERE key = $1 AND version = $6 AND (expires IS NULL OR expires > clock_timestamp())
  AND ($4::text IS NULL OR EXISTS (SELECT FROM guard))
RETURNING version";

/// $1 key, $2 version or null, $3 lease or null, $4 its number.
pub(super) const DELETE: &str = "
WITH guard AS (SELECT 1 FROM linkspan.leases WHERE name = $3::text AND fence = $4 FOR SHARE)
DELETE FROM linkspan.entries
WHERE key = $1 AND ($2::bigint IS NULL OR version = $2 AND (expires IS NULL OR expires > clock_timestamp()))
  AND ($3::text IS NULL OR EXISTS (SELECT FROM guard))
RETURNING expires IS NULL OR expires > clock_timestamp()";

/// What has expired, a thousand at a time.
pub(super) const REAP: &str = "
DELETE FROM linkspan.entries WHERE key IN
  (SELECT key FROM linkspan.entries WHERE expires <= clock_timestamp() LIMIT 1000 FOR UPDATE SKIP LOCKED)";

/// $1 name, $2 instance, $3 its run, $4 seconds.
pub(super) const TAKE: &str = "
INSERT INTO linkspan.leases AS old (name, holder, run, fence, until)
VALUES ($1, $2, $3, 1, clock_timestamp() + make_interval(secs => $4::double precision))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, run = excluded.run,
  until = clock_timestamp() + make_interval(secs => $4::double precision),
  fence = old.fence + CASE WHEN old.holder = $2 AND old.run = $3 AND old.until > clock_timestamp() THEN 0 ELSE 1 END
WHERE old.holder = $2 OR old.until <= clock_timestamp()
RETURNING fence";

/// $4 is the number under which it is held, $5 seconds.
pub(super) const ADVANCE: &str = "
UPDATE linkspan.leases
SET fence = fence + 1, until = clock_timestamp() + make_interval(secs => $5::double precision)
WHERE name = $1 AND holder = $2 AND run = $3 AND fence = $4
RETURNING fence";

/// The row stays, so that its number goes on.
pub(super) const GIVE_BACK: &str = "
UPDATE linkspan.leases SET until = '-infinity' WHERE name = $1 AND holder = $2 AND run = $3 AND fence = $4
RETURNING fence";

pub(super) const HOLDER: &str = "SELECT holder FROM linkspan.leases WHERE name = $1";
