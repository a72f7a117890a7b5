-- Tables that the updaters of this folder replace, and the least that their users need.
--
-- The updaters create a missing live table by themselves, as below. Run this by hand to use another
-- engine (ReplicatedMergeTree …): a shadow table always takes the live table's columns and engine.
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

-- ooni-update-fingerprints: what a block page looks like. The two tables differ in their scopes.
CREATE TABLE IF NOT EXISTS fingerprints_dns
(
    `name` String,
    `scope` Enum('nat' = 1, 'isp' = 2, 'prod' = 3, 'inst' = 4, 'vbw' = 5, 'fp' = 6),
    `other_names` String,
    `location_found` String,
    `pattern_type` Enum('full' = 1, 'prefix' = 2, 'contains' = 3, 'regexp' = 4),
    `pattern` String,             -- never empty; a regexp compiles in RE2; can contain CRLF
    `confidence_no_fp` UInt8,     -- 0 to 10: how sure it is that this is no false positive
    `expected_countries` String,  -- two-letter codes with commas between them
    `source` String,
    `exp_url` String,
    `notes` String
)
ENGINE = EmbeddedRocksDB
PRIMARY KEY (name);

CREATE TABLE IF NOT EXISTS fingerprints_http
(
    `name` String,
    `scope` Enum('nat' = 1, 'isp' = 2, 'prod' = 3, 'inst' = 4, 'vbw' = 5, 'fp' = 6, 'injb' = 7, 'prov' = 8),
    `other_names` String,
    `location_found` String,
    `pattern_type` Enum('full' = 1, 'prefix' = 2, 'contains' = 3, 'regexp' = 4),
    `pattern` String,
    `confidence_no_fp` UInt8,
    `expected_countries` String,
    `source` String,
    `exp_url` String,
    `notes` String
)
ENGINE = EmbeddedRocksDB
PRIMARY KEY (name);

-- ooni-update-asn-metadata: who had which ASN, from when on.
CREATE TABLE IF NOT EXISTS asnmeta
(
    `asn` UInt32,
    `org_name` String,
    `cc` String,
    `changed` Date,
    `aut_name` String,
    `source` String               -- the registry
)
ENGINE = MergeTree
ORDER BY (asn, changed);

CREATE USER IF NOT EXISTS citizenlab IDENTIFIED WITH no_password HOST LOCAL;
CREATE USER IF NOT EXISTS api IDENTIFIED WITH sha256_password BY 'api' HOST LOCAL; -- choose another

-- EXCHANGE TABLES needs CREATE, DROP, INSERT and SELECT on both tables. On a cluster: on each node.
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.citizenlab TO citizenlab;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.citizenlab_flip TO citizenlab;

GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.fingerprints_dns TO api;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.fingerprints_dns_tmp TO api;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.fingerprints_http TO api;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.fingerprints_http_tmp TO api;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.asnmeta TO api;
GRANT SELECT, INSERT, CREATE TABLE, DROP TABLE ON default.asnmeta_tmp TO api;

-- Which replicas a table has: a server that wants grants for its system tables asks for this one.
GRANT SELECT ON system.replicas TO citizenlab, api;
-- Where `cluster` is set, the nodes of it:
GRANT SELECT ON system.clusters TO citizenlab, api;

-- A --dry-run fills a temporary table.
GRANT CREATE TEMPORARY TABLE ON *.* TO citizenlab, api;
