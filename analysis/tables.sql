-- Tables that the updaters of this folder replace, and the least that their users need.
--
-- The updaters create a missing live table by themselves, as below. Run this by hand where the
-- users must not create tables in other databases, or to use another engine (ReplicatedMergeTree …):
-- a shadow table always takes the live table's columns and engine.
--
--   clickhouse-client --multiquery < tables.sql

-- ooni-update-citizenlab: one row for each URL of each country's test list.
CREATE TABLE IF NOT EXISTS citizenlab
(
    `domain` String,              -- host of the URL: lower case, punycode, no port, no final dot
    `url` String,                 -- as it stands in the list
    `cc` FixedString(32),         -- lower case; ZZ is the global list
    `category_code` String        -- see lists/00-LEGEND-new_category_codes.csv of the test lists
)
ENGINE = ReplacingMergeTree
ORDER BY (domain, url, cc, category_code);

CREATE USER IF NOT EXISTS citizenlab IDENTIFIED WITH no_password HOST LOCAL;

-- EXCHANGE TABLES needs CREATE and DROP on both tables; the shadow is emptied and filled.
GRANT SELECT, CREATE TABLE, DROP TABLE, INSERT ON default.citizenlab TO citizenlab;
GRANT SELECT, CREATE TABLE, DROP TABLE, INSERT, TRUNCATE ON default.citizenlab_flip TO citizenlab;
GRANT CREATE TEMPORARY TABLE ON *.* TO citizenlab; -- for --dry-run
