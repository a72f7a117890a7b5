-- Tables that the detector writes, and the least that its user needs.
--
-- The detector creates a missing table by itself, as below. Run this by hand to use another engine
-- (ReplicatedReplacingMergeTree …): a shadow table always takes the live table's columns and engine.
--
--   clickhouse-client --multiquery < tables.sql

-- The state of each series: a test of an input in a network of a country.
CREATE TABLE IF NOT EXISTS blocking_status
(
    `test_name` String,
    `input` String,                   -- a URL; empty for a test that has none
    `probe_cc` String,
    `probe_asn` Int32,
    `confirmed_perc` Float32,         -- of the measurements (cnt), with a known block page
    `pure_anomaly_perc` Float32,      -- with anomalies, but not confirmed
    `accessible_perc` Float32,        -- without anomalies
    `cnt` Float32,                    -- measurements that did not fail; a week old ones count half
    `status` String,                  -- OK, BLOCKED, or UNKNOWN: too few measurements, none for long
    `old_status` String,              -- the one before
    `change` Float32,                 -- 0 to 1: how much of the evidence for another status there is
    `stability` Float32,              -- 0 to 1: the share of the measurements that speak for it
    `update_time` DateTime64(0),      -- the end of the last hour that was looked at
    `service` String,                 -- as configured
    `since` DateTime('UTC'),          -- when the status began, as far as the measurements tell
    `last_measurement` DateTime('UTC') -- the end of the last hour that has measurements
)
ENGINE = ReplacingMergeTree
ORDER BY (test_name, input, probe_cc, probe_asn);

-- Every change of a series from OK to BLOCKED or back.
CREATE TABLE IF NOT EXISTS blocking_events
(
    `test_name` String,
    `input` String,
    `probe_cc` String,
    `probe_asn` Int32,
    `status` String,                  -- BLOCKED or OK, from `time` on
    `time` DateTime64(3),             -- when it began, as far as the measurements tell
    `detection_time` DateTime64(0)    -- the end of the hour whose measurements made it sure
)
ENGINE = ReplacingMergeTree
ORDER BY (test_name, input, probe_cc, probe_asn, time);

-- Tables of the detector of before have fewer columns, and compute two of them:
--
--   ALTER TABLE blocking_status MODIFY COLUMN update_time REMOVE MATERIALIZED;
--   ALTER TABLE blocking_status ADD COLUMN service String, ADD COLUMN since DateTime('UTC'),
--       ADD COLUMN last_measurement DateTime('UTC');
--   ALTER TABLE blocking_events MODIFY COLUMN detection_time REMOVE MATERIALIZED;

CREATE USER IF NOT EXISTS detector IDENTIFIED WITH sha256_password BY 'detector' HOST LOCAL; -- choose another

GRANT SELECT ON default.fastpath TO detector;
-- EXCHANGE TABLES needs CREATE, DROP, INSERT and SELECT on both tables. On a cluster: on each node.
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.blocking_status TO detector;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.blocking_status_tmp TO detector;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.blocking_events TO detector;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.blocking_events_tmp TO detector;

-- Which replicas a table has: a server that wants grants for its system tables asks for this one.
GRANT SELECT ON system.replicas TO detector;
-- Where `cluster` is set, the nodes of it:
GRANT SELECT ON system.clusters TO detector;

-- A --dry-run fills a temporary table, and charts are asked for with one.
GRANT CREATE TEMPORARY TABLE ON *.* TO detector;
