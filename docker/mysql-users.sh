#!/bin/sh
# MySQL's image runs this once, when it makes the data directory. Migrations own the schema; the API and the workers read
# and write rows. What they may never change, triggers refuse to both.
set -eu
: "${DATABASE_PASSWORD:?must be set in .env}" "${MIGRATION_DATABASE_PASSWORD:?must be set in .env}"
MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --protocol=socket --user=root <<SQL
CREATE DATABASE IF NOT EXISTS penpay CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE USER 'penpay_owner'@'%' IDENTIFIED BY '$MIGRATION_DATABASE_PASSWORD';
GRANT ALL ON penpay.* TO 'penpay_owner'@'%' WITH GRANT OPTION;
CREATE USER 'penpay'@'%' IDENTIFIED BY '$DATABASE_PASSWORD';
GRANT SELECT, INSERT, UPDATE, DELETE ON penpay.* TO 'penpay'@'%';
SQL
